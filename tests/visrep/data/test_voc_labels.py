"""Images with several labels from VOC's lists, and from its annotations where there are none."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.visrep.data.pictures import voc_object, write_voc
from visrep.data.dataset import MemoryImages
from visrep.data.voc_labels import MultiLabelImages, shared_targets, voc_labels
from visrep.errors import ConfigError, UserError

DIFFICULT = "<difficult>1</difficult>"
BOX = (5, 5, 20, 20)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """a: a cat; b: a difficult cat and a dog; c: a difficult cat and a cat; d: nothing."""
    return write_voc(
        tmp_path / "VOC2007",
        {
            "a": voc_object("cat", *BOX),
            "b": voc_object("cat", *BOX, more=DIFFICULT) + voc_object("dog", *BOX),
            "c": voc_object("cat", *BOX, more=DIFFICULT) + voc_object("cat", *BOX),
            "d": "",
        },
    )


def write_lists(root: Path, **lists: str) -> None:
    for name, text in lists.items():
        (root / "ImageSets/Main" / f"{name}.txt").write_text(text)


def test_lists_per_class(root: Path) -> None:
    write_lists(
        root,
        dog_train="b  1\na -1\nd  0\n",
        cat_train="a  1\nb  0\n\nd -1\n",
        cat_val="c 1\n",
    )
    data = voc_labels(str(root), split="train")
    assert data.name == "VOC2007/train" and data.classes == ["cat", "dog"]
    assert [data.file(i) for i in range(3)] == ["a.jpg", "b.jpg", "d.jpg"]
    assert data.targets.tolist() == [[1, -1], [0, 1], [-1, 0]]
    assert data.labels is None and data[1].shape == (3, 40, 50)
    assert voc_labels(str(root), split="train", classes=["dog"]).targets.tolist() == [
        [1],
        [-1],
        [0],
    ]


@pytest.mark.parametrize("listed", [True, False])
def test_deep_images(root: Path, log_lines: list[str], listed: bool) -> None:
    grey = np.linspace(0, 4095, 40 * 50).reshape(40, 50).astype(np.uint16)
    for name in "abcd":
        (root / f"JPEGImages/{name}.jpg").unlink()
        Image.fromarray(grey).save(root / f"JPEGImages/{name}.png")
    if listed:
        write_lists(root, cat_train="a 1\nb -1\n")
    assert voc_labels(str(root), split="train", depth=[0, 4095])[0].max() == 255
    assert not log_lines
    assert voc_labels(str(root), split="train")[0].max() == 15
    assert len(log_lines) == 1 and "depth=[0,4095]" in log_lines[0]


def test_ids_with_spaces_and_numbers_byte_order_marks_and_hidden_lists(tmp_path: Path) -> None:
    root = write_voc(tmp_path, {"cell 0": "", "cell -1": "", "c": ""})
    lists = root / "ImageSets/Main"
    (lists / "cat_train.txt").write_bytes(b"\xef\xbb\xbfcell 0  1\r\ncell -1 -1\r\nc 0\r\n")
    (lists / "._cat_train.txt").write_bytes(b"\0\5")
    data = voc_labels(str(root), split="train")
    assert [data.file(i) for i in range(3)] == ["cell 0.jpg", "cell -1.jpg", "c.jpg"]
    assert data.classes == ["cat"] and data.targets.tolist() == [[1], [-1], [0]]


def test_annotations_where_there_are_no_lists(root: Path) -> None:
    data = voc_labels(str(root), split="train")
    assert data.classes == ["cat", "dog"]
    assert data.targets.tolist() == [[1, -1], [0, 1], [1, -1], [-1, -1]]
    # A class without a list of this split: the annotations of all, in the order asked for.
    write_lists(root, dog_train="a 1\n")
    data = voc_labels(str(root), split="train", classes=["dog", "cat"])
    assert data.targets.tolist() == [[-1, 1], [1, 0], [-1, 1], [-1, -1]]


def test_the_fingerprint_follows_the_files(root: Path) -> None:
    one = voc_labels(str(root), split="train").fingerprint
    (root / "JPEGImages/a.jpg").write_bytes((root / "JPEGImages/b.jpg").read_bytes() + b"x")
    assert voc_labels(str(root), split="train").fingerprint != one


@pytest.mark.parametrize(
    ("lists", "message"),
    [
        ({"cat_train": "a 1\n", "dog_train": "b 1\n"}, "different images, such as a"),
        ({"cat_train": "a 2\n"}, "cat_train.txt:1"),
        ({"cat_train": "a\n"}, "cat_train.txt:1"),
        ({"cat_train": "a 1\na -1\n"}, "listed twice"),
        ({"cat_train": "\n"}, "no ids"),
        ({"cat_train": "zz 1\n"}, "zz.jpg"),
        ({"cat_train": "../a 1\n"}, "leads out"),
    ],
)
def test_bad_lists_are_named(root: Path, lists: dict, message: str) -> None:
    write_lists(root, **lists)
    with pytest.raises(UserError, match=message):
        voc_labels(str(root), split="train")


def test_folders_and_partners_that_are_missing(root: Path) -> None:
    with pytest.raises(ConfigError, match="data.root"):
        voc_labels(None, split="train")
    with pytest.raises(UserError, match="not a folder"):
        voc_labels(str(root / "none"), split="train")
    with pytest.raises(UserError, match="nosuch"):
        voc_labels(str(root), split="nosuch")
    train = voc_labels(str(root), split="train")
    assert shared_targets(train, train)[0] == ["cat", "dog"]
    other = voc_labels(str(root), split="train", classes=["dog", "cat"])
    names, matched = shared_targets(train, other)
    assert names == matched.classes == ["cat", "dog"], "matched by name"
    assert torch.equal(matched.targets, train.targets)
    assert not torch.equal(other.targets, train.targets)
    files, targets = [train.file(i) for i in range(len(train))], train.targets[:, 1:]
    fewer = MultiLabelImages(
        name="fewer", root=train.root, files=files, targets=targets, classes=["dog"]
    )
    with pytest.raises(ConfigError, match="cat is in one of them only"):
        shared_targets(train, fewer)
    for test in (None, MemoryImages(name="x", images=train[0][None])):
        with pytest.raises(ConfigError, match="without a test set"):
            shared_targets(train, test)
