"""Cityscapes' folders and label images: objects, groups, what counts for nothing, mistakes."""

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from tests.fake_datasets import scene, write_cityscapes
from visrep.data.detection import read_cityscapes
from visrep.data.detection.cityscapes_files import INSTANCES
from visrep.errors import ConfigError, UserError


@pytest.fixture
def root(tmp_path):
    return write_cityscapes(tmp_path) / "cityscapes"


def test_objects_and_groups(root):
    dataset = read_cityscapes(root, "train")
    assert dataset.name == "cityscapes/train" and dataset.classes == list(INSTANCES.values())
    assert len(dataset.classes) == 8
    assert [record.id for record in dataset.records] == [
        *("aachen_000000_000019", "aachen_000002_000019"),
        *("bochum_000001_000019", "bochum_000003_000019"),
    ]
    first = dataset.records[0]
    assert (first.height, first.width) == (64, 128)
    assert first.image().shape == (3, 64, 128)
    group, person, car = first.boxes
    square, disc = scene(5000, height=64, width=128)[1]
    assert group.crowd and (group.category, group.xyxy) == (2, (0, 60, 40, 64))
    assert not person.crowd and (person.category, person.xyxy) == (0, square.box)
    assert not car.crowd and (car.category, car.xyxy) == (2, disc.box)
    assert (rle.decode(car.mask) == disc.inside).all()
    outside = rle.decode(dataset.void[first.id]).astype(bool)
    assert outside[:3].any() and not outside[3:].any()


def test_classes_can_be_chosen_and_masks_left(root):
    dataset = read_cityscapes(root, "val", classes=["car"], masks=False)
    assert dataset.classes == ["car"] and dataset.void is None
    assert [[box.category for box in record.boxes] for record in dataset.records] == [[0, 0]] * 3
    assert dataset.records[0].boxes[0].mask is None
    with pytest.raises(UserError, match="none of the classes dog"):
        read_cityscapes(root, "val", classes=["dog"])


def labels_of(root, split="val"):
    return sorted(root.glob(f"gtFine/{split}/*/*_instanceIds.png"))


def remove_folder(root):
    (root / "gtFine").rename(root / "gtCoarse")


def remove_labels(root):
    labels_of(root)[1].unlink()


def remove_image(root):
    next(iter(sorted(root.glob("leftImg8bit/val/*/*_000001_*")))).unlink()


def rename_all(root):
    for path in root.glob("leftImg8bit/val/*/*.png"):
        path.rename(path.with_name(path.name.replace("_leftImg8bit", "")))


def other_numbers(root):
    Image.fromarray(np.full((64, 128), 40123, dtype=np.uint16)).save(labels_of(root)[0])


def colours(root):
    Image.fromarray(np.zeros((64, 128, 3), dtype=np.uint8)).save(labels_of(root)[0])


def cut_short(root):
    path = labels_of(root)[0]
    path.write_bytes(path.read_bytes()[:60])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_folder, r"there is no folder \S*gtFine with val in it"),
        (remove_labels, r"frankfurt_000001_000019_leftImg8bit\.png has no labels \S*instanceIds"),
        (remove_image, r"frankfurt_000001_000019_gtFine_instanceIds\.png has no image \S*leftImg"),
        (rename_all, r"leftImg8bit/val has no CITY/NAME_leftImg8bit\.png; unpack"),
        (other_numbers, r"frankfurt_000000\S*: 40123 is no number of Cityscapes'"),
        (colours, r"frankfurt_000000\S* is no image of numbers"),
        (cut_short, r"frankfurt_000000\S*: cannot be read"),
    ],
)
def test_a_mistake_is_one_line(root, change, message):
    change(root)
    with pytest.raises(UserError, match=message) as caught:
        read_cityscapes(root, "val")
    assert "\n" not in str(caught.value)


def test_without_a_folder_or_a_part(root):
    with pytest.raises(ConfigError, match="detection.root=PATH"):
        read_cityscapes(None, "val")
    with pytest.raises(UserError, match="no folder .*leftImg8bit/minival"):
        read_cityscapes(root, "minival")
