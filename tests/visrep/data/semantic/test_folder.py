"""A user's own images and label images, in three layouts."""

import shutil

import numpy as np
import pytest

from tests.visrep.data.semantic.layouts import own, write_labels
from visrep.data.semantic.folder import read_folder
from visrep.errors import UserError


def ids(dataset):
    return [record.id for record in dataset.records]


def test_three_layouts_hold_the_same(tmp_path):
    first = own(tmp_path / "a")
    train = read_folder(first, "train")
    assert train.classes == ["road", "wall", "sky"] and ids(train) == ["000", "001", "002", "003"]
    second = tmp_path / "b"
    for kind in ("images", "labels"):
        for split in ("train", "val"):
            shutil.copytree(first / kind / split, second / split / kind)
            shutil.copytree(first / kind / split, tmp_path / "c" / kind, dirs_exist_ok=True)
    (tmp_path / "c/val.txt").write_text("004\n005\n")
    names = ["road", "wall", "sky"]
    assert ids(read_folder(second, "val", names=names)) == ["004", "005"]
    assert ids(read_folder(tmp_path / "c", "val", names=names)) == ["004", "005"]


def test_what_is_missing_or_wrong_is_named(tmp_path):
    root = own(tmp_path)
    with pytest.raises(UserError, match=r"no images/test, test/images or test\.txt.*train, val"):
        read_folder(root, "test")
    write_labels(root / "labels/val/009.png", np.zeros((2, 2)))
    with pytest.raises(UserError, match=r"009\.png has no image"):
        read_folder(root, "val")
    (root / "labels/val/009.png").unlink()
    (root / "labels/val/004.png").unlink()
    with pytest.raises(UserError, match=r"image .*004\.png has no label image"):
        read_folder(root, "val")
    (root / "classes.txt").write_text("road\nroad\n")
    with pytest.raises(UserError, match=r"classes\.txt has road twice"):
        read_folder(root, "train")
    (root / "classes.txt").write_text("road\n\nsky\n")
    with pytest.raises(UserError, match=r"id 1 has no name"):
        read_folder(root, "train")
    (root / "classes.txt").unlink()
    with pytest.raises(UserError, match=r"classes\.txt is not there"):
        read_folder(root, "train")
