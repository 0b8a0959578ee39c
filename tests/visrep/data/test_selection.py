"""A part of a data set is a data set."""

from pathlib import Path

import torch

from tests.small_data import pictures
from visrep.data.dataset import ImageFiles, MemoryImages, checked
from visrep.data.selection import Selection


def test_samples_labels_and_names_go_together() -> None:
    images, labels = pictures(6, seed=0)
    whole = MemoryImages(name="d/train", images=images, labels=labels, classes=["a", "b", "c"])
    part = checked(Selection(whole, torch.tensor([4, 1])))
    assert len(part) == 2 and part.name == "d/train" and part.classes == ["a", "b", "c"]
    assert part.labels.tolist() == [1, 1] and part.file(0) == whole.file(4)
    assert torch.equal(part[1], images[1]) and torch.equal(part.images, images[[4, 1]])
    others = {Selection(whole, torch.tensor(i)).fingerprint for i in ([4, 1], [1, 4], [4])}
    assert len(others) == 3 and whole.fingerprint not in others


def test_files_stay_files(tmp_path: Path) -> None:
    whole = ImageFiles(name="d", root=tmp_path, files=["a.png", "b.png"])
    part = Selection(whole, torch.tensor([1]))
    assert part.images is None and part.labels is None and part.root == tmp_path
    assert part.file(0) == "b.png"
