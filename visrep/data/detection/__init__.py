"""Detection data: PASCAL VOC with any classes, and COCO."""

from visrep.data.detection.boxes import (
    Box,
    DetectionDataset,
    ImageRecord,
    Keypoints,
    trainable,
)
from visrep.data.detection.coco import read_coco
from visrep.data.detection.voc import VOC_CLASSES, read_voc, read_voc_sets

__all__ = [
    "VOC_CLASSES",
    "Box",
    "DetectionDataset",
    "ImageRecord",
    "Keypoints",
    "read_coco",
    "read_voc",
    "read_voc_sets",
    "trainable",
]
