"""What is looked at before a detector is trained or measured."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tests.visrep.data.pictures import write_picture
from visrep.data.detection import Box, DetectionDataset, ImageRecord, readiness
from visrep.data.detection.readiness import ready, sound
from visrep.errors import ConfigError, UserError

MASK = {"size": [40, 50], "counts": "0"}


def part(folder, *images, classes=("cat", "dog"), name=None, seed=0):
    """Pictures of 40 x 50 with one box for each class named in `images`."""
    records = []
    for number, names in enumerate(images):
        path = folder / f"{number}.png"
        write_picture(path, height=40, width=50, seed=seed * 100 + number)
        boxes = [Box((1, 1, 9, 9), classes.index(each), mask=MASK) for each in names.split()]
        records.append(ImageRecord(str(path), f"{number}", 40, 50, boxes))
    return DetectionDataset(name or folder.name, list(classes), records)


@pytest.fixture
def train(tmp_path):
    return part(tmp_path / "train", "cat dog", "dog", "cat")


@pytest.fixture
def test(tmp_path):
    return part(tmp_path / "test", "dog", "cat", seed=1)


def looked_at(train, test, *, chosen=False, masks=False, max_broken=0.0):
    return ready(train, test, chosen=chosen, masks=masks, max_broken=max_broken)


def test_good_parts_pass_in_silence(train, test, log_lines):
    assert looked_at(train, test) == (train, test)
    assert log_lines == []


def cut(record):
    path = Path(record.file)
    path.write_bytes(path.read_bytes()[:-40])


@pytest.mark.parametrize("which", [0, 1])
def test_a_broken_image_of_either_part(train, test, which, log_lines):
    cut((train, test)[which].records[1])
    with pytest.raises(UserError, match=r"1 of [23] images cannot be read.*1\.png"):
        looked_at(train, test)
    kept = looked_at(train, test, max_broken=0.6)[which]
    assert "1" not in [record.id for record in kept.records]
    assert len(kept.broken.files) == 1 and "skipped image" in log_lines[0]
    gone = kept.broken
    assert gone.total == (3, 2)[which], "the share is of all images"


def test_an_image_that_the_reader_found_broken(train, test):
    test.records[0] = replace(test.records[0], height=0, width=0, boxes=[], broken="no image")
    with pytest.raises(UserError, match=r"cannot be read.*0\.png \(no image\)"):
        looked_at(train, test)


def test_images_of_another_size_than_annotated(train, test):
    for record in train.records[1:]:
        record.width = 51
    message = r"1\.png is 50x40 pixels but annotated as 51x40; .* \(and 1 more of 3 images\)"
    with pytest.raises(UserError, match=message):
        looked_at(train, test, max_broken=0.9)


def test_parts_without_an_object(train, test):
    for record in test.records:
        record.boxes = [replace(box, difficult=True) for box in record.boxes]
    with pytest.raises(UserError, match=r"test: no image has an object to be found"):
        looked_at(train, test)
    for record in train.records:
        record.boxes = [replace(box, crowd=True) for box in record.boxes]
    with pytest.raises(UserError, match=r"cat \(1 boxes\)|train: no image has a box"):
        looked_at(train, test)


def test_two_images_of_one_name(train, test):
    test.records[1].id = test.records[0].id
    with pytest.raises(UserError, match="test: two images are called '0'"):
        looked_at(train, test)


def test_one_file_as_two_images_is_said(train, test, log_lines):
    train.records.append(replace(train.records[0], id="again"))
    looked_at(train, test)
    assert "0.png is 2 images" in log_lines[0]


def test_classes_in_another_order_are_matched_by_name(tmp_path, train):
    other = part(tmp_path / "test", "dog", "cat", classes=("dog", "bird", "cat"), seed=1)
    found = looked_at(train, other)[1]
    assert found.classes == ["cat", "dog"]
    assert [record.boxes[0].category for record in found.records] == [1, 0]
    assert other.records[0].boxes[0].category == 0, "what was given is as it was"


def test_a_class_that_only_the_test_part_has(tmp_path, train):
    other = part(tmp_path / "test", "Dog", "cat Dog", classes=("cat", "Dog"), seed=1)
    message = r"test has classes that train has no box of.*: Dog \(2 boxes\) \(perhaps dog\); corr"
    with pytest.raises(UserError, match=message):
        looked_at(train, other)


def test_a_chosen_class_stays_without_being_learned(tmp_path, log_lines):
    names = ("cat", "dog")
    train = part(tmp_path / "train", "cat", classes=names)
    test = part(tmp_path / "test", "cat", "dog", classes=names, seed=1)
    with pytest.raises(UserError, match=r"dog \(1 boxes\)"):
        looked_at(train, test)
    assert looked_at(train, test, chosen=True)[1].classes == ["cat", "dog"]
    assert log_lines == ["train has no box of dog to learn from"]


def test_a_chosen_class_that_neither_part_has(tmp_path):
    names = ("cat", "dgo")
    train = part(tmp_path / "train", "cat", classes=names)
    train.ignored = {"dog": 3}
    test = part(tmp_path / "test", "cat", classes=names, seed=1)
    with pytest.raises(ConfigError, match=r"neither part has a box of dgo \(perhaps dog\)"):
        looked_at(train, test, chosen=True)


def test_images_in_both_parts_are_named(train, test, log_lines):
    looked_at(train, train)
    assert "all 3 test images of train are also training images of train" in log_lines[0]
    log_lines.clear()
    shutil.copy(train.records[2].file, test.records[0].file)
    looked_at(train, test)
    assert "1 of 2 test images of test are also training images of train" in log_lines[0]


def test_objects_without_a_mask(train, test, log_lines):
    train.records[0].boxes[0].mask = None
    test.records[0].boxes[0].mask = None
    kept, _ = looked_at(train, test, masks=True)
    assert [(box.crowd, box.mask is None) for box in kept.records[0].boxes] == [
        (True, False),
        (False, False),
    ]
    assert "test: 1 of 2 objects have no mask and do not count in mask AP" in log_lines[0]
    assert "train: 1 of 4 objects have no mask and are left out of training" in log_lines[1]
    assert looked_at(train, test)[0] == train, "boxes alone are all there"
    test.records[1].boxes[0].mask = None
    with pytest.raises(UserError, match="test: no object has a mask; use outputs=boxes"):
        looked_at(train, test, masks=True)


def test_how_far_it_is_is_said_of_many_images(train, monkeypatch, caplog):
    monkeypatch.setattr(readiness, "_MANY", 2)
    monkeypatch.setattr(readiness, "_EVERY", -1.0)
    with caplog.at_level("INFO", logger="visrep"):
        sound(train, max_broken=0.0)
    assert "train: looking at the headers of 3 images" in caplog.text
    assert "train: 2 of 3 images looked at" in caplog.text
