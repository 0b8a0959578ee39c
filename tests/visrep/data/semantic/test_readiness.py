"""What is looked at in data with classes of pixels before the first step."""

import dataclasses
import logging

import numpy as np
import pytest
from PIL import Image

from tests.transfer.detection.shapes import shapes
from tests.visrep.data.semantic.layouts import own, write_labels
from visrep.data import identity
from visrep.data.semantic.folder import read_folder
from visrep.data.semantic.readiness import measurable, ready
from visrep.errors import ConfigError, UserError


@pytest.fixture
def root(tmp_path):
    return own(tmp_path)


def both(root):
    return read_folder(root, "train"), read_folder(root, "val")


def test_sound_data_come_back_as_they_are(root):
    train, test = both(root)
    kept = ready(train, test, max_broken=0.0)
    assert [part.records for part in kept] == [train.records, test.records]


@pytest.mark.parametrize("kind", ["images", "labels"])
def test_broken_files_are_left_out_within_the_tolerance(root, kind):
    (root / f"{kind}/train/001.png").write_bytes(b"no image")
    train, test = both(root)
    kept, _ = ready(train, test, max_broken=0.3)
    assert [record.id for record in kept.records] == ["000", "002", "003"]
    assert [file[-len("train/001.png") :] for file in kept.broken.files] == ["train/001.png"]
    with pytest.raises(UserError, match=r"1 of 4 images cannot be read.*001\.png"):
        ready(*both(root), max_broken=0.0)


def test_label_images_are_looked_into(root):
    path = root / "labels/val/005.png"
    good = np.asarray(Image.open(path)).copy()
    for spoiled, message in (
        (np.full_like(good, 9), r"005\.png has unknown ids 9"),
        (good[:-1], r"005\.png is 49x39 pixels and its image 49x40"),
        (np.stack([good] * 3, axis=-1), r"005\.png is in colours"),
    ):
        Image.fromarray(spoiled).save(path)
        with pytest.raises(UserError, match=message):
            ready(*both(root), max_broken=0.0)
    for name in ("004", "005"):
        write_labels(root / f"labels/val/{name}.png", np.full_like(good, 255))
    with pytest.raises(UserError, match="no pixel has a class"):
        ready(*both(root), max_broken=0.0)


def test_a_class_that_only_the_test_has_and_images_in_both_are_said(root, caplog):
    good = np.asarray(Image.open(root / "labels/train/000.png"))
    for number in range(4):
        write_labels(root / f"labels/train/{number:03d}.png", np.zeros_like(good))
    write_labels(root / "labels/val/004.png", np.full_like(good, 2))
    content = (root / "images/train/000.png").read_bytes()
    (root / "images/val/005.png").write_bytes(content)
    with caplog.at_level(logging.WARNING, "visrep"):
        ready(*both(root), max_broken=0.0)
    assert "has no pixel of" in caplog.text and "sky" in caplog.text
    assert "train/000.png" in caplog.text or "000.png" in caplog.text


def test_classes_must_agree_and_labels_must_be_there(root, tmp_path):
    train, test = both(root)
    other = dataclasses.replace(test, classes=["road", "wall", "sea"])
    with pytest.raises(ConfigError, match="only one of them has sea, sky"):
        measurable(other, train.classes, max_broken=0.0)
    boxes = shapes(tmp_path / "shapes", images=2, seed=0)
    with pytest.raises(ConfigError, match="has no classes of pixels; choose"):
        ready(boxes, test, max_broken=0.0)


def test_a_run_remembers_the_labels(root):
    before = identity.of_detection(read_folder(root, "train"))
    write_labels(root / "labels/train/000.png", np.zeros((40, 49)))
    now = identity.of_detection(read_folder(root, "train"))
    assert identity.changes(before, before) == []
    assert identity.changes(before, now) == ["1 image with other content or label (000)"]
