"""Scenes on disk: VOC and COCO say the same, and a folder is whole or absent."""

import json
import os

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from visrep.data.builtin import scene_files
from visrep.data.builtin.digits import scans
from visrep.data.detection import read_voc
from visrep.errors import UserError


@pytest.fixture
def few(monkeypatch):
    """Five and three scenes instead of hundreds."""
    monkeypatch.setattr(scene_files, "COUNTS", {"train": 5, "test": 3})


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    return scene_files.write_scenes(tmp_path_factory.mktemp("scenes") / "all")


@pytest.fixture(scope="module")
def drawn():
    rng = np.random.default_rng(1)
    return [scene_files.draw_scene(rng, "test") for _ in range(60)]


def test_the_promised_counts_and_sizes(written):
    for split, count in (("train", 400), ("test", 200)):
        data = scene_files.detection(split, written)
        assert len(data.records) == count and data.skipped == []
        assert data.name == f"scenes/{split}" and data.classes == list("0123456789")
        sides = [side for r in data.records for side in (r.height, r.width)]
        assert min(sides) >= 128 and max(sides) <= 160
        counts = np.bincount([len(r.boxes) for r in data.records])
        assert counts[0] == 0 and len(counts) == 7 and counts[1:].min() > 0.05 * count
        used = np.bincount([box.category for r in data.records for box in r.boxes])
        assert used.min() > 0.5 * used.mean()


def test_voc_and_coco_hold_the_same_boxes(written):
    for split in ("train", "test"):
        coco = scene_files.detection(split, written)
        voc = read_voc(written, split, on_bad="raise")
        assert voc.classes == coco.classes
        for one, other in zip(voc.records, coco.records, strict=True):
            assert (one.file, one.height, one.width) == (other.file, other.height, other.width)
            assert [b.xyxy for b in one.boxes] == [b.xyxy for b in other.boxes]
            assert [b.category for b in one.boxes] == [b.category for b in other.boxes]


def test_images_are_readable_and_of_the_annotated_size(written):
    for record in scene_files.detection("test", written).records[:20]:
        assert record.image().shape == (3, record.height, record.width)


def test_boxes_are_tight_around_their_masks(written):
    for record in scene_files.detection("test", written).records[:40]:
        for box in record.boxes:
            mask = rle.decode(box.mask)
            assert mask.shape == (record.height, record.width)
            ys, xs = mask.nonzero()
            assert box.xyxy == (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)


def test_masks_do_not_overlap_and_boxes_hardly(written):
    for record in scene_files.detection("train", written).records:
        assert sum(rle.decode(box.mask).astype(int) for box in record.boxes).max() == 1
        frames = np.array([b.xyxy for b in record.boxes])
        frames[:, 2:] -= frames[:, :2]
        overlap = rle.iou(frames, frames, [0] * len(frames)) - np.eye(len(frames))
        assert overlap.max() < 0.15


def test_digits_have_varied_sizes_and_stand_out(drawn):
    heights = [y1 - y0 for scene in drawn for _, y0, _, y1 in scene.boxes()]
    assert min(heights) >= 20 and max(heights) <= 57
    assert min(heights) < 30 and max(heights) > 48
    for scene in drawn:
        for mask, (x0, y0, x1, y1) in zip(scene.masks, scene.boxes(), strict=True):
            around = ~mask
            around[:y0] = around[y1:] = False
            around[:, :x0] = around[:, x1:] = False
            image = scene.image.float() / 255
            apart = (image[:, mask].mean(dim=1) - image[:, around].mean(dim=1)).abs().mean()
            assert apart > 0.1


def test_test_scenes_use_test_scans(drawn):
    allowed = set(scans("test").ids.tolist())
    assert all(set(scene.scans.tolist()) <= allowed for scene in drawn)
    assert not allowed & set(scans("train").ids.tolist())


def test_drawing_is_deterministic(few, tmp_path):
    one, other = (scene_files.write_scenes(tmp_path / name) for name in ("one", "other"))
    files = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(files) == 2 * 8 + 2 + 2 + 1  # jpg and xml, lists, json, marker
    for file in files:
        assert (one / file).read_bytes() == (other / file).read_bytes()


def test_a_complete_folder_is_reused(few, tmp_path, monkeypatch):
    root = scene_files.write_scenes(tmp_path / "scenes")
    monkeypatch.setattr(scene_files, "_draw", None)
    assert scene_files.write_scenes(tmp_path / "scenes") == root


@pytest.mark.parametrize("loss", ["image", "cut", "version"])
def test_an_incomplete_folder_is_drawn_again(few, tmp_path, loss, log_lines):
    root = scene_files.write_scenes(tmp_path / "scenes")
    image = root / "JPEGImages/train_0000.jpg"
    before = image.read_bytes()
    if loss == "image":
        image.unlink()
    elif loss == "cut":
        image.write_bytes(before[:100])
    else:
        marker = json.loads((root / "scenes.json").read_text())
        (root / "scenes.json").write_text(json.dumps({**marker, "key": "older"}))
    scene_files.write_scenes(root)
    assert image.read_bytes() == before
    assert any(str(root) in line and "replaced" in line for line in log_lines)
    assert os.listdir(tmp_path) == ["scenes"]


def test_a_folder_with_something_else_is_left_alone(few, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(UserError, match="holds something else"):
        scene_files.write_scenes(tmp_path)
    assert os.listdir(tmp_path) == ["mine.txt"]


def test_an_interrupted_drawing_leaves_nothing(few, tmp_path, monkeypatch):
    def full(*args):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(scene_files, "_write_xml", full)
    with pytest.raises(UserError, match=r"cannot write .*scenes: No space left on device; free"):
        scene_files.write_scenes(tmp_path / "scenes")
    assert os.listdir(tmp_path) == []


def test_another_process_that_was_faster_wins(few, tmp_path, monkeypatch):
    """Two processes of torchrun draw the same: the second finds the folder there, and uses it."""
    draw = scene_files._draw

    def overtaken(folder):
        draw(folder)
        monkeypatch.setattr(scene_files, "_draw", draw)
        scene_files.write_scenes(tmp_path / "scenes")

    monkeypatch.setattr(scene_files, "_draw", overtaken)
    root = scene_files.write_scenes(tmp_path / "scenes")
    assert len(scene_files.detection("train", root).records) == 5


def test_the_default_place_is_the_cache(few, tmp_path, monkeypatch):
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    data = scene_files.detection("test")
    assert len(data.records) == 3
    assert data.records[0].file.startswith(str((tmp_path / "cache").resolve()))
    assert torch.equal(data.records[0].image(), scene_files.detection("test").records[0].image())
