"""LVIS' files: classes, images by address and by name, what is known of the labels, mistakes."""

import json
import shutil

import pytest

from tests.fake_datasets import lvis_content, scene, write_lvis
from visrep.data.detection import read_lvis
from visrep.errors import ConfigError, UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    return write_lvis(tmp_path_factory.mktemp("data"))


def content(root, version="v1"):
    return lvis_content(root / "coco", "train2017", version)


def read(root, tmp_path, content, **settings):
    path = tmp_path / "set.json"
    path.write_text(json.dumps(content))
    return read_lvis(path, root / "coco", **settings)


NAMES = ["baby", "car_(automobile)", "bus_(vehicle)"]


@pytest.mark.parametrize("version", ["v0.5", "v1"])
def test_both_versions(root, version):
    dataset = read_lvis(root / f"lvis/lvis_{version}_train.json", root / "coco")
    assert dataset.classes == NAMES
    assert [record.id for record in dataset.records] == ["1", "2", "3", "4"]
    assert dataset.records[0].file.endswith("coco/train2017/000000000001.jpg")
    assert [box.category for box in dataset.records[0].boxes] == [0, 2]
    assert [box.category for box in dataset.records[1].boxes] == [0, 1]
    square = scene(1)[1][0]
    box = dataset.records[0].boxes[0]
    assert box.xyxy == square.box and box.mask is not None and box.area == square.inside.sum()
    known = dataset.federated
    assert known.frequency == dict(zip(NAMES, "fcr", strict=True))
    assert known.absent == {"1": set(), **{n: {"bus_(vehicle)"} for n in "234"}}
    assert known.incomplete == {"1": {"car_(automobile)"}, **{n: set() for n in "234"}}


def test_images_of_v05_are_found_by_their_number_alone(root, tmp_path):
    made = content(root, "v0.5")
    for image in made["images"]:
        del image["coco_url"]
    dataset = read(root, tmp_path, made)
    assert dataset.records[3].file.endswith("train2017/000000000004.jpg")


def test_an_image_of_val_may_lie_in_train(root, tmp_path):
    shutil.copytree(root / "coco", tmp_path / "coco")
    made = content(root)
    file = tmp_path / "coco/train2017/000000000002.jpg"
    file.rename(tmp_path / "coco/val2017" / file.name)
    made["images"][1]["coco_url"] = "http://images.cocodataset.org/val2017/000000000002.jpg"
    dataset = read(tmp_path, tmp_path, made)
    assert [record.file.split("/")[-2] for record in dataset.records[:2]] == [
        "train2017",
        "val2017",
    ]


def test_classes_can_be_chosen_and_masks_left(root, tmp_path):
    dataset = read(root, tmp_path, content(root), classes=["bus_(vehicle)", "baby"], masks=False)
    assert dataset.classes == ["bus_(vehicle)", "baby"]
    assert [box.category for box in dataset.records[0].boxes] == [1, 0]
    assert dataset.records[0].boxes[0].mask is None
    assert dataset.ignored == {"car_(automobile)": 3}


def test_two_classes_of_one_name_are_told_apart_by_synset(root, tmp_path):
    made = content(root)
    for category, synset in zip(made["categories"][:2], ("bow.n.01", "bow.n.02"), strict=True):
        category |= {"name": "bow", "synset": synset}
    dataset = read(root, tmp_path, made)
    assert dataset.classes == ["bow (bow.n.01)", "bow (bow.n.02)", "bus_(vehicle)"]
    assert dataset.federated.frequency["bow (bow.n.02)"] == "c"


def without(key, kind, **values):
    def change(made):
        del made[kind][1][key]
        made[kind][1].update(values)

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            without("frequency", "categories"),
            r"\(car_\(automobile\)\) has no 'frequency'; LVIS says r, c or f",
        ),
        (
            without("frequency", "categories", frequency="often"),
            "has the frequency 'often'; LVIS says r, c or f",
        ),
        (without("name", "categories"), "category 1 has no 'name'"),
        (without("neg_category_ids", "images"), "image 1 has no list 'neg_category_ids'"),
        (
            without("not_exhaustive_category_ids", "images"),
            "image 1 has no list 'not_exhaustive_category_ids'",
        ),
        (
            without("neg_category_ids", "images", neg_category_ids=[77]),
            "image 2: 'neg_category_ids' names category 77",
        ),
        (without("coco_url", "images"), "image 1, which has no 'coco_url', has no 'file_name'"),
        (
            without("coco_url", "images", coco_url="http://x/train2017/9.jpg"),
            "train2017/9.jpg is not there",
        ),
    ],
)
def test_a_mistake_is_one_line_with_the_file(root, tmp_path, change, message):
    made = content(root)
    change(made)
    with pytest.raises(UserError, match=message) as caught:
        read(root, tmp_path, made)
    assert "set.json" in str(caught.value) and "\n" not in str(caught.value)


def test_paths_that_are_missing(root, tmp_path):
    with pytest.raises(ConfigError, match="detection.root=PATH"):
        read_lvis(None, None)
    with pytest.raises(UserError, match="there is no folder .*none with train2017 in it"):
        read_lvis(root / "lvis/lvis_v1_train.json", tmp_path / "none")
