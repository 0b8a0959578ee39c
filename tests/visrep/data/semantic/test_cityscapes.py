"""Cityscapes' nineteen classes from both kinds of its label images."""

import numpy as np
import pytest
from PIL import Image

from tests.visrep.data.semantic.layouts import cityscapes
from visrep.data.detection.cityscapes_files import CLASSES
from visrep.data.semantic.cityscapes import read_cityscapes
from visrep.data.semantic.readiness import labels_of
from visrep.errors import UserError


def test_ids_become_its_training_ids(tmp_path):
    train = read_cityscapes(cityscapes(tmp_path), "train")
    assert train.classes == list(CLASSES.values()) and len(train.classes) == 19
    assert [record.id for record in train.records] == [
        "aachen/aachen_000000_000010",
        "bochum/bochum_000000_000011",
    ]
    wanted = {7: 0, 11: 2, 24: 11, 33: 18, 4: 255, 255: 255}
    for record in train.records:
        ids = np.asarray(Image.open(record.labels.file))
        assert labels_of(record).tolist() == [[wanted[i] for i in row] for row in ids.tolist()]


def test_training_ids_are_taken_where_there_are_no_others(tmp_path):
    val = read_cityscapes(cityscapes(tmp_path, kind="labelTrainIds"), "val")
    ids = np.asarray(Image.open(val.records[0].labels.file))
    assert labels_of(val.records[0]).numpy().tolist() == ids.tolist()


def test_other_folders_are_one_line(tmp_path):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no folder \S*cityscapes with leftImg8bit/train in it"):
        read_cityscapes(tmp_path, "train")
    cityscapes(tmp_path)
    with pytest.raises(UserError, match=r"no folder \S*leftImg8bit/test"):
        read_cityscapes(tmp_path, "test")
    next((tmp_path / "gtFine/train/bochum").iterdir()).unlink()
    with pytest.raises(UserError, match=r"bochum.*has no labels .*labelIds"):
        read_cityscapes(tmp_path, "train")
