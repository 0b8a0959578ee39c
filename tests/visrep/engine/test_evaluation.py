"""What is looked at before a training that ends in a measurement; the input of an encoder."""

import logging
from pathlib import Path

import pytest
import torch

from tests.small_data import preprocess, write_folder
from visrep.data.dataset import MemoryImages
from visrep.data.folders import image_folder
from visrep.data.preprocess import Preprocess
from visrep.engine.evaluation import input_of, require_usable, shared_classes, warn_of_overlap
from visrep.errors import ConfigError, UserError

PLAIN = {"size": 8, "resize": None, "mean": (0, 0, 0), "std": (1, 1, 1)}


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    return caplog


def parts(root: Path, **settings: int) -> list:
    return [image_folder(str(root), split=split, **settings) for split in ("train", "test")]


def test_test_labels_are_those_of_train(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    train, test = parts(write_folder(tmp_path / "d", train=6, test=6))
    classes, matched = shared_classes(train, test)
    assert classes == ["blue", "green", "red"] and matched is test
    for path in (tmp_path / "d/test/blue").iterdir():
        path.unlink()
    (tmp_path / "d/test/blue").rmdir()
    _, test = parts(tmp_path / "d")
    _, matched = shared_classes(train, test)
    assert test.labels.tolist() == [0, 0, 1, 1] and matched.labels.tolist() == [1, 1, 2, 2]
    assert "d/test has no image of blue" in said.text


def test_a_class_that_cannot_be_learnt_is_told(said: pytest.LogCaptureFixture) -> None:
    images = torch.zeros(2, 3, 2, 2, dtype=torch.uint8)
    sets = {"images": images, "labels": torch.tensor([0, 0]), "classes": ["a", "b"]}
    train = MemoryImages(name="d/train", **sets)
    shared_classes(train, MemoryImages(name="d/test", **sets))
    assert "d/train has no image of b" in said.text
    alone = MemoryImages(name="d/train", images=images, labels=sets["labels"], classes=["a"])
    shared_classes(alone, alone)
    assert "d/train has the class a alone" in said.text
    with pytest.raises(ConfigError, match="no labels"):
        shared_classes(train, MemoryImages(name="x", images=images))


def test_overlap_is_one_line(tmp_path: Path, said: pytest.LogCaptureFixture) -> None:
    root = write_folder(tmp_path / "d", train=6, test=6)
    warn_of_overlap(*parts(root))
    assert not said.records
    copied = next((root / "train/red").iterdir())
    (root / "test/red/copy.png").write_bytes(copied.read_bytes())
    for limit in (2**30, 0):  # in memory, and as files
        said.clear()
        warn_of_overlap(*parts(root, memory_limit=limit))
        (record,) = said.records
        assert "1 of 7 test images of d/test" in record.getMessage()
        assert f"red/copy.png is red/{copied.name}" in record.getMessage()


def test_a_test_part_is_looked_at_by_its_headers(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "d", train=6, test=6)
    for limit in (2**30, 0):
        _, test = parts(root, memory_limit=limit)
        require_usable(test, preprocess(), max_broken=0.0)
        large = preprocess().__class__(size=32, resize=None, mean=(0.0,) * 3, std=(1.0,) * 3)
        with pytest.raises(UserError, match="16 x 16 pixels, and the encoder takes 32 x 32"):
            require_usable(test, large, max_broken=0.0)
    path = next((root / "test/red").iterdir())
    path.write_bytes(b"no image")
    with pytest.raises(UserError, match=f"1 of 6 images cannot be read.*{path.name}"):
        require_usable(test, preprocess(), max_broken=0.1)
    require_usable(test, preprocess(), max_broken=0.2)


def test_an_empty_test_part_is_refused() -> None:
    empty = MemoryImages(name="d/test", images=torch.zeros(0, 3, 16, 16, dtype=torch.uint8))
    with pytest.raises(UserError, match="d/test has no image"):
        require_usable(empty, preprocess(), max_broken=0.5)


def test_an_antialiased_encoder_leaves_the_resize_to_the_views():
    assert set(input_of(Preprocess(**PLAIN))) == {"size", "mean", "std"}


def test_an_encoder_without_antialiasing_is_trained_without():
    """Finetuning, distillation and augmented probes cut their crops as its source did."""
    given = input_of(Preprocess(**PLAIN, interpolation="bicubic_tf1", antialias=False))
    assert (given["interpolation"], given["antialias"]) == ("bicubic_tf1", False)


def test_bgr_is_refused():
    with pytest.raises(ConfigError, match="visrep convert"):
        input_of(Preprocess(**PLAIN, channel_order="BGR"))
