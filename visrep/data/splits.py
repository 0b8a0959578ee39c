"""Which samples keep their label: subsets of 1 % or 10 %, drawn or read from a list of names."""

import codecs
import hashlib
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor

from visrep.data.classes import some
from visrep.data.dataset import ImageDataset
from visrep.errors import ConfigError, UserError
from visrep.files import write_text


@dataclass(frozen=True, kw_only=True)
class Published:
    """A list of labels that papers use.

    Attributes:
        name: what records call it.
        file: what it was published as.
        classes: images of a class -> how many classes have so many.
    """

    name: str
    file: str
    classes: Mapping[int, int]

    @property
    def images(self) -> int:
        """Names in the list."""
        return sum(images * classes for images, classes in self.classes.items())


# The ImageNet subsets that the SimCLR authors published and every later paper uses, by the sha256
# of the file. The smaller one's images are all in the larger one.
OFFICIAL = {
    "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17": Published(
        name="simclr 1percent", file="1percent.txt", classes={13: 811, 12: 189}
    ),
    "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091": Published(
        name="simclr 10percent", file="10percent.txt", classes={128: 884, 129: 116}
    ),
}


@dataclass(frozen=True, kw_only=True)
class LabelCounts:
    """How many of the images of each class have a label.

    Attributes:
        each: of every class that has one, rising.
        missing: names of the classes that have none.
    """

    each: list[int]
    missing: list[str]

    def line(self) -> str:
        """The counts in words."""
        least, most = self.each[0], self.each[-1]
        if least == most:
            return f"{most} for each of {len(self.each)} classes"
        middle = f"{median(self.each):g} in the median"
        return f"{least} to {most} for each of {len(self.each)} classes, {middle}"

    def warnings(self) -> list[str]:
        """What is wrong with them."""
        if not self.missing:
            return []
        names = some(self.missing)
        return [
            f"no labelled image of {names}, of {len(self.each) + len(self.missing)} classes: "
            "these cannot be learnt; add some to the list"
        ]


def count_labels(dataset: ImageDataset, indices: Tensor) -> LabelCounts:
    """The labels of the samples `indices`, class by class.

    Raises:
        UserError: the data set has no labels.
    """
    labels = _labels_of(dataset)[indices]
    assert dataset.classes is not None
    counts = torch.bincount(labels, minlength=len(dataset.classes)).tolist()
    return LabelCounts(
        each=sorted(count for count in counts if count),
        missing=[dataset.classes[c] for c, count in enumerate(counts) if not count],
    )


def questionable(path: str | Path, dataset: ImageDataset, indices: Tensor) -> list[str]:
    """What is odd about the list `path` of the samples `indices`, where it is a published one.

    A list that only looks like a published one is said not to be it.

    Raises:
        UserError: it is one, and its images are of other classes here than they were.
    """
    path = Path(path)
    published = _published(path)
    if published is None:
        called = [known for known in OFFICIAL.values() if path.name == known.file]
        as_long = [known for known in OFFICIAL.values() if len(indices) == known.images]
        return [
            f"{path} is not the published {known.file}, though it has its "
            f"{'name' if called else 'length'}: results are not those of the published labels"
            for known in (called or as_long)
        ]
    counts = count_labels(dataset, indices)
    if counts.missing or Counter(counts.each) != published.classes:
        wanted = sum(published.classes.values())
        raise UserError(
            f"{path} is the published {published.file}, of {published.images} images of {wanted} "
            f"classes, and with {dataset.name} it gives {counts.line()} and none for "
            f"{len(counts.missing)}: the folder is not ImageNet's train/ as it was published"
        )
    larger = [known for known in OFFICIAL.values() if known.images > published.images]
    beside = [path.with_name(known.file) for known in larger]
    here = {dataset.file(i) for i in indices.tolist()}
    odd = []
    for file in filter(Path.is_file, beside):
        missing = sorted(here - {dataset.file(i) for i in read_list(file, dataset).tolist()})
        if missing:
            odd.append(
                f"{len(missing)} images of {path} are not in {file} ({some(missing, 3)}), and in "
                "the published lists all are: the larger one is another"
            )
    return odd


def label_subset(dataset: ImageDataset, *, fraction: float, seed: int) -> Tensor:
    """Draw a class-balanced share of the labelled samples.

    The classes take turns, each giving a random sample of its own, until floor(fraction x N) are
    taken; so counts differ by at most one (unless a class runs out), every class has at least one,
    and with the same seed a smaller fraction's samples are among a larger one's.

    Args:
        fraction: more than 0, at most 1.
        seed: the draw.

    Returns:
        int64 indices, ascending.

    Raises:
        UserError: the data set has no labels.
        ConfigError: `fraction` is out of range.
    """
    labels = _labels_of(dataset).numpy()
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction} is out of range; give more than 0, at most 1")
    rng = np.random.default_rng(seed)
    present = np.unique(labels)
    turn = np.empty(len(labels), dtype=np.int64)  # how many of its class come before a sample
    place = np.empty(len(labels), dtype=np.int64)  # of its class among the classes
    for order, label in enumerate(rng.permutation(present)):
        members = rng.permutation(np.flatnonzero(labels == label))
        turn[members] = np.arange(len(members))
        place[members] = order
    # 0.29 * 100 is 28.999...: the small addend keeps such products whole.
    count = max(len(present), math.floor(fraction * len(labels) + 1e-6))
    return torch.from_numpy(np.sort(np.lexsort((place, turn))[:count]))


def _labels_of(dataset: ImageDataset) -> Tensor:
    if dataset.labels is None:
        raise UserError(
            f"{dataset.name} has no labels to draw from; use data with class folders "
            "(data=imagefolder)"
        )
    return dataset.labels


def write_list(path: str | Path, dataset: ImageDataset, indices: Tensor) -> None:
    """Write the names of the samples `indices`, one per line; whole or not at all."""
    names = [dataset.file(i) for i in indices.tolist()]
    for name in names:
        if name != name.strip() or "\n" in name:
            raise UserError(f"file name {name!r} cannot stand in a list; rename the file")
    write_text(path, "".join(f"{name}\n" for name in names))


def read_list(path: str | Path, dataset: ImageDataset) -> Tensor:
    """Indices (int64, in the list's order) of the samples that a list names.

    A line is a name as `write_list` writes it, or ImageNet's `<wnid>_<number>.JPEG`, which stands
    for `<wnid>/<wnid>_<number>.JPEG`.

    Raises:
        UserError: the list is missing, empty, names a file that the data set has not, or names
            one twice.
    """
    files = [dataset.file(i) for i in range(len(dataset))]
    return named_indices(Path(path), files, dataset.name)


def named_indices(path: Path, files: Sequence[str], where: str | Path) -> Tensor:
    """`read_list` for the bare names `files`; `where` tells the user what they belong to."""
    index = {name: i for i, name in enumerate(files)}

    def find(name: str) -> int | None:
        return index.get(name, index.get(f"{name.partition('_')[0]}/{name}"))

    return torch.tensor(listed(path, find, f"{len(files)} images of {where}"))


def listed(path: Path, find: Callable[[str], int | None], where: str) -> list[int]:
    """What `find` says of each line of a list, in its order; `where` tells the user what it knows.

    Raises:
        UserError: the list is missing or empty, `find` does not know a line, or two are the same.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise UserError(f"cannot read list {path}: {reason}; give a file of names") from error
    chosen: dict[int, int] = {}  # index -> line
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        at = find(name)
        if at is None:
            raise UserError(
                f"{path}:{number}: {name} is not among the {where}; correct the list or the data's "
                "root"
            )
        if at in chosen:
            raise UserError(
                f"{path}:{number}: {name} is also on line {chosen[at]}; remove one of them"
            )
        chosen[at] = number
    if not chosen:
        raise UserError(f"list {path} has no names; put one on each line")
    return list(chosen)


def describe_list(path: str | Path) -> dict[str, str]:
    """What a record says of a list: its `sha256` and `list`, "simclr 1percent" or the file name."""
    published = _published(Path(path))
    digest = hashlib.sha256(_content(Path(path))).hexdigest()
    return {"list": published.name if published else Path(path).name, "sha256": digest}


def _published(path: Path) -> Published | None:
    """The published list that the file is, which an editor may have given other line ends."""
    plain = _content(path).removeprefix(codecs.BOM_UTF8).replace(b"\r\n", b"\n")
    return OFFICIAL.get(hashlib.sha256(plain.rstrip(b"\n") + b"\n").hexdigest())


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"cannot read list {path}: {error.strerror}; give a file") from error
