"""CIFAR-10 from torchvision's files."""

import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision import datasets as tv

from visrep.data.cifar10 import cifar10
from visrep.errors import UserError


def fake_cifar(root, monkeypatch):
    """The published layout with eight images, and torchvision told their md5."""
    base = root / tv.CIFAR10.base_folder
    base.mkdir()
    rng = np.random.default_rng(0)
    lists = {}
    for name, count in (("data_batch_1", 5), ("test_batch", 3)):
        pixels = rng.integers(0, 256, (count, 3072), dtype=np.uint8)
        content = pickle.dumps({"data": pixels, "labels": list(range(count))})
        (base / name).write_bytes(content)
        lists[name] = (pixels, hashlib.md5(content).hexdigest())
    meta = pickle.dumps({"label_names": [f"class{i}" for i in range(10)]})
    (base / "batches.meta").write_bytes(meta)
    monkeypatch.setattr(tv.CIFAR10, "train_list", [["data_batch_1", lists["data_batch_1"][1]]])
    monkeypatch.setattr(tv.CIFAR10, "test_list", [["test_batch", lists["test_batch"][1]]])
    monkeypatch.setitem(tv.CIFAR10.meta, "md5", hashlib.md5(meta).hexdigest())
    return {name: pixels for name, (pixels, _) in lists.items()}


def test_cifar10_from_torchvision_s_files(tmp_path, monkeypatch):
    pixels = fake_cifar(tmp_path, monkeypatch)
    train, test = (cifar10(str(tmp_path), split=split) for split in ("train", "test"))
    assert train.images.shape == (5, 3, 32, 32) and test.images.shape == (3, 3, 32, 32)
    assert torch.equal(train.images.flatten(1), torch.from_numpy(pixels["data_batch_1"]))
    assert train.labels.tolist() == [0, 1, 2, 3, 4] and train.classes[3] == "class3"
    assert (train.name, train.file(4)) == ("cifar10/train", "train/00004")


def test_changed_cifar10_files_are_never_unpickled(tmp_path, monkeypatch):
    fake_cifar(tmp_path, monkeypatch)

    class Evil:
        def __reduce__(self):
            return (tmp_path / "owned").mkdir, ()

    (tmp_path / tv.CIFAR10.base_folder / "data_batch_1").write_bytes(pickle.dumps(Evil()))
    with pytest.raises(UserError, match="differs from the published CIFAR-10"):
        cifar10(str(tmp_path), split="train")
    assert not (tmp_path / "owned").exists()


@pytest.mark.parametrize(
    ("split", "message"),
    [
        ("val", "'val'; choose train or test"),
        ("train", "cifar-10-batches-py is missing or differs"),
    ],
)
def test_nothing_there_is_one_clear_line(tmp_path, split, message):
    with pytest.raises(UserError, match=message) as caught:
        cifar10(str(tmp_path), split=split)
    assert "\n" not in str(caught.value)
