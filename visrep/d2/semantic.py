"""Semantic segmentation in Detectron2: its `SemanticSegmentor`, MoCo's FCN head, our label images.

Semantic FPN is Detectron2's own. The FCN head is registered here under `FCN_HEAD`, and so are
random scales and crops, for which its config has no keys. Detectron2 is imported inside functions.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.semantic.labels import IGNORED, LabelImage
from visrep.nn.segmentation import FCNHead, pixel_loss, to_pixels

FCN_HEAD = "VisrepFCNHead"
ARCHITECTURE = "SemanticSegmentor"


def add_to(cfg: Any) -> None:
    """Give a Detectron2 config the keys of the FCN head, of scales and crops; register the head."""
    from detectron2.config import CfgNode

    register()
    cfg.MODEL.SEM_SEG_HEAD.NUM_CONVS = 2
    cfg.MODEL.SEM_SEG_HEAD.DILATION = 6
    cfg.INPUT.VISREP = CfgNode({"SCALES": [], "CROP": 0})


def needs_own_keys(nested: dict[str, Any]) -> bool:
    """Whether a config, as nested dicts, has keys that `add_to` adds."""
    head = nested["MODEL"].get("SEM_SEG_HEAD", {})
    return head.get("NAME") == FCN_HEAD or "VISREP" in nested["INPUT"]


def settings(
    recipe: DetectionRecipe, *, levels: Sequence[str], strides: Sequence[int], norm: str
) -> dict[str, Any]:
    """What Detectron2's config must say about a recipe of classes of pixels, as nested dicts.

    levels, strides: the maps of the pyramid; of head=fcn the strides are that of layer4 alone.
    norm: of what trains.
    """
    head: dict[str, Any] = {"IGNORE_VALUE": IGNORED, "COMMON_STRIDE": strides[0]}
    if recipe.head == "fcn":
        head |= {
            "NAME": FCN_HEAD,
            "IN_FEATURES": ["res5"],
            "CONVS_DIM": recipe.fcn_width,
            "NUM_CONVS": recipe.fcn_convs,
            "DILATION": recipe.fcn_dilation,
            "NORM": "BN" if norm == "FrozenBN" else norm,  # fresh layers have nothing to freeze
        }
    else:
        head |= {"IN_FEATURES": list(levels), "CONVS_DIM": recipe.semantic_width}
    made: dict[str, Any] = {"MODEL": {"META_ARCHITECTURE": ARCHITECTURE, "SEM_SEG_HEAD": head}}
    if recipe.scales or recipe.crop:
        own = {"SCALES": [float(v) for v in recipe.scales], "CROP": recipe.crop}
        made["INPUT"] = {"VISREP": own}
    if recipe.scales:
        made.setdefault("INPUT", {})["MIN_SIZE_TRAIN"] = [0]  # which resizes nothing
    return made


def register() -> None:
    """Register the FCN head with Detectron2; a second call changes nothing."""
    from detectron2.layers import get_norm
    from detectron2.modeling import SEM_SEG_HEADS_REGISTRY

    if FCN_HEAD in SEM_SEG_HEADS_REGISTRY:
        return

    class VisrepFCNHead(FCNHead):
        """The FCN head on one map, with Detectron2's interface."""

        def __init__(self, cfg: Any, input_shape: dict[str, Any]) -> None:
            own = cfg.MODEL.SEM_SEG_HEAD
            (self_feature,) = own.IN_FEATURES
            shape = input_shape[self_feature]
            super().__init__(
                shape.channels,
                classes=own.NUM_CLASSES,
                width=own.CONVS_DIM,
                convs=own.NUM_CONVS,
                dilation=own.DILATION,
                norm=lambda channels: _norm(get_norm(own.NORM, channels)),
            )
            self.in_feature, self.stride = self_feature, shape.stride
            self.ignore_value = own.IGNORE_VALUE

        def forward(  # type: ignore[override]
            self, features: dict[str, Tensor], targets: Tensor | None = None
        ) -> tuple[Tensor | None, dict[str, Tensor]]:
            logits = to_pixels(super().forward(features[self.in_feature]), self.stride)
            if not self.training:
                return logits, {}
            assert targets is not None
            height, width = targets.shape[-2:]
            loss = pixel_loss(logits[..., :height, :width], targets, ignored=self.ignore_value)
            return None, {"loss_sem_seg": loss}

    SEM_SEG_HEADS_REGISTRY.register(VisrepFCNHead)


def _norm(made: nn.Module | None) -> nn.Module:
    return nn.Identity() if made is None else made


def entry_of(record: ImageRecord) -> dict[str, Any]:
    """An image in Detectron2's format; it is no image with objects, of which some have none.

    A label image whose ids are the classes' indices is named as its own programs want it.
    """
    labels = record.labels
    plain = isinstance(labels, LabelImage) and labels.coding.is_plain
    return {
        **({"sem_seg_file_name": labels.file} if plain else {}),  # type: ignore[union-attr]
        "file_name": str(record.file),
        "image_id": record.id,
        "height": record.height,
        "width": record.width,
        "depth": record.depth,
        "labels": labels,
    }


def metadata_of(dataset: DetectionDataset) -> dict[str, Any]:
    """What its catalogue says of a data set with classes of pixels, for its own evaluator."""
    classes = list(dataset.classes)
    return {"stuff_classes": classes, "ignore_label": IGNORED, "evaluator_type": "sem_seg"}


def mapper(cfg: Any, augmentations: list[Any], *, training: bool) -> Any:
    """Reads an image of `entry_of` and its labels for the model, through `augmentations`.

    Raises (from the function that is returned):
        UserError: a file cannot be read, has another size than its partner, or unknown ids.
    """
    from detectron2.data.detection_utils import convert_PIL_to_numpy
    from detectron2.data.transforms import AugInput, AugmentationList

    own = cfg.INPUT.get("VISREP")
    before = [_scale_and_crop(own.SCALES, own.CROP)] if training and own else []
    through = AugmentationList([*before, *augmentations])

    def read(entry: dict[str, Any]) -> dict[str, Any]:
        size = (entry["height"], entry["width"])
        record = ImageRecord(entry["file_name"], entry["image_id"], *size, depth=entry["depth"])
        picture = Image.fromarray(record.image().permute(1, 2, 0).numpy())
        labels = entry["labels"].read(*size).numpy() if training else None
        seen = AugInput(convert_PIL_to_numpy(picture, cfg.INPUT.FORMAT), sem_seg=labels)
        through(seen)
        own_labels = ("labels", "sem_seg_file_name")
        kept = {key: value for key, value in entry.items() if key not in own_labels}
        kept["image"] = torch.as_tensor(np.ascontiguousarray(seen.image.transpose(2, 0, 1)))
        if training:
            kept["sem_seg"] = torch.as_tensor(seen.sem_seg.astype(np.int64))
        return kept

    return read


def _scale_and_crop(scales: Sequence[float], crop: int) -> Any:
    """Resize by a factor between the two `scales`, then cut out up to `crop` x `crop` pixels."""
    from detectron2.data.transforms import (
        Augmentation,
        CropTransform,
        ResizeTransform,
        TransformList,
    )

    class ScaleAndCrop(Augmentation):
        def get_transform(self, image: np.ndarray) -> Any:
            height, width = image.shape[:2]
            steps: list[Any] = []
            if scales:
                factor = np.random.uniform(scales[0], scales[1])
                old = (height, width)
                height, width = (max(1, int(side * factor + 0.5)) for side in old)
                steps.append(ResizeTransform(*old, height, width, Image.Resampling.BILINEAR))
            if crop:
                h, w = min(crop, height), min(crop, width)
                top, left = np.random.randint(height - h + 1), np.random.randint(width - w + 1)
                steps.append(CropTransform(left, top, w, h, width, height))
            return TransformList(steps)

    return ScaleAndCrop()
