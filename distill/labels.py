"""The labels that a training may use: a share of them or a list, and what is said of them."""

import logging
from typing import Any

import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.data.splits import (
    count_labels,
    describe_list,
    label_subset,
    questionable,
    read_list,
)

log = logging.getLogger("visrep")


def labelled(train: ImageDataset, labels: float | str, *, draw: int) -> Tensor:
    """Indices of the images whose labels are used: a share, balanced over the classes, or a list.

    Raises:
        ConfigError: `labels` is no share. UserError: the list cannot be used.
    """
    if isinstance(labels, str):
        return read_list(labels, train)
    if labels == 1:
        return torch.arange(len(train))
    return label_subset(train, fraction=labels, seed=draw)


def announce(train: ImageDataset, labels: float | str, indices: Tensor) -> None:
    """Log how many labels each class has; warn of what is not as it was asked for."""
    counts = count_labels(train, indices)
    taken = f"{len(indices)} of {len(train)} images of {train.name}"
    log.info("labels=%s: %s, %s", labels, taken, counts.line())
    for line in counts.warnings():
        log.warning("warning: labels=%s: %s", labels, line)
    if isinstance(labels, str):
        for line in questionable(labels, train, indices):
            log.warning("warning: %s", line)
    elif not _as_asked(labels, len(indices), len(train)):
        log.warning(
            "warning: labels=%s is less than one image for each class, so one of each is taken: "
            "%s, a share of %.4g, which is what is recorded",
            labels,
            taken,
            len(indices) / len(train),
        )


def about_labels(train: ImageDataset, labels: float | str, indices: Tensor) -> dict[str, Any]:
    """What a record says: `labels` as asked for, or the share that it became, and `share`."""
    share = len(indices) / len(train)
    if isinstance(labels, str):
        identity = {f"list_{name}": value for name, value in describe_list(labels).items()}
        return {"labels": labels, "share": share, **identity}
    asked = _as_asked(labels, len(indices), len(train))
    return {"labels": labels if asked else share, "share": share}


def _as_asked(labels: float, taken: int, images: int) -> bool:
    """Whole images apart, `taken` of `images` is the share `labels`."""
    return abs(taken - labels * images) < 1
