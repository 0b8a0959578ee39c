"""Does a model compute what the encoder computes whose tensors it was given?

Both run on the same fixed images, in float32 without the shortcuts of a GPU. Nothing here imports
Detectron2.
"""

import contextlib
import copy
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from visrep.d2.backbone import FEATURES
from visrep.d2.weights import head_in
from visrep.errors import CheckFailed
from visrep.nn.resnet import ResNet
from visrep.seeds import generator

TOLERANCE = 1e-5


def fixed_images() -> Tensor:
    """The images of every check, 2 x 3 x 64 x 96, normalised."""
    return torch.randn(2, 3, 64, 96, generator=generator("detectron2 check"))


def features(encoder: ResNet, images: Tensor) -> dict[str, Tensor]:
    """res2 to res5 of `images` by our own net in eval mode, which stays as it is."""
    with exact(encoder):
        return dict(zip(FEATURES, encoder.feature_maps(images), strict=True))


def features_on(encoder: ResNet, device: torch.device) -> tuple[Tensor, dict[str, Tensor]]:
    """The fixed images and their features on `device`, where no copy of `encoder` stays."""
    images = fixed_images().to(device)
    return images, features(copy.deepcopy(encoder).to(device), images)


def differences(model: Any, images: Tensor, ours: Mapping[str, Tensor]) -> dict[str, float]:
    """Each stage of a Detectron2 model that has the encoder's tensors, against `ours`.

    Returns res2..res5 -> largest |difference| / largest |value|. A dilated res5 computes something
    else and is left out.

    Raises:
        CheckFailed: one is above `TOLERANCE`, NaN, or of another shape.
    """
    head = head_in(model)
    with exact(model):
        theirs = _stages(trunk_of(model), images)
        if head == "c4":
            named = model.roi_heads.res5.named_children()
            blocks = [block for name, block in named if name != "norm"]
            theirs["res5"] = nn.Sequential(*blocks)(theirs["res4"])
    compared = FEATURES[:-1] if head == "plain" else FEATURES
    return require_equal({name: theirs[name] for name in compared}, ours)


def require_equal(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, float]:
    """The relative difference of each of `theirs`. Raises CheckFailed as `differences`."""
    found = {}
    for name, tensor in theirs.items():
        if tensor.shape != ours[name].shape:
            raise CheckFailed(
                f"{name} is {tuple(tensor.shape)} in the detector and {tuple(ours[name].shape)} in "
                "the encoder"
            )
        found[name] = relative(tensor, ours[name])
    worst = max(found, key=lambda name: found[name])
    if not all(value <= TOLERANCE for value in found.values()):
        raise CheckFailed(
            f"{worst} differs by {found[worst]:.2g} of the encoder's largest value there, the "
            f"limit is {TOLERANCE:.0e}"
        )
    return found


def relative(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|, NaN if there is one."""
    scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
    return float((a - b).abs().max() / scale)


def trunk_of(model: Any) -> Any:
    """The ResNet of a Detectron2 model, without its pyramid."""
    return getattr(model.backbone, "bottom_up", model.backbone)


@contextlib.contextmanager
def exact(net: nn.Module) -> Iterator[None]:
    """`net` in eval mode, without gradients, and without TF32, which is good to three digits."""
    modes = {module: module.training for module in net.modules()}
    products = torch.get_float32_matmul_precision()
    try:
        torch.set_float32_matmul_precision("highest")
        with torch.inference_mode(), torch.backends.cudnn.flags(enabled=True, allow_tf32=False):
            net.eval()
            yield
    finally:
        torch.set_float32_matmul_precision(products)
        for module, training in modes.items():
            module.training = training


def _stages(trunk: Any, images: Tensor) -> dict[str, Tensor]:
    """What each stage of `trunk` gives out, whichever of them it hands on."""
    if hasattr(trunk, "net"):  # visrep's
        stages = {name: getattr(trunk.net, f"layer{n}") for n, name in enumerate(FEATURES, 1)}
    else:
        stages = {name: getattr(trunk, name) for name in FEATURES if hasattr(trunk, name)}
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Any:
        def hook(_module: nn.Module, _given: Any, made: Tensor) -> None:
            seen[name] = made

        return hook

    hooks = [stage.register_forward_hook(note(name)) for name, stage in stages.items()]
    try:
        trunk(images)
    finally:
        for hook in hooks:
            hook.remove()
    return seen
