"""COCO's json: boxes, masks in its three forms, and files that are wrong."""

import copy
import json
import logging

import numpy as np
import pytest
from pycocotools import mask as rle

from tests.visrep.data.pictures import coco_content, write_coco
from visrep.data.detection.coco import read_coco
from visrep.errors import ConfigError, UserError


def read(root, content, **options):
    return read_coco(write_coco(root, content), root, **options)


def test_boxes_classes_and_crowds(tmp_path):
    data = read(tmp_path, coco_content())
    assert data.name == "set" and data.classes == ["cat", "dog"], "in the order of the ids"
    first, second = data.records
    assert (first.id, first.file) == ("7", str(tmp_path.resolve() / "a.png"))
    assert first.boxes[0].xyxy == (1.5, 2, 11.5, 22.25) and first.boxes[0].category == 1
    assert [box.crowd for box in first.boxes] == [False, True]
    assert [box.category for box in second.boxes] == [0] and data.skipped == []
    assert first.image().shape == (3, 40, 50)


def test_given_classes_set_the_order(tmp_path):
    data = read(tmp_path, coco_content(), classes=["dog", "bird", "cat"])
    assert data.classes == ["dog", "bird", "cat"] and data.records[0].boxes[0].category == 0


def test_some_of_the_classes_leave_the_others_aside_with_a_count(tmp_path, caplog):
    with caplog.at_level(logging.INFO, logger="visrep"):
        data = read(tmp_path, coco_content(), classes=["cat"])
    assert data.classes == ["cat"]
    assert [(box.category, box.crowd) for r in data.records for box in r.boxes] == [
        (0, True),
        (0, False),
    ]
    assert "boxes of other classes, ignored: dog 1" in caplog.text
    with pytest.raises(UserError, match=r"set\.json has none of the classes cow; it has cat, dog"):
        read(tmp_path, coco_content(), classes=["cow"])


def masked(segmentation):
    content = coco_content()
    content["annotations"] = [{**content["annotations"][0], "segmentation": segmentation}]
    return content


def test_polygons_and_both_run_length_codes_become_one_form(tmp_path):
    expected = np.zeros((40, 50), dtype=np.uint8)
    expected[5:15, 10:30] = 1
    code = rle.encode(np.asfortranarray(expected))
    column = expected.flatten(order="F")
    starts = np.flatnonzero(np.diff(column)) + 1
    runs = np.diff([0, *starts, len(column)]).tolist()
    for segmentation in (
        [[10, 5, 30, 5, 30, 15, 10, 15]],
        [[10, 5, 20, 5, 20, 15, 10, 15], [20, 5, 30, 5, 30, 15, 20, 15]],
        {"size": [40, 50], "counts": runs},
        {"size": [40, 50], "counts": code["counts"].decode()},
    ):
        mask = read(tmp_path, masked(segmentation)).records[0].boxes[0].mask
        assert isinstance(mask["counts"], str) and mask["size"] == [40, 50]
        assert np.array_equal(rle.decode(mask), expected)
    assert read(tmp_path, masked([])).records[0].boxes[0].mask is None
    assert read(tmp_path, masked(segmentation), masks=False).records[0].boxes[0].mask is None


def test_an_unreadable_mask_leaves_the_box(tmp_path):
    data = read(tmp_path, masked([[1, 1, 9, 9]]))
    (box,) = data.records[0].boxes
    assert box.mask is None and not box.crowd
    (line,) = data.skipped
    assert "annotation 1 (dog in a.png): 1 of its 1 polygons cannot be read; the box has" in line
    assert read(tmp_path, masked("abc"), masks=False).skipped == []
    with pytest.raises(UserError, match="neither polygons nor"):
        read(tmp_path, masked("abc"), on_bad="raise")


def as_text(entry, *keys):
    return {**entry, **{key: str(entry[key]) for key in keys}}


def test_numbers_and_ids_may_be_text_or_float(tmp_path):
    plain = coco_content()
    for annotation in plain["annotations"]:
        annotation.setdefault("iscrowd", 0)
        annotation["area"] = 30
    wanted = read(tmp_path, plain)
    texts = {
        "images": [as_text(image, "id", "width", "height") for image in plain["images"]],
        "categories": [{**c, "id": float(c["id"])} for c in plain["categories"]],
        "annotations": [
            {
                **as_text(a, "id", "category_id", "iscrowd", "area"),
                "image_id": f"{a['image_id']}.0",
                "bbox": [str(v) for v in a["bbox"]],
            }
            for a in plain["annotations"]
        ],
    }
    got = read(tmp_path, texts)
    assert (got.classes, got.records) == (wanted.classes, wanted.records)
    assert [r.id for r in got.records] == ["7", "3"]
    assert [box.crowd for box in got.records[0].boxes] == [False, True]


def test_text_ids_that_are_no_numbers(tmp_path):
    content = coco_content()
    for image, id_ in zip(content["images"], ("a", "b"), strict=True):
        image["id"] = id_
    for annotation in content["annotations"]:
        annotation["image_id"] = "a"
    assert [len(r.boxes) for r in read(tmp_path, content).records] == [3, 0]


@pytest.mark.parametrize("gone", [None, 0, "", "0"])
def test_a_missing_size_comes_from_the_image(tmp_path, gone):
    content = coco_content()
    content["images"][0].update(width=gone, height=gone)
    wanted = read(tmp_path, coco_content())
    assert read(tmp_path, content).records == wanted.records
    del content["images"][0]["width"], content["images"][0]["height"]
    assert read(tmp_path, content).records == wanted.records


def test_a_broken_image_without_a_size_is_kept_as_such(tmp_path):
    content = coco_content()
    content["images"][0].update(width=None)
    path = write_coco(tmp_path, content)
    (tmp_path / "a.png").write_bytes(b"no image")
    record = read_coco(path, tmp_path).records[0]
    assert record.broken and record.boxes == []


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_a_byte_order_mark(tmp_path, encoding):
    path = write_coco(tmp_path, coco_content())
    wanted = read_coco(path, tmp_path)
    path.write_text(json.dumps(coco_content()), encoding=encoding)
    assert read_coco(path, tmp_path) == wanted


def test_one_annotation_twice_counts_once(tmp_path, log_lines):
    content = coco_content()
    content["annotations"].append(dict(content["annotations"][2]))
    data = read(tmp_path, content)
    assert len(data.records[1].boxes) == 1
    assert "annotation 3: the same annotation twice; counted once" in data.skipped[0]
    content["annotations"][3]["bbox"] = [20, 20, 5, 5]
    log_lines.clear()
    assert len(read(tmp_path, content).records[1].boxes) == 2
    assert "1 annotations have the id of another; all are read" in log_lines[0]


def test_a_category_entered_twice_is_one(tmp_path):
    content = coco_content()
    content["categories"].append({"id": "9", "name": "dog "})
    assert read(tmp_path, content) == read(tmp_path, coco_content())


def test_two_spellings_of_a_class_are_named(tmp_path, log_lines):
    content = coco_content()
    content["categories"].append({"id": 11, "name": "Cat"})
    read(tmp_path, content)
    assert "Cat and cat are probably one class" in log_lines[0]


def test_the_stated_area_and_the_stated_box_are_kept(tmp_path):
    content = coco_content()
    content["annotations"][0]["area"] = 3.5
    content["annotations"][2]["bbox"] = [40, 30, 20, 20]
    data = read(tmp_path, content)
    (first, _), (cut,) = (record.boxes for record in data.records)
    assert (first.area, first.stated) == (3.5, None)
    assert (cut.area, cut.xyxy, cut.stated) == (None, (40, 30, 50, 40), (40, 30, 60, 50))


def test_bad_boxes_are_reported_and_skipped(tmp_path):
    content = coco_content()
    content["annotations"][0]["bbox"] = [5, 5, 0, 9]
    content["annotations"][2]["bbox"] = [40, 30, 20, 20]
    data = read(tmp_path, content)
    assert len(data.records[0].boxes) == 1 and data.records[1].boxes[0].xyxy == (40, 30, 50, 40)
    zero, cut = data.skipped
    assert "annotation 1 (dog in a.png)" in zero and zero.endswith("inverted; skipped")
    assert "annotation 3 (cat in b.png)" in cut and cut.endswith("cut at its edge")


def without(part, index, key):
    content = coco_content()
    entry = content if part is None else content[part][index]
    del entry[key]
    return content


def having(part, index, **values):
    content = copy.deepcopy(coco_content())
    content[part][index].update(values)
    return content


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ([], r"has no list 'images'"),
        (without(None, 0, "annotations"), r"has no list 'annotations'"),
        (without(None, 0, "categories"), r"has no list 'categories'"),
        ({**coco_content(), "images": []}, r"the list 'images' is empty"),
        (without("images", 1, "file_name"), r"image 1 has no 'file_name'"),
        (without("categories", 0, "name"), r"category 0 has no 'name'"),
        (without("annotations", 1, "bbox"), r"annotation 2 .* has no 'bbox'"),
        (without("annotations", 1, "image_id"), r"annotation 2 has no 'image_id'"),
        ({**coco_content(), "annotations": [3]}, r"annotation 0 has no 'image_id'"),
        (having("annotations", 0, image_id=99), r"annotation 1 is of image 99, which is not in"),
        (having("annotations", 0, image_id=[7]), r"annotation 1: 'image_id' must be a single"),
        (
            having("annotations", 0, category_id=99),
            r"annotation 1 has category 99, .* 4 cat, 9 dog",
        ),
        (having("annotations", 0, bbox=[1, 2, 3]), r"bbox \[1, 2, 3\] is not"),
        (having("annotations", 0, bbox="1 2 3 4"), r"is not \[x, y, width, height\]"),
        (having("annotations", 0, bbox=[1, 2, 3, "x"]), r"annotation 1 .*: bbox 'x' is no number"),
        (having("annotations", 0, bbox=[1, 2, 3, float("nan")]), r"bbox nan is no number"),
        (having("annotations", 0, iscrowd="maybe"), r"annotation 1 .* iscrowd is 'maybe'"),
        (having("annotations", 0, iscrowd=2), r"iscrowd is 2; make it 0 or 1"),
        (having("annotations", 0, area="big"), r"area 'big' is no number"),
        (having("annotations", 0, category_id=4.5), r"category_id 4\.5 is no id"),
        (having("categories", 0, id=4), r"id 4 is that of two categories, dog and cat"),
        (having("categories", 0, name="cat"), r"categories 9 and 4 are both called cat"),
        (having("images", 0, id="3.0"), r"image 1: id 3 is used twice"),
        (having("images", 0, width=-1), r"image 0: width -1 is no size"),
        (having("images", 0, width="wide"), r"image 0: width 'wide' is no number"),
        (having("images", 0, file_name="gone.png"), r"gone\.png is not there"),
        (having("images", 0, file_name="../a.png"), r"\.\./a\.png leads out of"),
        (having("categories", 0, id="nine"), r"ids of categories are mixed"),
    ],
)
def test_a_mistake_is_one_line_with_the_file(tmp_path, content, message):
    with pytest.raises(UserError, match=message) as caught:
        read(tmp_path, content)
    assert "set.json" in str(caught.value) and "\n" not in str(caught.value)


def test_what_is_no_json(tmp_path):
    (tmp_path / "set.json").write_text("{")
    with pytest.raises(UserError, match=r"set\.json is no json"):
        read_coco(tmp_path / "set.json", tmp_path)
    (tmp_path / "set.json").write_text("[" * 100_000)
    with pytest.raises(UserError, match=r"set\.json is no json"):
        read_coco(tmp_path / "set.json", tmp_path)
    with pytest.raises(UserError, match=r"cannot read .*none\.json"):
        read_coco(tmp_path / "none.json", tmp_path)
    with pytest.raises(UserError, match=r"there is no folder .*annotations"):
        read_coco(tmp_path / "annotations/set.json", tmp_path)
    path = write_coco(tmp_path, coco_content())
    with pytest.raises(UserError, match=r"train2017 is not a folder; .* detection\.root.*root"):
        read_coco(path, tmp_path / "train2017")
    with pytest.raises(ConfigError, match=r"detection\.root"):
        read_coco(None, None)
