"""What a data set is: the two of ours, what breaks the contract, and a stranger's."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from visrep.data.dataset import MemoryImages, checked, read_or_next
from visrep.data.images import BrokenImage
from visrep.errors import ConfigError

ROOT = Path(__file__).resolve().parents[3]


def test_labels_are_part_of_the_fingerprint():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    one = MemoryImages(name="x", images=images, labels=torch.tensor([0, 1]), classes=["a", "b"])
    other = MemoryImages(name="x", images=images, labels=torch.tensor([1, 0]), classes=["a", "b"])
    assert one.fingerprint != other.fingerprint


def test_files_are_part_of_the_fingerprint():
    images = torch.zeros(2, 3, 4, 4, dtype=torch.uint8)
    assert (
        MemoryImages(name="x", images=images).fingerprint
        != MemoryImages(name="x", images=images, files=["a", "b"]).fingerprint
    )


class Stripes:
    """A stranger's data set, with nothing of ours."""

    def __init__(self, **other):
        self.name, self.fingerprint, self.images = "stripes/train", "0", None
        self.classes, self.labels = ["a", "b"], torch.tensor([0, 1, 1])
        vars(self).update(other)

    def __len__(self):
        return 3

    def __getitem__(self, i):
        return torch.full((3, 8, 8), i, dtype=torch.uint8)

    def file(self, i):
        return f"{i}.png"


class Slow(MemoryImages):
    """Its fingerprint takes an hour."""

    @property
    def fingerprint(self):
        raise AssertionError("was asked for")


class Torn(Stripes):
    """Its first file is broken, which the loaders pass over."""

    def __getitem__(self, i):
        raise BrokenImage("0.png", "cut short")


@pytest.mark.parametrize(
    "good",
    [
        Stripes(),
        Slow(name="slow", images=torch.zeros(2, 3, 8, 8, dtype=torch.uint8)),
        Torn(),
        Stripes(labels=None),
        Stripes(labels=None, classes=None),
        Stripes(images=torch.zeros(3, 3, 8, 8, dtype=torch.uint8)),
        MemoryImages(name="none", images=torch.zeros(0, 3, 8, 8, dtype=torch.uint8)),
        None,
    ],
)
def test_what_keeps_the_contract_passes_unchanged(good):
    assert checked(good) is good


class Floats(Stripes):
    def __getitem__(self, i):
        return torch.zeros(3, 8, 8)


class Lengthless:
    name, classes, labels, images = "x", None, None, None


@pytest.mark.parametrize(
    ("wrong", "member", "wanted"),
    [
        (Stripes(file=None), "file", "name of sample i.*unique"),
        (Lengthless(), "__len__", "number of samples"),
        (Floats(), "__getitem__", "uint8 tensor 3 x H x W"),
        (Stripes(name=None), "name", "such as"),
        (Stripes(classes=None), "classes", "Names of the classes"),
        (Stripes(classes=[1, 2]), "classes", "Names of the classes"),
        (Stripes(labels=[0, 1, 1]), "labels", "int64 tensor"),
        (Stripes(labels=torch.tensor([0, 1])), "labels", "for each sample"),
        (Stripes(labels=torch.tensor([0.0, 1.0, 1.0])), "labels", "int64"),
        (Stripes(labels=torch.tensor([0, 1, 2])), "labels", "a class for each"),
        (Stripes(images=torch.zeros(3, 3, 8, 8)), "images", "uint8 tensor N x 3 x H x W"),
        (Stripes(images=torch.zeros(2, 3, 8, 8).byte()), "images", "uint8 tensor N x 3"),
        (Stripes(images=torch.zeros(3, 8, 8, 3).byte()), "images", "uint8 tensor N x 3"),
        (object(), "name", "What records and messages call it"),
    ],
)
def test_what_breaks_the_contract_is_named_in_one_line(wrong, member, wanted):
    with pytest.raises(ConfigError, match=rf"`{member}` must be there: .*{wanted}") as caught:
        checked(wrong)
    assert type(wrong).__qualname__ in str(caught.value) and "\n" not in str(caught.value)


STRANGER = """
import torch
from visrep.data.dataset import MemoryImages

def stripes(*, split, count=40):
    labels = torch.arange(count) % 2
    images = torch.randint(0, 100, (count, 3, 32, 32), dtype=torch.uint8)
    images[labels == 1, :, ::4] = 255
    return MemoryImages(
        name=f"stripes/{split}", images=images, labels=labels, classes=["plain", "striped"]
    )

class Broken:
    def __init__(self, split):
        self.name = split
"""
YAML = """
name: stripes
train: {_target_: stripes_of_mine.stripes, split: train, count: 60}
test: {_target_: stripes_of_mine.stripes, split: test}
"""


def test_one_file_and_one_yaml_add_a_data_set(tmp_path):
    """From a stranger's folder, as a command: chosen by name, its keys known, its labels used."""
    (tmp_path / "stripes_of_mine.py").write_text(STRANGER)
    (tmp_path / "conf/data").mkdir(parents=True)
    (tmp_path / "conf/data/stripes.yaml").write_text(YAML)

    def visrep(*overrides):
        mine = ("plugins=stripes_of_mine", "config_dir=conf", "data=stripes")
        return subprocess.run(
            [sys.executable, "-m", "visrep", "splits", *mine, "out=list.txt", *overrides],
            cwd=tmp_path,
            env={"PYTHONPATH": str(ROOT), "PATH": "", "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
        )

    done = visrep("fraction=0.2", "data.train.count=50")
    assert done.returncode == 0, done.stderr
    assert "10 of 50 images of stripes/train, 5 for each of 2 classes" in done.stdout
    assert len((tmp_path / "list.txt").read_text().splitlines()) == 10
    broken = visrep(
        "overwrite=true", "data.train._target_=stripes_of_mine.Broken", "~data.train.count"
    )
    assert broken.returncode == 2 and broken.stderr.count("\n") == 1
    assert "stripes_of_mine.Broken: `classes` must be there" in broken.stderr


class Holed:
    """Numbers as images; some cannot be read."""

    def __init__(self, count, holes):
        self.count, self.holes = count, holes

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        if i in self.holes:
            raise BrokenImage(f"{i}.jpg", "hole")
        return torch.tensor(i)


def test_the_next_readable_image_stands_in():
    data = Holed(6, {2, 3, 5})
    every = torch.arange(6)
    image, index, broken = read_or_next(data, every, 2)
    assert (image.item(), index, [e.file for e in broken]) == (4, 4, ["2.jpg", "3.jpg"])
    assert read_or_next(data, every, 5)[1] == 0, "wraps around"
    assert read_or_next(data, every, 1)[1:] == (1, [])
    _, index, broken = read_or_next(data, torch.tensor([0, 2, 4]), 1)
    assert index == 4 and len(broken) == 1, "the label of 3, the next one, may not be used"


def test_nothing_readable_is_an_error():
    with pytest.raises(BrokenImage, match=r"1\.jpg"):
        read_or_next(Holed(3, {0, 1, 2}), torch.arange(3), 1)
