"""Subsets of labels: balance, nesting, lists."""

import hashlib
import os

import pytest
import torch

from visrep.data import splits
from visrep.data.dataset import MemoryImages
from visrep.data.splits import describe_list, label_subset, read_list, write_list
from visrep.errors import ConfigError, UserError


def labelled(counts, *, files=None):
    """A data set with `counts[c]` samples of class c, in mixed order."""
    labels = torch.repeat_interleave(torch.arange(len(counts)), torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=torch.Generator().manual_seed(1))]
    images = torch.zeros(len(labels), 3, 1, 1, dtype=torch.uint8)
    names = [f"class{c}" for c in range(len(counts))]
    return MemoryImages(name="x/train", images=images, labels=labels, classes=names, files=files)


def per_class(data, indices):
    return data.labels[indices].bincount(minlength=len(data.classes)).tolist()


@pytest.mark.parametrize("fraction", [0.013, 0.1, 0.29, 0.5])
def test_classes_are_balanced_and_the_total_is_the_share(fraction):
    data = labelled([100] * 10)
    indices = label_subset(data, fraction=fraction, seed=0)
    counts = per_class(data, indices)
    assert sum(counts) == round(1000 * fraction)
    assert max(counts) - min(counts) <= 1
    assert indices.dtype == torch.int64 and torch.equal(indices, indices.unique())


def test_every_class_has_one_at_least():
    data = labelled([40] * 10)
    assert per_class(data, label_subset(data, fraction=0.001, seed=0)) == [1] * 10


def test_a_small_class_gives_what_it_has():
    data = labelled([3, 500, 500])
    assert per_class(data, label_subset(data, fraction=0.1, seed=0)) in ([3, 49, 48], [3, 48, 49])


def test_all_labels():
    data = labelled([5, 7])
    assert label_subset(data, fraction=1.0, seed=3).tolist() == list(range(12))


def test_smaller_shares_are_parts_of_larger_ones():
    data = labelled([60, 100, 30, 77])
    for seed in range(3):
        last: set[int] = set()
        for fraction in (0.01, 0.05, 0.1, 0.33, 0.8, 1.0):
            now = set(label_subset(data, fraction=fraction, seed=seed).tolist())
            assert last < now
            last = now


def test_draws_are_repeatable_and_differ():
    data = labelled([100] * 5)
    draws = [label_subset(data, fraction=0.1, seed=seed).tolist() for seed in (0, 0, 1, 2)]
    assert draws[0] == draws[1]
    assert len({tuple(draw) for draw in draws}) == 3


def test_samples_are_drawn_from_everywhere():
    data = labelled([1000])
    chosen = label_subset(data, fraction=0.1, seed=0).float()
    assert chosen.mean() == pytest.approx(500, abs=100)


@pytest.mark.parametrize("fraction", [0, -0.1, 1.5])
def test_a_fraction_out_of_range(fraction):
    with pytest.raises(ConfigError, match=f"fraction={fraction} is out of range"):
        label_subset(labelled([5]), fraction=fraction, seed=0)


def test_unlabelled_data_is_refused():
    data = MemoryImages(name="flat", images=torch.zeros(3, 3, 1, 1, dtype=torch.uint8))
    with pytest.raises(UserError, match="flat has no labels"):
        label_subset(data, fraction=0.5, seed=0)


def test_a_list_returns_what_was_written(tmp_path):
    data = labelled([50] * 4)
    indices = label_subset(data, fraction=0.1, seed=5)
    write_list(tmp_path / "list.txt", data, indices)
    lines = (tmp_path / "list.txt").read_text().splitlines()
    assert lines == [data.file(i) for i in indices.tolist()]
    assert torch.equal(read_list(tmp_path / "list.txt", data), indices)
    assert os.listdir(tmp_path) == ["list.txt"]


def test_imagenet_s_lines_are_resolved(tmp_path):
    files = ["n01440764/n01440764_10026.JPEG", "n01443537/n01443537_2.JPEG", "other/x_1.JPEG"]
    data = labelled([2, 1], files=files)
    (tmp_path / "1percent.txt").write_text("n01443537_2.JPEG\nn01440764_10026.JPEG\n")
    assert read_list(tmp_path / "1percent.txt", data).tolist() == [1, 0]
    (tmp_path / "mixed.txt").write_text("other/x_1.JPEG\r\n\r\nn01443537_2.JPEG")
    assert read_list(tmp_path / "mixed.txt", data).tolist() == [2, 1]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a.jpg\nn01440764_1.JPEG\n", r"l\.txt:2: n01440764_1\.JPEG is not among the 2 images of"),
        (b"a.jpg\nb.jpg\na.jpg\n", r"l\.txt:3: a\.jpg is also on line 1"),
        (b"\n\n", r"l\.txt has no names"),
        (b"\xff\xfe\x00", r"cannot read list .*l\.txt: it is no text file"),
        (None, r"cannot read list .*l\.txt: No such file"),
    ],
)
def test_a_wrong_list_is_one_line(tmp_path, content, message):
    if content is not None:
        (tmp_path / "l.txt").write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        read_list(tmp_path / "l.txt", labelled([1, 1], files=["a.jpg", "b.jpg"]))
    assert "\n" not in str(caught.value)


def test_a_name_that_no_line_can_hold(tmp_path):
    data = labelled([1, 1], files=["a.jpg", "b\n.jpg"])
    with pytest.raises(UserError, match="cannot stand in a list"):
        write_list(tmp_path / "l.txt", data, torch.tensor([0, 1]))
    assert os.listdir(tmp_path) == []


def test_the_official_lists_are_recognised(tmp_path, monkeypatch):
    names = {known.name: known.images for known in splits.OFFICIAL.values()}
    assert names == {"simclr 1percent": 12_811, "simclr 10percent": 128_116}
    assert all(sum(known.classes.values()) == 1000 for known in splits.OFFICIAL.values())
    assert all(len(digest) == 64 for digest in splits.OFFICIAL)
    (tmp_path / "mine.txt").write_text("a.jpg\n")
    digest = hashlib.sha256(b"a.jpg\n").hexdigest()
    assert describe_list(tmp_path / "mine.txt") == {"list": "mine.txt", "sha256": digest}
    known = splits.Published(name="simclr 1percent", file="1percent.txt", classes={1: 1})
    monkeypatch.setitem(splits.OFFICIAL, digest, known)
    for content in (b"a.jpg\n", b"a.jpg\r\n", b"\xef\xbb\xbfa.jpg"):  # as editors write it
        (tmp_path / "mine.txt").write_bytes(content)
        assert describe_list(tmp_path / "mine.txt")["list"] == "simclr 1percent"
    with pytest.raises(UserError, match=r"none\.txt"):
        describe_list(tmp_path / "none.txt")
