"""Which labels were used is said and recorded as it was."""

import hashlib
import logging
from pathlib import Path

import pytest
import torch

from visrep.data import splits
from visrep.data.dataset import MemoryImages
from visrep.distill.labels import about_labels, announce, labelled
from visrep.errors import UserError

CLASSES = ["blue", "green", "red"]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture):
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    caplog.set_level(logging.INFO)
    return caplog


@pytest.fixture
def data() -> MemoryImages:
    labels = torch.arange(60) % 3
    return MemoryImages(
        name="d/train",
        images=torch.zeros(60, 3, 2, 2, dtype=torch.uint8),
        labels=labels,
        classes=CLASSES,
        files=[f"{CLASSES[c]}/{i}.png" for i, c in enumerate(labels.tolist())],
    )


def test_counts_are_told_and_the_share_that_was_used(data, said) -> None:
    indices = labelled(data, 0.1, draw=0)
    announce(data, 0.1, indices)
    assert "6 of 60 images of d/train, 2 for each of 3 classes" in said.text
    assert "warning" not in said.text
    assert about_labels(data, 0.1, indices) == {"labels": 0.1, "share": 0.1}
    rounded = labelled(data, 0.11, draw=0)
    assert about_labels(data, 0.11, rounded)["labels"] == 0.11, "a fraction of an image apart"


def test_less_than_one_of_each_class_is_another_share(data, said) -> None:
    indices = labelled(data, 0.0001, draw=0)
    announce(data, 0.0001, indices)
    assert "one of each is taken: 3 of 60 images" in said.text
    assert about_labels(data, 0.0001, indices) == {"labels": 0.05, "share": 0.05}


def test_a_list_that_lacks_a_class_is_named(data, said, tmp_path: Path) -> None:
    path = tmp_path / "mine.txt"
    path.write_text("blue/0.png\nblue/3.png\nblue/6.png\ngreen/1.png\n")
    indices = labelled(data, str(path), draw=0)
    announce(data, str(path), indices)
    assert "4 of 60 images of d/train, 1 to 3 for each of 2 classes, 2 in the median" in said.text
    assert "no labelled image of red, of 3 classes" in said.text
    about = about_labels(data, str(path), indices)
    assert about["share"] == 4 / 60 and about["list_list"] == "mine.txt"


@pytest.fixture
def published(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two lists as if they were the published ones: one and two images of each class."""
    official = {}
    for count, file in ((1, "1percent.txt"), (2, "10percent.txt")):
        names = [f"{CLASSES[i % 3]}/{i}.png\n" for i in range(3 * count)]
        (tmp_path / file).write_text("".join(names))
        digest = hashlib.sha256((tmp_path / file).read_bytes()).hexdigest()
        official[digest] = splits.Published(name=file, file=file, classes={count: 3})
    monkeypatch.setattr(splits, "OFFICIAL", official)
    return tmp_path


def test_a_published_list_fits_its_data(data, said, published: Path) -> None:
    for file in ("1percent.txt", "10percent.txt"):
        announce(data, str(published / file), labelled(data, str(published / file), draw=0))
    assert "warning" not in said.text
    merged = MemoryImages(
        name="m/train",
        images=data.images,
        labels=data.labels.clamp(max=1),
        classes=["blue", "rest"],
        files=[data.file(i) for i in range(60)],
    )
    path = str(published / "1percent.txt")
    with pytest.raises(UserError, match=r"published 1percent\.txt.*1 to 2 for each of 2 classes"):
        announce(merged, path, labelled(merged, path, draw=0))


def test_one_that_only_looks_published_is_said_not_to_be(data, said, published: Path) -> None:
    small, large = published / "1percent.txt", published / "10percent.txt"
    large.write_text("blue/0.png\ngreen/1.png\nblue/30.png\n")
    announce(data, str(large), labelled(data, str(large), draw=0))
    assert "10percent.txt is not the published 10percent.txt, though it has its name" in said.text
    said.clear()
    announce(data, str(small), labelled(data, str(small), draw=0))
    assert "1 images of" in said.text and "red/2.png" in said.text, "not inside the larger one"
