"""VOC2012's classes of pixels: lists, folders, and what is missing."""

import pytest

from tests.visrep.data.semantic.layouts import voc12
from visrep.data.semantic.readiness import labels_of
from visrep.data.semantic.voc import read_voc
from visrep.errors import ConfigError, UserError


def test_both_parts_are_read(tmp_path):
    voc12(tmp_path)
    train = read_voc(tmp_path, "train_aug", labels="SegmentationClassAug")
    val = read_voc(tmp_path / "VOC2012", "val")
    assert (len(train.records), len(val.records)) == (4, 2)
    assert train.name == "VOC2012/train_aug" and len(train.classes) == 21
    assert train.classes[0] == "background" and train.classes[20] == "tvmonitor"
    first = val.records[0]
    assert (first.height, first.width) == (51, 40)
    found = set(labels_of(first).unique().tolist())
    assert found <= {0, 5, 15, 20, 255} and 255 in found


def test_lists_of_pairs_and_the_other_spelling(tmp_path):
    voc12(tmp_path)
    sets = tmp_path / "VOC2012/ImageSets"
    (sets / "Segmentation/train_aug.txt").unlink()
    (sets / "SegmentationAug").mkdir()
    (sets / "SegmentationAug/trainaug.txt").write_text(
        "/JPEGImages/2007_000001.jpg /SegmentationClassAug/2007_000001.png\n\n"
    )
    train = read_voc(tmp_path, "train_aug", labels="SegmentationClassAug")
    assert [record.id for record in train.records] == ["2007_000001"]


def test_classes_that_are_not_chosen_are_ignored(tmp_path):
    val = read_voc(voc12(tmp_path), "val", classes=["person", "background"])
    assert val.classes == ["person", "background"]
    seen = {int(v) for record in val.records for v in labels_of(record).unique()}
    assert seen <= {0, 1, 255}


def test_what_is_missing_is_named(tmp_path):
    with pytest.raises(ConfigError, match=r"detection\.root=PATH"):
        read_voc(None, "val")
    with pytest.raises(UserError, match="has no VOC2012/JPEGImages"):
        read_voc(tmp_path, "val")
    voc12(tmp_path)
    with pytest.raises(UserError, match=r"test\.txt is not there; choose from train_aug, val"):
        read_voc(tmp_path, "test")
    with pytest.raises(UserError, match="has no folder Other of label images"):
        read_voc(tmp_path, "val", labels="Other")
    place = tmp_path / "VOC2012"
    (place / "SegmentationClass/2007_000004.png").unlink()
    with pytest.raises(UserError, match=r"2007_000004\.jpg has no label image .*2007_000004\.png"):
        read_voc(tmp_path, "val")
    (place / "JPEGImages/2007_000005.jpg").unlink()
    listed = place / "ImageSets/Segmentation/val.txt"
    listed.write_text("2007_000005\n")
    with pytest.raises(UserError, match="2007_000005 has no image"):
        read_voc(tmp_path, "val")
    listed.write_text("2007_000005\n2007_000005\n")
    with pytest.raises(UserError, match=r"val\.txt:2: 2007_000005 is also on line 1"):
        read_voc(tmp_path, "val")
    listed.write_text("\n")
    with pytest.raises(UserError, match="has no ids"):
        read_voc(tmp_path, "val")
    listed.write_text("../../secret\n")
    with pytest.raises(UserError, match="has no image|leads out"):
        read_voc(tmp_path, "val")
