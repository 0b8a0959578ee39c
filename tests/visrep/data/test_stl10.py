"""STL-10's binary files: pixels in place, labels from 0, folds; what is not there."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision.datasets import STL10

from visrep.config import compose, instantiate
from visrep.data.stl10 import stl10
from visrep.errors import ConfigError, UserError

CLASSES = ["airplane", "bird", "car", "cat", "deer", "dog", "horse", "monkey", "ship", "truck"]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The files with a few random images; their checksums are not the published ones."""
    monkeypatch.setattr(STL10, "_check_integrity", lambda self: True)
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    draw = np.random.default_rng(0)
    for split, count in (("train", 20), ("test", 7), ("unlabeled", 5)):
        images = draw.integers(0, 256, (count, 3, 96, 96), dtype=np.uint8)
        images[:, 2, 1, 90] = 77  # blue, second row, near the right border
        images.transpose(0, 1, 3, 2).tofile(folder / f"{split}_X.bin")  # a column after another
        (1 + np.arange(count, dtype=np.uint8) % 10).tofile(folder / f"{split}_y.bin")
    (folder / "class_names.txt").write_text("\n".join(CLASSES) + "\n")
    rows = [" ".join(str(2 * fold + i) for i in (0, 1)) for fold in range(10)]
    (folder / "fold_indices.txt").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_pixels_labels_and_names(root: Path) -> None:
    train, test, plain = (stl10(str(root), split=split) for split in ("train", "test", "unlabeled"))
    assert (len(train), len(test), len(plain)) == (20, 7, 5)
    for dataset in (train, test, plain):
        assert dataset.images.shape[1:] == (3, 96, 96) and dataset.images.dtype == torch.uint8
        assert (dataset.images[:, 2, 1, 90] == 77).all()
    assert train.labels.tolist() == [*range(10), *range(10)] and train.labels.dtype == torch.int64
    assert train.classes == test.classes == CLASSES
    assert plain.labels is None and plain.classes is None
    assert (train.name, plain.name) == ("stl10/train", "stl10/unlabeled")


def test_a_fold_is_a_part_of_train(root: Path) -> None:
    train, fold = stl10(str(root), split="train"), stl10(str(root), split="train", fold=3)
    assert torch.equal(fold.images, train.images[6:8])
    assert fold.labels.tolist() == [6, 7] and fold.name == "stl10/train/fold3"
    cfg, _ = compose(
        "svm", ["data=stl10", f"data.root={root}", "data.fold=3", "weights=w", "out=o"]
    )
    assert torch.equal(instantiate(cfg.data.train).images, fold.images)
    assert len(instantiate(cfg.data.test)) == 7


def test_what_is_not_there_is_said(root: Path, tmp_path: Path, monkeypatch) -> None:
    with pytest.raises(ConfigError, match="choose train, test, unlabeled"):
        stl10(str(root), split="extra")
    for split, fold in (("test", 0), ("train", 10)):
        with pytest.raises(ConfigError, match="folds 0 to 9"):
            stl10(str(root), split=split, fold=fold)
    monkeypatch.undo()
    with pytest.raises(UserError, match="unpack stl10_binary"):
        stl10(str(tmp_path), split="train")
