"""Where Cityscapes' two folders may lie, and which of its ids count."""

import pytest

from tests.fake_datasets import write_cityscapes
from visrep.data.detection.cityscapes_files import CLASSES, INSTANCES, VOID, folders, pairs
from visrep.errors import UserError

TRUTH = "_gtFine_instanceIds.png"


def test_ids_are_classes_or_count_for_nothing():
    assert len(CLASSES) == 19 and set(CLASSES).isdisjoint(VOID)
    assert sorted([*CLASSES, *VOID]) == list(range(34))
    assert list(INSTANCES) == [24, 25, 26, 27, 28, 31, 32, 33]


def test_root_holds_the_folder_or_is_it(tmp_path):
    root = write_cityscapes(tmp_path)
    assert folders(root, "val") == folders(root / "cityscapes", "val")


@pytest.mark.parametrize("linked", ["leftImg8bit", "gtFine", "leftImg8bit/val", "gtFine/val"])
def test_either_folder_may_be_a_link(tmp_path, linked):
    root = write_cityscapes(tmp_path) / "cityscapes"
    before = pairs(*folders(root, "val"), TRUTH)
    other = tmp_path / "other/disk"
    other.parent.mkdir()
    (root / linked).rename(other)
    (root / linked).symlink_to(other)
    assert pairs(*folders(root, "val"), TRUTH) == before != []


def test_a_split_stays_in_the_folder(tmp_path):
    root = write_cityscapes(tmp_path)
    with pytest.raises(UserError, match="leads out of"):
        folders(root, "../gtFine/val")
