"""PASCAL VOC's layout: the convention of its boxes, and everything that real files get wrong."""

import logging
import shutil
import tarfile
from collections import Counter
from pathlib import Path

import pytest

from tests.visrep.data.pictures import SHARED, voc_object, write_picture, write_voc
from visrep.data.detection.voc import VOC_CLASSES, read_voc, read_voc_sets
from visrep.errors import UserError


def test_boxes_are_continuous_and_zero_based(tmp_path):
    """VOC's 1..50 x 1..40 is the whole image of 50 x 40."""
    objects = voc_object("cat", 1, 1, 50, 40) + voc_object("dog", 10, 20, 10.5, 30)
    data = read_voc(write_voc(tmp_path, {"a": objects}), "train")
    (record,) = data.records
    assert (record.id, record.height, record.width) == ("a", 40, 50)
    assert record.file == str(tmp_path.resolve() / "JPEGImages/a.jpg")
    assert [box.xyxy for box in record.boxes] == [(0, 0, 50, 40), (9, 19, 10.5, 30)]
    assert data.classes == ["cat", "dog"] and [box.category for box in record.boxes] == [0, 1]
    assert data.name == f"{tmp_path.name}/train" and data.skipped == []


def test_float_coordinates_are_kept(tmp_path):
    root = write_voc(tmp_path, {"a": voc_object("cat", 3.5, "4.25", "20.75", 30.0)})
    assert read_voc(root, "train").records[0].boxes[0].xyxy == (2.5, 3.25, 20.75, 30)


def test_difficult_pose_and_parts(tmp_path):
    part = "<part><name>head</name><bndbox><xmin>1</xmin></bndbox></part>"
    objects = voc_object("cat", 2, 2, 9, 9, more="<difficult>1</difficult>")
    objects += voc_object("cat", 3, 3, 9, 9) + voc_object("cat", 4, 4, 9, 9, more=part)
    data = read_voc(write_voc(tmp_path, {"a": objects}), "train")
    assert [box.difficult for box in data.records[0].boxes] == [True, False, False]
    assert data.classes == ["cat"]


def test_given_classes_set_the_order(tmp_path):
    root = write_voc(tmp_path, {"a": voc_object("dog", 2, 2, 9, 9)})
    data = read_voc(root, "train", classes=["dog", "cat"])
    assert data.classes == ["dog", "cat"] and data.records[0].boxes[0].category == 0


def test_classes_found_are_those_of_all_splits(tmp_path):
    write_voc(tmp_path, {"a": voc_object("dog", 2, 2, 9, 9)}, split="train")
    write_voc(tmp_path, {"b": voc_object("cat", 2, 2, 9, 9)}, split="test")
    train, test = read_voc(tmp_path, "train"), read_voc(tmp_path, "test")
    assert train.classes == test.classes == ["cat", "dog"]
    assert train.records[0].boxes[0].category == 1 and test.records[0].boxes[0].category == 0


def test_some_of_the_classes_leave_the_others_aside_with_a_count(tmp_path, caplog):
    objects = voc_object("cat", 2, 2, 9, 9) + voc_object("cow", 2, 2, 9, 9)
    root = write_voc(tmp_path, {"a": objects, "b": voc_object("cow", 2, 2, 9, 9)})
    with caplog.at_level(logging.INFO, logger="visrep"):
        data = read_voc(root, "train", classes=["cat"])
    assert data.classes == ["cat"] and [len(r.boxes) for r in data.records] == [1, 0]
    assert f"{tmp_path.name}/train: boxes of other classes, ignored: cow 2" in caplog.text
    with pytest.raises(UserError, match=r"Annotations has none of the classes dog; it has cat, co"):
        read_voc(root, "train", classes=["dog"])


def test_an_unknown_class_among_voc_s_twenty(tmp_path):
    objects = voc_object("cat", 2, 2, 9, 9) + voc_object("Dog", 2, 2, 9, 9)
    write_voc(tmp_path / "VOC2007", {"a": objects})
    message = r"a\.xml: class Dog of object 2 is unknown \(perhaps dog\); known are aeroplane, "
    with pytest.raises(UserError, match=message):
        read_voc_sets(tmp_path, ["VOC2007/train"])
    data = read_voc_sets(tmp_path, ["VOC2007/train"], classes=["Dog", "dog"])
    assert data.classes == ["Dog", "dog"] and len(data.records[0].boxes) == 1


def test_two_spellings_of_a_class_are_named(tmp_path, log_lines):
    objects = voc_object("red", 2, 2, 9, 9) + voc_object("Red", 2, 2, 9, 9)
    read_voc(write_voc(tmp_path, {"a": objects}), "train")
    assert "Red and red are probably one class" in log_lines[0]


@pytest.mark.parametrize(
    ("text", "difficult"),
    [("0", False), ("1", True), ("true", True), ("Unspecified", False), ("", False)],
)
def test_forms_of_difficult(tmp_path, text, difficult):
    objects = voc_object("cat", 2, 2, 9, 9, more=f"<difficult>{text}</difficult>")
    data = read_voc(write_voc(tmp_path, {"a": objects}), "train")
    assert data.records[0].boxes[0].difficult is difficult


def test_the_image_that_an_annotation_names(tmp_path):
    """One of its own name counts first."""
    root = write_voc(tmp_path, {i: voc_object("cat", 2, 2, 9, 9) for i in "abc"})
    for id_, stated in (("a", "photo 1.jpg"), ("b", r"C:\data\photo 2.JPG"), ("c", "a.jpg")):
        path = root / f"Annotations/{id_}.xml"
        text = path.read_text().replace("<size>", f"<filename>{stated}</filename><size>")
        path.write_text(text)
    images = root / "JPEGImages"
    (images / "a.jpg").rename(images / "photo 1.jpg")
    (images / "b.jpg").rename(images / "photo 2.jpg")
    names = [Path(r.file).name for r in read_voc(root, "train").records]
    assert names == ["photo 1.jpg", "photo 2.jpg", "c.jpg"]
    (images / "photo 1.jpg").unlink()
    with pytest.raises(UserError, match=r"a\.xml has no image .*a\.jpg .* nor the photo 1\.jpg"):
        read_voc(root, "train")


@pytest.mark.parametrize("corners", [(5, 5, 5, 9), (5, 9, 9, 9), (9, 5, 5, 9), (5, 9, 9, 5)])
def test_zero_area_and_inverted_boxes(tmp_path, corners):
    root = write_voc(tmp_path, {"a": voc_object("cat", *corners) + voc_object("cat", 2, 2, 9, 9)})
    data = read_voc(root, "train")
    assert len(data.records[0].boxes) == 1
    (line,) = data.skipped
    assert "a.xml: object 1 (cat): box xmin=" in line and line.endswith("; skipped")
    with pytest.raises(UserError, match=r"a\.xml: object 1 \(cat\)"):
        read_voc(root, "train", on_bad="raise")


def test_boxes_outside_the_image(tmp_path):
    objects = voc_object("cat", 45, 30, 60, 50) + voc_object("cat", 70, 2, 80, 9)
    data = read_voc(write_voc(tmp_path, {"a": objects + voc_object("cat", 0, 0, 50, 40)}), "train")
    assert [box.xyxy for box in data.records[0].boxes] == [(44, 29, 50, 40), (0, 0, 50, 40)]
    cut, skipped = data.skipped
    assert cut.endswith("cut at its edge") and "object 2" in skipped


def test_a_missing_size_is_taken_from_the_image(tmp_path):
    root = write_voc(tmp_path, {"a": voc_object("cat", 2, 2, 9, 9), "b": "", "c": ""})
    for id_, size in (("a", ""), ("b", "<size><width>0</width><height>0</height></size>")):
        path = root / f"Annotations/{id_}.xml"
        text = path.read_text()
        start, end = text.index("<size>"), text.index("</size>") + len("</size>")
        path.write_text(text[:start] + size + text[end:])
        write_picture(root / f"JPEGImages/{id_}.jpg", height=31, width=17)
    sizes = [(r.height, r.width) for r in read_voc(root, "train").records]
    assert sizes == [(31, 17), (31, 17), (40, 50)]


def test_a_broken_image_without_a_size_is_kept_as_such(tmp_path):
    root = write_voc(tmp_path, {i: voc_object("cat", 2, 2, 9, 9) for i in "ab"})
    (root / "JPEGImages/b.jpg").write_bytes(b"")
    (root / "Annotations/b.xml").write_text(
        f"<annotation>{voc_object('cat', 1, 1, 2, 2)}</annotation>"
    )
    record = read_voc(root, "train").records[1]
    assert record.broken and record.boxes == []


def test_a_split_of_one_line_and_png_images(tmp_path):
    root = write_voc(tmp_path, {"a": voc_object("cat", 2, 2, 9, 9)})
    (root / "JPEGImages/a.jpg").rename(root / "JPEGImages/a.PNG")
    (root / "ImageSets/Main/train.txt").write_text("a")  # no newline either
    data = read_voc(root, "train")
    assert len(data.records) == 1 and data.records[0].file.endswith("a.PNG")


def test_lists_with_a_second_column(tmp_path):
    """VOC's lists per class: 1 has the class, 0 only difficult ones, -1 has it not."""
    root = write_voc(tmp_path, {i: voc_object("cat", 2, 2, 9, 9) for i in "abcd"})
    (root / "ImageSets/Main/cat_train.txt").write_text("a  1\nb -1\nc  0\n\nd +1\n")
    assert [r.id for r in read_voc(root, "cat_train").records] == ["a", "c", "d"]


def test_names_with_spaces(tmp_path):
    root = write_voc(tmp_path, {"my photo": "", "b": voc_object("cat", 2, 2, 9, 9)})
    assert [r.id for r in read_voc(root, "train").records] == ["my photo", "b"]


def test_without_a_split_every_annotation_counts(tmp_path):
    root = write_voc(tmp_path, {"b": "", "a": voc_object("cat", 2, 2, 9, 9)})
    shutil.rmtree(root / "ImageSets")
    data = read_voc(root, None)
    assert [r.id for r in data.records] == ["a", "b"] and data.name.endswith("/all")
    write_picture(root / "JPEGImages/new.jpg")
    with pytest.raises(UserError, match=r"image .*new\.jpg has no annotation .*new\.xml"):
        read_voc(root, None)


ENTITY = '<!DOCTYPE a [<!ENTITY x "ha">]><annotation><object><name>&x;</name></object></annotation>'
OUTSIDE = '<!DOCTYPE a SYSTEM "file:///etc/passwd"><annotation></annotation>'


def spoil(root, kind):
    xml, names = root / "Annotations/b.xml", root / "ImageSets/Main/train.txt"
    content = {
        "entities": ENTITY,
        "dtd": OUTSIDE,
        "no xml": "<annotation><object>",
        "empty": "",
        "no box": "<annotation><object><name>cat</name></object></annotation>",
        "no name": "<annotation><object><bndbox/></object></annotation>",
        "no corner": "<annotation>" + voc_object("cat", 1, 1, 9, "") + "</annotation>",
        "text": "<annotation>" + voc_object("cat", 1, 1, "wide", 9) + "</annotation>",
        "nan": "<annotation>" + voc_object("cat", 1, 1, "nan", 9) + "</annotation>",
        "size": "<annotation><size><width>a</width><height>2</height></size></annotation>",
    }
    if kind in content:
        xml.write_text(content[kind])
    elif kind == "image gone":
        (root / "JPEGImages/b.jpg").unlink()
    elif kind == "annotation gone":
        xml.unlink()
    elif kind == "line twice":
        names.write_text("a\nb\na\n")
    elif kind == "list empty":
        names.write_text("\n")
    elif kind == "list binary":
        names.write_bytes(b"\xff\xfe\x00")
    elif kind == "list gone":
        names.unlink()
    elif kind == "escape":
        names.write_text("../b\n")
    else:
        shutil.rmtree(root / kind)


@pytest.mark.parametrize(
    ("kind", "message"),
    [
        ("entities", r"b\.xml has a DTD or entities, which are refused"),
        ("dtd", r"b\.xml has a DTD or entities, which are refused"),
        ("no xml", r"b\.xml is no readable XML"),
        ("empty", r"b\.xml is no readable XML"),
        ("no box", r"b\.xml: object 1 \(cat\) has no bndbox"),
        ("no name", r"b\.xml: object 1 has no name"),
        ("no corner", r"b\.xml: object 1 \(cat\) has no ymax"),
        ("text", r"b\.xml: object 1 \(cat\): xmax=wide is no number"),
        ("nan", r"b\.xml: object 1 \(cat\): .*not finite"),
        ("size", r"b\.xml: size .* is no number"),
        ("image gone", r"b\.xml has no image .*JPEGImages/b\.jpg"),
        ("annotation gone", r"train\.txt:2: b has no annotation .*Annotations/b\.xml"),
        ("line twice", r"train\.txt:3: a is also on line 1"),
        ("list empty", r"train\.txt has no ids"),
        ("list binary", r"cannot read list .*train\.txt: it is no text file"),
        ("list gone", r"train\.txt is not there; choose from val"),
        ("escape", r"train\.txt:1: Annotations/\.\./b\.xml leads out"),
        ("Annotations", r"has no folder Annotations; give the one that holds"),
        ("JPEGImages", r"has no folder JPEGImages"),
        ("ImageSets", r"train\.txt is not there; write one with an image id on each line"),
    ],
)
def test_a_mistake_is_one_line_with_the_file(tmp_path, kind, message):
    root = write_voc(tmp_path / "set", {i: voc_object("cat", 2, 2, 9, 9) for i in "ab"})
    (root / "ImageSets/Main/val.txt").write_text("a\n")
    spoil(root, kind)
    with pytest.raises(UserError, match=message) as caught:
        read_voc(root, "train", classes=["cat"])
    assert "\n" not in str(caught.value)


def test_the_folder_above_is_recognised(tmp_path):
    write_voc(tmp_path / "inner", {"a": ""})
    with pytest.raises(UserError, match=r"\(perhaps .*inner\)"):
        read_voc(tmp_path, "train")


def test_annotations_without_any_object(tmp_path):
    with pytest.raises(UserError, match="have no objects"):
        read_voc(write_voc(tmp_path, {"a": ""}), "train")


def test_several_sets_as_one(tmp_path):
    write_voc(tmp_path / "VOC2007", {"a": voc_object("cat", 2, 2, 9, 9)}, split="trainval")
    write_voc(tmp_path / "VOC2012", {"b": voc_object("dog", 9, 2, 2, 9)}, split="trainval")
    data = read_voc_sets(tmp_path, ["VOC2007/trainval", "VOC2012/trainval"])
    assert [r.id for r in data.records] == ["a", "b"] and data.classes == list(VOC_CLASSES)
    assert data.name == "VOC2007/trainval+VOC2012/trainval" and len(data.skipped) == 1
    assert len(VOC_CLASSES) == 20 and list(VOC_CLASSES) == sorted(VOC_CLASSES)
    with pytest.raises(UserError, match="VOC2010"):
        read_voc_sets(tmp_path, ["VOC2010/train"])


@pytest.mark.skipif(not (SHARED / "bccd-voc.tar.xz").exists(), reason="no ../shared/data")
def test_real_annotations(tmp_path):
    """BCCD: 364 images; two boxes without area are reported and skipped."""
    with tarfile.open(SHARED / "bccd-voc.tar.xz") as archive:
        archive.extractall(tmp_path, filter="data")
    splits = {name: read_voc(tmp_path / "BCCD", name) for name in ("train", "val", "test")}
    assert {name: len(data.records) for name, data in splits.items()} == {
        "train": 205,
        "val": 87,
        "test": 72,
    }
    counts = Counter(
        data.classes[box.category]
        for data in splits.values()
        for r in data.records
        for box in r.boxes
    )
    assert counts == {"RBC": 4155 - 2, "WBC": 372, "Platelets": 361}
    lines = [line for data in splits.values() for line in data.skipped]
    assert len(lines) == 2
    assert "BloodImage_00343.xml: object 4 (RBC)" in lines[0] and "no area" in lines[0]
    assert "BloodImage_00338.xml: object 13 (RBC)" in lines[1] and "no area" in lines[1]
    assert splits["val"].records[0].image().shape == (3, 480, 640)
