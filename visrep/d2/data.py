"""Our data in Detectron2's catalogues and formats; it is imported inside functions."""

import copy
from typing import Any

import numpy as np
import torch
from PIL import Image

from visrep.d2 import semantic
from visrep.d2.config_text import catalogued
from visrep.data.detection import DetectionDataset, ImageRecord


def register(dataset: DetectionDataset, name: str | None = None) -> str:
    """Register `dataset` in Detectron2's catalogues and return its name there; repeatable.

    Detectron2's programs measure it by COCO's AP.
    """
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = name or catalogued(dataset)
    if name in DatasetCatalog.list():
        DatasetCatalog.remove(name)
    if name in MetadataCatalog.list():
        MetadataCatalog.remove(name)
    count = dataset.keypoint_count
    DatasetCatalog.register(
        name, lambda: [dataset_dict(record, keypoints=count) for record in dataset.records]
    )
    metadata = MetadataCatalog.get(name)
    if any(record.labels is not None for record in dataset.records):
        metadata.set(**semantic.metadata_of(dataset))
        return name
    metadata.set(thing_classes=list(dataset.classes), evaluator_type="coco")
    if dataset.keypoints is not None:
        names = dataset.keypoints.names
        partners = dataset.keypoints.partners or range(count)
        pairs = [(names[a], names[b]) for a, b in enumerate(partners) if a < b]
        metadata.set(keypoint_names=list(names), keypoint_flip_map=pairs)
    return name


def dataset_dict(record: ImageRecord, *, keypoints: int = 0) -> dict[str, Any]:
    """An image in Detectron2's format; all its objects have so many `keypoints`, or none."""
    if record.labels is not None:
        return semantic.entry_of(record)
    from detectron2.structures import BoxMode

    annotations = []
    for box in record.boxes:
        annotation: dict[str, Any] = {
            "bbox": list(box.xyxy),
            "bbox_mode": BoxMode.XYXY_ABS,
            "category_id": box.category,
            "iscrowd": int(box.crowd),
        }
        if box.mask is not None:
            annotation["segmentation"] = box.mask
        if keypoints:
            annotation["keypoints"] = list(box.keypoints or [0.0] * (3 * keypoints))
        annotations.append(annotation)
    return {
        "file_name": str(record.file),
        "image_id": record.id,
        "height": record.height,
        "width": record.width,
        "depth": record.depth,
        "annotations": annotations,
    }


def mapper(cfg: Any, *, training: bool) -> Any:
    """What Detectron2's mapper does with an image of `dataset_dict`, on the pixels that we read.

    It would read the file by itself, which is another picture where the file is deep or rotated.

    Raises (from the function that is returned):
        UserError: the file cannot be read, or has another size than annotated.
    """
    from detectron2.data import DatasetMapper
    from detectron2.data.detection_utils import convert_PIL_to_numpy
    from detectron2.data.transforms import AugInput

    if not training and cfg.MODEL.KEYPOINT_ON:
        # It would ask for the mirror partners of data that this process may not know.
        cfg = cfg.clone()
        cfg.defrost()
        cfg.MODEL.KEYPOINT_ON = False
    given = DatasetMapper.from_config(cfg, is_train=training)["augmentations"]
    if cfg.MODEL.META_ARCHITECTURE == semantic.ARCHITECTURE:
        return semantic.mapper(cfg, _leaving_a_pixel(given), training=training)
    original = DatasetMapper(cfg, is_train=training, augmentations=_leaving_a_pixel(given))

    def read(entry: dict[str, Any]) -> dict[str, Any]:
        entry = copy.deepcopy(entry)
        file, size, depth = entry["file_name"], (entry["height"], entry["width"]), entry["depth"]
        record = ImageRecord(file, entry["image_id"], *size, depth=depth)
        picture = Image.fromarray(record.image().permute(1, 2, 0).numpy())
        seen = AugInput(convert_PIL_to_numpy(picture, cfg.INPUT.FORMAT))
        transforms = original.augmentations(seen)
        pixels = np.ascontiguousarray(seen.image.transpose(2, 0, 1))
        entry["image"] = torch.as_tensor(pixels)
        if training:
            original._transform_annotations(entry, transforms, pixels.shape[1:])
        else:
            entry.pop("annotations")
        return entry

    return read


def _leaving_a_pixel(augmentations: list[Any]) -> list[Any]:
    """Detectron2's resize at the short side would leave no pixel of a strip of 3000 x 8."""
    from detectron2.data.transforms import Augmentation, ResizeShortestEdge, ResizeTransform

    class Resize(Augmentation):
        def __init__(self, original: ResizeShortestEdge) -> None:
            super().__init__()
            self.original = original

        def get_transform(self, image: np.ndarray) -> Any:
            made = self.original.get_transform(image)
            if isinstance(made, ResizeTransform):
                made.new_h, made.new_w = max(1, made.new_h), max(1, made.new_w)
            return made

    return [Resize(a) if isinstance(a, ResizeShortestEdge) else a for a in augmentations]
