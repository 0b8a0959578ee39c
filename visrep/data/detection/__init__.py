"""Detection data: PASCAL VOC with any classes, COCO, LVIS and Cityscapes."""

from visrep.data.detection.boxes import (
    Box,
    DetectionDataset,
    ImageRecord,
    Keypoints,
    trainable,
)
from visrep.data.detection.cityscapes import read_cityscapes
from visrep.data.detection.coco import read_coco
from visrep.data.detection.lvis import read_lvis
from visrep.data.detection.voc import VOC_CLASSES, read_voc, read_voc_sets

__all__ = [
    "VOC_CLASSES",
    "Box",
    "DetectionDataset",
    "ImageRecord",
    "Keypoints",
    "read_cityscapes",
    "read_coco",
    "read_lvis",
    "read_voc",
    "read_voc_sets",
    "trainable",
]
