"""torchvision's detector before it is trained: does it hold the encoder, and compute the same?"""

import torch
from torch import Tensor

from visrep.d2.agreement import FEATURES, TOLERANCE, exact, features, fixed_images, require_equal
from visrep.errors import CheckFailed
from visrep.nn.resnet import ResNet
from visrep.transfer.detection.tv_detector import Detector
from visrep.transfer.detection.tv_segmenter import Segmenter
from visrep.weights.encoder_file import COUNTER


def verified(detector: Detector | Segmenter, encoder: ResNet) -> str:
    """A line that says how many tensors of `encoder` are in `detector`, and that its features are
    equal; both are where they were made, in their mode before.

    Raises:
        CheckFailed: a tensor is another one, or the features differ.
    """
    state, trunk = detector.state_dict(), detector.backbone.encoder
    regions = getattr(detector, "roi_heads", None)
    head = getattr(regions.box_head, "layer4", None) if regions else None  # on C4
    wanted = {n: t for n, t in encoder.state_dict().items() if not n.endswith(COUNTER)}
    for name, tensor in wanted.items():
        on_regions = head is not None and name.startswith("layer4.")
        place = f"roi_heads.box_head.{name}" if on_regions else f"backbone.encoder.{name}"
        if place not in state or not torch.equal(state[place], tensor):
            raise CheckFailed(f"the detector does not have the encoder's {name}")
    images = fixed_images()
    with exact(detector):
        maps: list[Tensor] = list(trunk.feature_maps(images))
        if head is not None:
            maps[3] = head(maps[2])
    theirs = dict(zip(FEATURES, maps, strict=True))
    if detector.recipe.head == "dc5":
        del theirs[FEATURES[-1]]  # dilated, it computes something else
    require_equal(theirs, features(encoder, images))
    return f"{len(wanted)} of {len(wanted)} tensors set; features equal to {TOLERANCE:.0e}"
