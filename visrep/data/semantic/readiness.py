"""What is looked at before a net that names every pixel is trained or measured."""

import logging
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from torch import Tensor

from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.detection.readiness import sound, warn_of_twins
from visrep.data.images import BrokenImage
from visrep.data.semantic.labels import IGNORED
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

MOST_READ = 1000  # label images of a part whose ids are looked at before the first step
_THREADS = 8


def ready(
    train: DetectionDataset, test: DetectionDataset, *, max_broken: float
) -> tuple[DetectionDataset, DetectionDataset]:
    """Both parts as a net is trained and measured on them.

    Broken images and label images within the tolerance are left out and counted in `.broken`.
    Images in both parts, and classes that only `test` has a pixel of, are named in a warning.

    Args:
        max_broken: share of either part that may be unreadable.

    Raises:
        ConfigError: the data have no classes of pixels, or the parts have different classes.
        UserError: too many broken files, label images in colours, of another size than the image
            or with unknown ids, no pixel with a class, or a test id twice.
    """
    _require_labels(train)
    test = measurable(test, train.classes, max_broken=max_broken)
    train = sound(train, max_broken=max_broken)
    learnt, found = _pixels(train), _pixels(test)
    whole = max(len(train.records), len(test.records)) <= MOST_READ
    alone = [name for name, a, b in zip(train.classes, learnt, found, strict=True) if b and not a]
    if alone and whole:
        log.warning("%s has no pixel of %s to learn from", train.name, ", ".join(alone))
    warn_of_twins(train, test)
    return train, test


def measurable(
    test: DetectionDataset, classes: Sequence[str], *, max_broken: float
) -> DetectionDataset:
    """`test` without broken images within the tolerance; its classes are `classes` in any order.

    Raises as `ready`.
    """
    _require_labels(test)
    absent = sorted(set(classes) ^ set(test.classes))
    if absent:
        raise ConfigError(
            f"{test.name} and what is trained do not have the same classes: only one of them has "
            f"{', '.join(absent[:5])}; choose data that are labelled alike"
        )
    double = [id_ for id_, count in Counter(r.id for r in test.records).items() if count > 1]
    if double:
        raise UserError(f"{test.name}: two images are called {double[0]!r}; rename one of them")
    test = sound(test, max_broken=max_broken)
    _pixels(test)
    return test


def labels_of(record: ImageRecord) -> Tensor:
    """uint8 H x W, the classes of an image of a data set that is ready."""
    assert record.labels is not None
    return record.labels.read(record.height, record.width)


def _require_labels(dataset: DetectionDataset) -> None:
    if any(record.labels is None for record in dataset.records):
        raise ConfigError(
            f"outputs=semantic: {dataset.name} has no classes of pixels; choose data that have, "
            "such as detection=semantic"
        )


def _pixels(dataset: DetectionDataset) -> list[int]:
    """How many pixels each class has, in up to `MOST_READ` label images, evenly chosen."""
    step = max(1, -(-len(dataset.records) // MOST_READ))
    chosen = dataset.records[::step]
    if step > 1:
        log.info("%s: looking into %d of its label images", dataset.name, len(chosen))
    with ThreadPoolExecutor(_THREADS) as pool:
        total = sum(pool.map(_counted, chosen), torch.zeros(IGNORED + 1, dtype=torch.int64))
    counts = total[: len(dataset.classes)].tolist()
    if not sum(counts):
        raise UserError(
            f"{dataset.name}: no pixel has a class, so there is nothing to learn or to measure; "
            "annotate it, or choose other classes"
        )
    return counts


def _counted(record: ImageRecord) -> Tensor:
    try:
        return torch.bincount(labels_of(record).flatten(), minlength=IGNORED + 1)
    except BrokenImage:  # between its ends; counted where it is used
        return torch.zeros(IGNORED + 1, dtype=torch.int64)
