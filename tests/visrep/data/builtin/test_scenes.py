"""The built-in crops: what is drawn, and the cache."""

import os
import shutil

import pytest
import torch

from visrep.data.builtin import scenes
from visrep.data.builtin.digits import MIN_CONTRAST, contrast
from visrep.data.builtin.digits import scans as scans_of
from visrep.errors import ConfigError


@pytest.fixture(scope="module")
def drawn():
    return scenes.draw_crops("train", count=1500, seed=5)


def test_digits_are_20_to_28_pixels_tall_and_whole(drawn):
    rows = (drawn.opacity >= 0.25).any(dim=2).sum(dim=1)
    assert ((rows >= 20) & (rows <= 28)).float().mean() > 0.97
    # The outline's own height is right for all (test_digits); a tip thinner than a pixel may fade.
    assert rows.min() >= 18 and rows.max() <= 29
    edge = torch.cat(
        [drawn.opacity[:, [0, -1]].flatten(1), drawn.opacity[:, :, [0, -1]].flatten(1)]
    )
    assert edge.max() < 0.5, "the outline stays inside"


def test_digits_are_off_centre(drawn):
    columns = torch.arange(32) + 0.5
    x = (drawn.opacity.sum(dim=1) * columns).sum(dim=1) / drawn.opacity.sum(dim=(1, 2))
    y = (drawn.opacity.sum(dim=2) * columns).sum(dim=1) / drawn.opacity.sum(dim=(1, 2))
    assert x.std() > 2 and y.std() > 1
    assert x.mean() == pytest.approx(16, abs=0.5) and y.mean() == pytest.approx(16, abs=0.5)


def test_digits_stand_out(drawn):
    assert contrast(drawn.colours, drawn.behind).min() >= MIN_CONTRAST
    # And in the picture itself: the mean of what a digit covers is its colour.
    solid = drawn.opacity >= 0.99
    for image, mask, colour in zip(drawn.images[:100], solid, drawn.colours, strict=False):
        if mask.any():
            assert torch.allclose(image[:, mask].float().mean(dim=1) / 255, colour, atol=0.01)


def test_labels_and_scans_belong_together(drawn):
    pool = scans_of("train")
    label_of = dict(zip(pool.ids.tolist(), pool.labels.tolist(), strict=True))
    assert [label_of[scan] for scan in drawn.scans.tolist()] == drawn.labels.tolist()
    used = torch.bincount(drawn.scans, minlength=1797)[pool.ids]
    assert used.min() >= 1 and used.max() - used.min() <= 1


def test_no_scan_is_in_train_and_test(drawn):
    test = scenes.draw_crops("test", count=600, seed=6)
    assert not set(drawn.scans.tolist()) & set(test.scans.tolist())


def test_drawing_is_deterministic_and_follows_the_seed():
    one, again = (scenes.draw_crops("test", count=60, seed=3) for _ in range(2))
    assert torch.equal(one.images, again.images) and torch.equal(one.labels, again.labels)
    assert not torch.equal(one.images, scenes.draw_crops("test", count=60, seed=4).images)


@pytest.fixture(scope="module")
def cached(tmp_path_factory):
    """The full sets, drawn once into a cache of this module."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("cache")
        patch.setenv("VISREP_CACHE", str(folder))
        yield folder, scenes.crops("train"), scenes.crops("test")


def test_crops_are_a_data_set_of_the_promised_size(cached):
    _, train, test = cached
    assert train.images.shape == (6000, 3, 32, 32) and train.images.dtype == torch.uint8
    assert test.images.shape == (2000, 3, 32, 32)
    assert train.name == "scenes/train" and train.classes == list("0123456789")
    assert train.labels.bincount().min() > 550 and test.labels.bincount().min() > 180
    assert torch.equal(train[17], train.images[17])
    assert len({train.file(i) for i in range(6000)}) == 6000
    assert train.fingerprint != test.fingerprint


def test_raw_pixels_are_neither_trivial_nor_hopeless(cached):
    """kNN on raw pixels: about 46 %."""
    _, train, test = cached
    bank, queries = (torch.nn.functional.normalize(d.images.flatten(1).float()) for d in cached[1:])
    nearest = (queries @ bank.T).topk(20).indices
    votes = torch.nn.functional.one_hot(train.labels[nearest], 10).sum(dim=1).argmax(dim=1)
    assert 40 < 100 * (votes == test.labels).float().mean().item() < 52


def test_the_cache_is_used_and_holds_the_same(cached, monkeypatch):
    _, train, _ = cached
    monkeypatch.setattr(scenes, "draw_crops", None)
    again = scenes.crops("train")
    assert torch.equal(again.images, train.images) and again.fingerprint == train.fingerprint


@pytest.fixture
def few(monkeypatch, tmp_path):
    """A cache of its own, and 50 crops instead of thousands."""
    monkeypatch.setattr(scenes, "COUNTS", {"train": 50, "test": 50})
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))


@pytest.mark.parametrize("damage", ["cut", "flipped", "garbage"])
def test_a_broken_cache_is_drawn_again(few, damage, log_lines, tmp_path):
    before = scenes.crops("test")
    (path,) = (tmp_path / "cache").iterdir()
    good = path.read_bytes()
    content = bytearray(good)
    if damage == "cut":
        content = content[: len(content) // 2]
    elif damage == "flipped":
        content[-5] ^= 255
    else:
        content = bytearray(b"no tensors")
    path.write_bytes(content)
    assert torch.equal(scenes.crops("test").images, before.images)
    assert any("is broken" in line and str(path) in line for line in log_lines)
    assert path.read_bytes() == good, "and mended"


def test_without_a_place_for_the_cache_the_crops_are_drawn(few, log_lines, tmp_path):
    before = scenes.crops("test")
    shutil.rmtree(tmp_path / "cache")
    (tmp_path / "cache").write_text("")
    assert torch.equal(scenes.crops("test").images, before.images)
    assert any("without a cache" in line for line in log_lines)
    assert os.listdir(tmp_path) == ["cache"]


def test_an_unknown_split_is_refused():
    with pytest.raises(ConfigError, match="'val'.*choose train or test"):
        scenes.crops("val")
    with pytest.raises(ConfigError, match="'val'.*choose train or test"):
        scenes.detection("val")
