"""A net that names the class of every pixel, around our ResNet: MoCo's FCN, or semantic FPN.

The same nets as in Detectron2's engine. They need nothing of torchvision's beyond its pyramid, and
belong to its engine.
"""

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep.d2.backbone import freeze
from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import ImageRecord
from visrep.data.preprocess import Preprocess
from visrep.data.semantic.labels import IGNORED
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import ResNet, dilate
from visrep.nn.segmentation import FCNHead, PyramidHead, pixel_loss, to_pixels
from visrep.seeds import derive_seed
from visrep.transfer.detection.batches import load
from visrep.transfer.detection.tv_detector import OneMap, Pyramid, frozen_norms, of_unit_range


class Segmenter(nn.Module):
    """Logits of classes for each pixel, from a copy of `encoder`, trained as the recipe says.

    Args:
        encoder: its weights are copied; with head=fcn its layer4 is dilated.
        classes: K.
        recipe: head, frozen parts, sizes.
        preprocess: how the encoder expects its input.
        seed: of the fresh layers.

    Raises:
        ConfigError: the encoder does not take RGB.
    """

    mean: Tensor
    std: Tensor

    def __init__(
        self,
        *,
        encoder: ResNet,
        classes: int,
        recipe: DetectionRecipe,
        preprocess: Preprocess,
        seed: int,
    ) -> None:
        super().__init__()
        statistics = of_unit_range(preprocess)
        net = dilate(encoder) if recipe.head == "fcn" else copy.deepcopy(encoder)
        net = net.train().requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive_seed(seed, "detector"))
            build = _fcn if recipe.head == "fcn" else _on_pyramid
            self.backbone, self.head = build(net, classes, recipe)
        freeze(net, recipe.freeze_at, frozen_norms)
        if recipe.norm == "FrozenBN":
            frozen_norms(self.backbone)
        used = net.strides[3:] if recipe.head == "fcn" else net.strides[recipe.fpn_first - 1 :]
        self.stride = used[0]
        # A pyramid adds maps of different strides, which must divide the padded image.
        self.divisor = 1 if recipe.head == "fcn" else used[-1]
        self.recipe = recipe
        for name, values in zip(("mean", "std"), statistics, strict=True):
            self.register_buffer(name, torch.tensor(values)[:, None, None], persistent=False)

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return next(self.parameters()).device

    def state(self) -> dict[str, Tensor]:
        """All that a file must keep."""
        return self.state_dict()

    def seed(self, seed: int) -> None:
        """Nothing is drawn inside the net, so nothing follows from `seed`."""

    def forward(self, images: list[Tensor], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        """The loss of images (3 x H x W, 0 to 1) and their `classes` (H x W)."""
        logits = self.logits(images)
        height, width = logits.shape[-2:]
        classes = logits.new_full((len(images), height, width), IGNORED, dtype=torch.int64)
        for row, target in zip(classes, targets, strict=True):
            h, w = target["classes"].shape
            row[:h, :w] = target["classes"]
        return {"loss_sem_seg": pixel_loss(logits, classes, ignored=IGNORED)}

    def logits(self, images: list[Tensor]) -> Tensor:
        """N x K x H x W of a batch, H and W those of its largest image, or above where the net
        needs a multiple."""
        divisor = self.divisor
        sides = [max(image.shape[axis] for image in images) for axis in (1, 2)]
        height, width = (-(-side // divisor) * divisor for side in sides)
        batch = images[0].new_zeros((len(images), 3, height, width))
        for row, image in zip(batch, images, strict=True):
            row[:, : image.shape[1], : image.shape[2]] = (image - self.mean) / self.std
        return self._pixels(batch)[..., :height, :width]

    @torch.no_grad()
    def segment(self, record: ImageRecord) -> Tensor:
        """The class of each pixel of an image in its own size, uint8 H x W.

        Raises as `ImageRecord.image`.
        """
        self.eval()
        size = {"short": self.recipe.test_size, "most": self.recipe.max_size}
        image = load(record, **size) if self.recipe.test_size else record.image()
        logits = self.logits([image.to(self.device).float() / 255])
        seen = logits[..., : image.shape[1], : image.shape[2]].float()
        own = (record.height, record.width)
        if seen.shape[-2:] != own:
            seen = F.interpolate(seen, size=own, mode="bilinear", align_corners=False)
        return seen[0].argmax(dim=0).to(torch.uint8).cpu()

    def _pixels(self, batch: Tensor) -> Tensor:
        maps = list(self.backbone(batch).values())
        if isinstance(self.head, FCNHead):
            return to_pixels(self.head(maps[0]), self.stride)
        logits = self.head(maps[: len(self.head.steps)])
        return F.interpolate(logits, scale_factor=self.stride, mode="bilinear", align_corners=False)


Parts = tuple[OneMap | Pyramid, FCNHead | PyramidHead]


def _fcn(encoder: ResNet, classes: int, recipe: DetectionRecipe) -> Parts:
    """MoCo's (arXiv 1911.05722, appendix): layer4 at the stride of layer3, and its head."""
    head = FCNHead(
        encoder.channels[3],
        classes=classes,
        width=recipe.fcn_width,
        convs=recipe.fcn_convs,
        dilation=recipe.fcn_dilation,
        norm=BatchNorm,
    )
    return OneMap(encoder, 4), head


def _on_pyramid(encoder: ResNet, classes: int, recipe: DetectionRecipe) -> Parts:
    """Semantic FPN (arXiv 1901.02446)."""
    backbone = Pyramid(encoder, recipe)
    steps = range(5 - recipe.fpn_first)
    head = PyramidHead(
        recipe.fpn_channels, classes=classes, width=recipe.semantic_width, steps=steps
    )
    return backbone, head
