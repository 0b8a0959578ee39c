"""Which samples keep their label: subsets of 1 % or 10 %, drawn or read from a list of names."""

import hashlib
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.errors import ConfigError, UserError
from visrep.files import write_text

# The ImageNet subsets that the SimCLR authors published and every later paper uses.
OFFICIAL = {
    "71e82a48ba78252683ae334c4d019ebd5c6e855b9599c1389fbe83eb9549cf17": "simclr 1percent",
    "6d09de11e7bdaf5b1f3b1f249b6183695f97310cdd20f0c03e7235b6b9392091": "simclr 10percent",
}


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
    if dataset.labels is None:
        raise UserError(
            f"{dataset.name} has no labels to draw from; use data with class folders "
            "(data=imagefolder)"
        )
    if not 0 < fraction <= 1:
        raise ConfigError(f"fraction={fraction} is out of range; give more than 0, at most 1")
    rng = np.random.default_rng(seed)
    labels = dataset.labels.numpy()
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
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise UserError(f"cannot read list {path}: {reason}; give a file of names") from error
    index = {name: i for i, name in enumerate(files)}
    chosen: dict[int, int] = {}  # index -> line
    for number, line in enumerate(lines, start=1):
        name = line.strip()
        if not name:
            continue
        at = index.get(name)
        if at is None:
            at = index.get(f"{name.partition('_')[0]}/{name}")
        if at is None:
            raise UserError(
                f"{path}:{number}: {name} is not among the {len(files)} images of {where}; "
                "correct the list or the data's root"
            )
        if at in chosen:
            raise UserError(
                f"{path}:{number}: {name} is also on line {chosen[at]}; remove one of them"
            )
        chosen[at] = number
    if not chosen:
        raise UserError(f"list {path} has no names; put one on each line")
    return torch.tensor(list(chosen))


def describe_list(path: str | Path) -> dict[str, str]:
    """What a record says of a list: its `sha256` and `list`, "simclr 1percent" or the file name."""
    path = Path(path)
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"cannot read list {path}: {error.strerror}; give a file") from error
    return {"list": OFFICIAL.get(digest, path.name), "sha256": digest}
