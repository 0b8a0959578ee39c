"""The lines at the top of a Detectron2 config: which are needed, and how data are named."""

from pathlib import Path

import pytest

from tests.transfer.detection.shapes import small_recipe
from tests.visrep.d2.test_semantic import FCN, nested
from visrep.d2.config_text import Part, headed
from visrep.d2.semantic import FCN_HEAD
from visrep.data.detection import DetectionDataset


def data(name, *classes):
    return DetectionDataset(name=name, classes=list(classes), records=[], skipped=[])


def nodes(**reader):
    return {name: {"_target_": "a.read", **reader} for name in ("train", "test")}


def test_parts_of_one_name_are_told_apart():
    """As where each part is a folder with an _annotations.coco.json."""
    train, test = Part.both(data("x", "a", "b"), data("x", "b", "a"), nodes(classes=None))
    assert (train.name, test.name) == ("visrep/x/train", "visrep/x/test")
    assert train.arguments == test.arguments == {"classes": ["a", "b"]}
    assert [part.name for part in Part.both(data("x"), data("y"), nodes())] == [
        "visrep/x",
        "visrep/y",
    ]


def test_places_are_absolute():
    train, _ = Part.both(data("x"), data("y"), nodes(root="~/d", image_root="i", depth="auto"))
    assert train.arguments == {
        "root": str(Path.home() / "d"),
        "image_root": str(Path("i").absolute()),
        "depth": "auto",
    }


@pytest.mark.detectron2
@pytest.mark.parametrize("head", ["fpn", "fcn"])
def test_scales_and_crops_need_a_line_with_any_head(head, tmp_path, monkeypatch):
    recipe = {**FCN, "head": head, "semantic_width": 32}
    assert small_recipe(**recipe).scales
    config = nested(**recipe)
    text = headed(config, about=["x"], name="x.yaml")
    assert "no random scales" in text and "cannot hold" not in text
    (tmp_path / "x.yaml").write_text(text)
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(line[6:] for line in text.splitlines() if line.startswith("#     ")), names)
    assert FCN["crop"] == names["cfg"].INPUT.VISREP.CROP
    assert (names["cfg"].MODEL.SEM_SEG_HEAD.NAME == FCN_HEAD) is (head == "fcn")
