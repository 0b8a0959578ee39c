"""The detection nodes of the configuration, and what the package offers under one name."""

import inspect

import pytest
from omegaconf import OmegaConf

from tests.visrep.data.pictures import coco_content, voc_object, write_coco, write_voc
from visrep import config, groups
from visrep.data import detection
from visrep.data.detection import boxes, coco, voc


def node(name, **values):
    loaded = OmegaConf.create({"detection": groups.named("detection", name)})
    for key, value in values.items():
        OmegaConf.update(loaded, f"detection.{key}", value)
    return loaded.detection


@pytest.mark.parametrize("name", groups.choices("detection"))
def test_the_nodes_fit_their_readers(name, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    loaded = node(name)
    for split in ("train", "test"):
        part = OmegaConf.to_container(loaded[split], resolve=True)
        module, _, function = part.pop("_target_").rpartition(".")
        reader = getattr(__import__(module, fromlist=[function]), function)
        inspect.signature(reader).bind(**part)
        if name in ("voc07", "voc0712"):
            assert part["root"] == str(tmp_path)


def test_any_voc_folder_through_its_node(tmp_path):
    write_voc(tmp_path, {"a": voc_object("dog", 2, 2, 9, 9)}, split="trainval")
    write_voc(tmp_path, {"b": voc_object("cat", 2, 2, 9, 9)}, split="test")
    loaded = node("voc", root=str(tmp_path))
    train, test = config.instantiate(loaded.train), config.instantiate(loaded.test)
    assert train.classes == test.classes == ["cat", "dog"]
    assert (len(train.records), len(test.records)) == (1, 1)
    given = config.instantiate(node("voc", root=str(tmp_path), classes=["dog", "cat"]).train)
    assert given.classes == ["dog", "cat"]


def test_voc_2007_and_2012_under_detectron2_s_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(tmp_path))
    for year in ("VOC2007", "VOC2012"):
        write_voc(tmp_path / year, {year: voc_object("cat", 2, 2, 9, 9)}, split="trainval")
    write_voc(tmp_path / "VOC2007", {"t": voc_object("dog", 2, 2, 9, 9)}, split="test")
    loaded = node("voc0712")
    train, test = config.instantiate(loaded.train), config.instantiate(loaded.test)
    assert [r.id for r in train.records] == ["VOC2007", "VOC2012"]
    assert [r.id for r in test.records] == ["t"] and len(test.classes) == 20


def test_coco_through_its_node(tmp_path):
    path = write_coco(tmp_path, coco_content())
    loaded = node("coco")
    OmegaConf.update(loaded, "train.annotations", str(path))
    OmegaConf.update(loaded, "train.image_root", str(tmp_path))
    assert config.instantiate(loaded.train).classes == ["cat", "dog"]


def test_one_name_for_all():
    assert detection.Box is boxes.Box and detection.DetectionDataset is boxes.DetectionDataset
    assert detection.read_voc is voc.read_voc and detection.read_coco is coco.read_coco
