"""COCO's json: boxes, masks in its three forms, and files that are wrong."""

import copy

import numpy as np
import pytest
from pycocotools import mask as rle

from tests.visrep.data.pictures import coco_content, write_coco
from visrep.data.detection import coco
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
    with pytest.raises(UserError, match=r"set\.json: annotation 1 has category dog, .* cat$"):
        read(tmp_path, coco_content(), classes=["cat"])


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


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3]],
        [[1, 1, 9, 1, 9]],
        [["a"] * 6],
        [[1e30, 1, 2, 2, 3, 3]],
        [[float("nan"), 1, 2, 2, 3, 3]],
        "abc",
        5,
        {"size": [40, 50]},
        {"size": [50, 40], "counts": [2000]},
        {"size": [40, 50], "counts": [1999]},
        {"size": [40, 50], "counts": [2001, -1]},
        {"size": [40, 50], "counts": "0"},
        {"size": [40, 50], "counts": "\u00e9"},
        {"size": [40, 50], "counts": "ooo"},
        {"size": [40, 50], "counts": "1" * 500},
        {"size": [40, 50], "counts": 7},
    ],
)
def test_an_unreadable_mask_is_reported_and_skipped(tmp_path, segmentation):
    """pycocotools takes some of these, and returns foreign memory or uses all there is."""
    data = read(tmp_path, masked(segmentation))
    assert data.records[0].boxes == []
    (line,) = data.skipped
    assert "annotation 1 (dog in a.png): its segmentation is unreadable; skipped" in line
    with pytest.raises(UserError, match="unreadable"):
        read(tmp_path, masked(segmentation), on_bad="raise")


def test_run_lengths_are_pycocotools_own():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2)
        mask = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
        code = rle.encode(mask)["counts"].decode()
        runs, value = [0], 0
        for pixel in mask.flatten(order="F"):
            if pixel != value:
                runs.append(0)
                value = pixel
            runs[-1] += 1
        assert coco._runs(code) == runs


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
        (without("images", 0, "height"), r"image 0 has no 'height'"),
        (without("categories", 0, "name"), r"category 0 has no 'name'"),
        (without("annotations", 1, "bbox"), r"annotation 2 .* has no 'bbox'"),
        (without("annotations", 1, "image_id"), r"annotation 2 has no 'image_id'"),
        ({**coco_content(), "annotations": [3]}, r"annotation 0 has no 'image_id'"),
        (having("annotations", 0, image_id=99), r"annotation 1 is of image 99, which is not in"),
        (having("annotations", 0, image_id=[7]), r"annotation 1: 'image_id' must be a single"),
        (having("annotations", 0, category_id=99), r"annotation 1 has category 99, .* cat, dog"),
        (having("annotations", 0, bbox=[1, 2, 3]), r"bbox \[1, 2, 3\] is not"),
        (having("annotations", 0, bbox=[1, 2, 3, "x"]), r"is not \[x, y, width, height\]"),
        (having("annotations", 0, bbox=[1, 2, 3, float("nan")]), r"not finite"),
        (having("images", 0, id=3), r"image 1: id 3 is used twice"),
        (having("images", 0, width=0), r"image 0: size 0x40 is not possible"),
        (having("images", 0, width="50"), r"image 0: size 50x40 is not possible"),
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
    with pytest.raises(ConfigError, match=r"detection\.root"):
        read_coco(None, None)
