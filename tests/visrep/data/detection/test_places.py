"""The usual layout: DIR holds coco/, lvis/, VOC2007/ ..., or is the one folder itself."""

import pytest
from omegaconf import OmegaConf

from tests.fake_datasets import write_cityscapes, write_coco, write_lvis, write_voc
from visrep import config, groups
from visrep.data.detection.places import located, present
from visrep.errors import UserError


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for write in (write_voc, write_coco, write_lvis, write_cityscapes):
        write(root)
    return root


def read(name, part, root=None):
    loaded = OmegaConf.create({"detection": groups.named("detection", name)})
    if root is not None:
        loaded.detection.root = str(root)
    return config.instantiate(loaded.detection[part])


SETS = ["coco", "lvis05", "lvis1", "cityscapes", "voc07", "voc0712", "coco_keypoints"]
PIXELS = ["coco_stuff", "semantic_masks", "cityscapes_semantic", "voc12_semantic"]


@pytest.mark.parametrize("name", SETS)
def test_one_folder_holds_all_of_them(name, root, monkeypatch):
    train, test = read(name, "train", root), read(name, "test", root)
    assert len(train.records) == {"voc07": 7, "voc0712": 14}.get(name, 4)
    assert len(test.records) == 3
    assert train.classes == test.classes
    assert all(record.boxes for record in [*train.records, *test.records])
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    assert read(name, "train").records == train.records


@pytest.mark.parametrize("name", PIXELS)
def test_and_label_images_of_them(name, root):
    train, test = read(name, "train", root), read(name, "test", root)
    assert (len(train.records), len(test.records)) == (4, 3)
    assert train.classes == test.classes
    assert all(record.labels is not None for record in [*train.records, *test.records])


@pytest.mark.parametrize(
    ("name", "folder"),
    [
        *(("coco", "coco"), ("coco_keypoints", "coco"), ("coco_stuff", "coco")),
        *(("semantic_masks", "coco"), ("cityscapes", "cityscapes"), ("voc07", "VOC2007")),
        *(("cityscapes_semantic", "cityscapes"), ("voc12_semantic", "VOC2012")),
    ],
)
def test_or_it_is_the_folder_of_the_one(name, folder, root):
    for part in ("train", "test"):
        assert read(name, part, root / folder) == read(name, part, root)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("coco", r"there is no folder \S*/coco with annotations/instances_train2017\.json in it"),
        ("lvis1", r"there is no folder \S*/lvis with lvis_v1_train\.json in it"),
        ("cityscapes", r"there is no folder \S*/cityscapes with leftImg8bit/train in it"),
        ("voc0712", r"there is no folder \S*/VOC2007 with Annotations in it"),
    ],
)
def test_what_is_missing_is_named_with_what_it_should_hold(name, message, tmp_path):
    with pytest.raises(UserError, match=message) as caught:
        read(name, "train", tmp_path)
    assert "detection.root=" in str(caught.value) and "\n" not in str(caught.value)


def test_two_years_of_voc_are_never_read_from_one_folder(root):
    with pytest.raises(UserError, match="no folder .*VOC2007/VOC2007 with Annotations in it"):
        read("voc0712", "train", root / "VOC2007")


def test_what_is_there_is_taken_as_it_is(tmp_path):
    (tmp_path / "coco").mkdir()
    (tmp_path / "own.json").write_text("{}")
    assert located(tmp_path / "own.json", tmp_path) == tmp_path / "own.json"
    assert located(tmp_path / "coco/own.json", tmp_path) == tmp_path / "own.json"
    (tmp_path / "coco/own.json").write_text("{}")
    assert located(tmp_path / "coco/own.json", tmp_path) == tmp_path / "coco/own.json"
    for outside in (tmp_path.parent / "own.json", tmp_path / "coco/none.json", tmp_path / "none"):
        assert located(outside, tmp_path) == outside
    assert located("own.json", None).name == "own.json"


def test_a_file_that_is_not_there(tmp_path):
    (tmp_path / "folder").mkdir()
    with pytest.raises(UserError, match=r"there is no file \S*/none\.json; correct the path"):
        present(tmp_path / "none.json", None)
    with pytest.raises(UserError, match="there is no file"):
        present(tmp_path / "folder", None)
    assert present(tmp_path / "folder", None, kind="folder") == tmp_path / "folder"
