"""COCO's stuff, and masks of objects as classes of pixels."""

import dataclasses

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.transfer.detection.shapes import shapes
from tests.visrep.data.semantic.layouts import blocks, write_image, write_labels
from visrep.data.semantic.coco import STUFF, drawn, read_stuff
from visrep.data.semantic.readiness import labels_of
from visrep.errors import UserError


def test_stuff_is_read_from_the_folder_that_detectron2_makes(tmp_path):
    ids = blocks(30, 40, [0, 53, 12], seed=0)
    write_image(tmp_path / "val2017/000000000139.jpg", ids)
    write_image(tmp_path / "val2017/000000000285.jpg", ids)
    with pytest.raises(UserError, match=r"panoptic_stuff_val2017 is not there.*prepare_panoptic"):
        read_stuff(tmp_path, "val2017")
    write_labels(tmp_path / "panoptic_stuff_val2017/000000000139.png", ids)
    data = read_stuff(tmp_path, "val2017")
    assert len(data.classes) == len(set(STUFF)) == 54 and data.classes[0] == "things"
    assert [record.id for record in data.records] == ["000000000139"]
    assert torch.equal(labels_of(data.records[0]), torch.from_numpy(ids))


def test_masks_become_classes_of_pixels(tmp_path):
    boxes = shapes(tmp_path, images=3, seed=0)
    data = drawn(boxes)
    assert data.classes == ["background", "square", "disc"]
    for before, record in zip(boxes.records, data.records, strict=True):
        labels = labels_of(record).numpy()
        known = [(rle.decode(box.mask) > 0, box.category + 1) for box in before.boxes]
        assert not record.boxes and (labels[~np.any([m for m, _ in known], axis=0)] == 0).all()
        for mask, number in known:
            assert (labels[mask] == number).all()
    lost = boxes.records[0].boxes
    boxes.records[0].boxes = [dataclasses.replace(lost[0], mask=None)]
    with pytest.raises(UserError, match=r"000\.png: an object without a mask"):
        drawn(boxes)
    with pytest.raises(UserError, match="has a class background"):
        drawn(dataclasses.replace(boxes, classes=["background", "disc"]))
