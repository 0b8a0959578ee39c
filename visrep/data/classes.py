"""Classes of several parts of the data, matched by their names, and how many images each has."""

import logging
import unicodedata
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.data.selection import Selection
from visrep.errors import ConfigError

log = logging.getLogger("visrep")


def in_classes(dataset: ImageDataset, classes: Sequence[str], *, of: str) -> Any:
    """`dataset` whose label c stands for `classes[c]`, the classes of `of`: matched by name.

    Classes that have no image here, and another order, are told in a warning.

    Raises:
        ConfigError: it has images of a class that is not among `classes`, or a name is there twice.
    """
    assert dataset.classes is not None and dataset.labels is not None
    known = _numbered(classes, of)
    names = list(_numbered(dataset.classes, dataset.name))
    counts = class_counts(dataset)
    strange = [i for i, name in enumerate(names) if name not in known and counts[i]]
    if strange:
        found = [dataset.classes[i] for i in strange]
        raise ConfigError(
            f"{dataset.name} has images of {some(found)}, and {of} does not have "
            f"{'this class' if len(found) == 1 else 'these classes'}{_meant(found, classes)}: "
            "rename or remove them, so that the classes agree"
        )
    if list(classes) == dataset.classes and all(counts):
        return dataset
    table = torch.tensor([known.get(name, -1) for name in names])
    labels = table[dataset.labels]
    absent = [classes[c] for c in without_images(labels, len(classes))]
    if absent:
        log.warning(
            "warning: %s has no image of %s, of the %d classes of %s: the others are matched by "
            "name, and the result is about them alone",
            dataset.name,
            some(absent),
            len(classes),
            of,
        )
    shared = [number for number in table.tolist() if number >= 0]
    if shared != sorted(shared):
        log.warning(
            "warning: the classes of %s come in another order than those of %s: they are matched "
            "by name",
            dataset.name,
            of,
        )
    return Selection(dataset, labels=labels, classes=list(classes))


def class_counts(dataset: ImageDataset) -> list[int]:
    """Images of each class."""
    assert dataset.classes is not None and dataset.labels is not None
    return torch.bincount(dataset.labels, minlength=len(dataset.classes)).tolist()


def without_images(labels: Tensor, classes: int) -> list[int]:
    """Classes that no label names."""
    return (torch.bincount(labels, minlength=classes) == 0).nonzero()[:, 0].tolist()


def some(names: Sequence[str], most: int = 5) -> str:
    """The first `most` of the names, and how many more there are."""
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return ", ".join(names[:most]) + more


def key(name: str) -> str:
    """A name as it is compared: a file system may write ä as a with dots that follow."""
    return unicodedata.normalize("NFC", name)


def _numbered(classes: Sequence[str], of: str) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for number, name in enumerate(classes):
        if numbers.setdefault(key(name), number) != number:
            raise ConfigError(f"{of} has two classes called {name}: rename one of them")
    return numbers


def _meant(names: Sequence[str], classes: Sequence[str]) -> str:
    alike = {name.casefold().strip(): name for name in classes}
    meant = [alike[name.casefold().strip()] for name in names if name.casefold().strip() in alike]
    return f", but it has {some(meant)}" if meant else ""
