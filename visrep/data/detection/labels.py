"""Which training images of detection keep their boxes: a share, drawn, or a list of names.

Shares of 1, 2, 5 and 10 % of COCO's images are the semi-supervised literature's protocol (STAC,
arXiv 2005.04757, 4). There they are drawn at random; here the draw is also aware of classes, so
that a rare one is not lost by chance, and a smaller share lies within a larger one.
"""

import logging
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from visrep.data.classes import some
from visrep.data.detection.boxes import DetectionDataset, ImageRecord, trainable
from visrep.data.images import BrokenImage
from visrep.data.semantic.labels import IGNORED
from visrep.data.splits import describe_list, listed
from visrep.errors import ConfigError, UserError
from visrep.files import write_text

log = logging.getLogger("visrep")

_COLUMN = ("1", "+1", "0", "-1")  # of VOC's lists of one class; -1: the image is not of it


def labelled(dataset: DetectionDataset, labels: Any, *, draw: int) -> DetectionDataset:
    """`dataset` with those of its images whose boxes may be used, in its order.

    Args:
        labels: a share of the images that are trained on, more than 0 and at most 1; or the path
            of a list, see `read_list`.
        draw: seed of a share.

    Raises:
        ConfigError: `labels` is neither. UserError: the share is less than one image, or the list
            cannot be used or names no image that is trained on.
    """
    if isinstance(labels, str):
        chosen = read_list(labels, dataset)
        kept = replace(dataset, records=[dataset.records[i] for i in sorted(chosen)])
        _teaching(kept)
        return kept
    if isinstance(labels, bool) or not isinstance(labels, int | float) or not 0 < labels <= 1:
        raise ConfigError(
            f"labels={labels}: give a share of the training images, more than 0 and at most 1, or "
            "a file of their names"
        )
    if labels == 1:
        return dataset
    chosen = drawn(dataset, share=labels, seed=draw)
    return replace(dataset, records=[dataset.records[i] for i in sorted(chosen)])


def drawn(dataset: DetectionDataset, *, share: float, seed: int) -> list[int]:
    """Positions of floor(share x N) of the N images that are trained on, first drawn first.

    All images are put into one random order, of which a share is the beginning, so that with one
    seed a smaller share's images are among a larger one's. The order begins with an image of every
    class, the class of fewest images first, a class that has one already passed over.

    Raises:
        UserError: that is no image.
    """
    usable = {id(record) for record in _teaching(dataset)}
    places = [i for i, record in enumerate(dataset.records) if id(record) in usable]
    count = int(share * len(places) + 1e-6)  # 0.29 * 100 is 28.999...
    if not count:
        raise UserError(
            f"labels={share} of the {len(places)} images of {dataset.name} that have "
            f"{_teach(dataset)} is less than one image: give {1 / len(places):.2g} or more"
        )
    order = np.random.default_rng(seed).permutation(places).tolist()
    classes = {i: _classes(dataset.records[i]) for i in order}
    images = Counter(category for i in order for category in classes[i])
    first: dict[int, None] = {}
    covered: set[int] = set()
    for category in sorted(images, key=lambda category: (images[category], category)):
        if category not in covered:
            at = next(i for i in order if category in classes[i])
            first[at] = None
            covered |= classes[at]
    return [*first, *(i for i in order if i not in first)][:count]


def _teaching(dataset: DetectionDataset) -> list[ImageRecord]:
    """The images that are trained on: those with an object, a labelled keypoint where keypoints are
    read, or classes of pixels. Raises UserError as `trainable`."""
    if _of_pixels(dataset):
        return dataset.records
    return trainable(dataset, masks=False, keypoints=dataset.keypoints is not None)


def _teach(dataset: DetectionDataset) -> str:
    """What the images of `_teaching` have, in words."""
    if _of_pixels(dataset):
        return "classes of pixels"
    return "an object" if dataset.keypoints is None else "a labelled keypoint"


def _of_pixels(dataset: DetectionDataset) -> bool:
    return any(record.labels is not None for record in dataset.records)


def _classes(record: ImageRecord) -> set[int]:
    if record.labels is not None:
        try:
            found = record.labels.read(record.height, record.width).unique().tolist()
        except BrokenImage:  # judged where it is trained on
            return set()
        return {category for category in found if category != IGNORED}
    return {box.category for box in record.boxes if not box.crowd}


def names(dataset: DetectionDataset) -> list[str]:
    """What a list calls each image: the name of its file, or where two files have one, its id."""
    files = [Path(record.file).name for record in dataset.records]
    count = Counter(files)
    pairs = zip(files, dataset.records, strict=True)
    return [file if count[file] == 1 else record.id for file, record in pairs]


def write_list(path: Path, dataset: DetectionDataset, *, among: DetectionDataset) -> None:
    """Write the images of `dataset`, which are some of `among`, as `read_list` reads them."""
    known = dict(zip(map(id, among.records), names(among), strict=True))
    write_text(path, "".join(f"{known[id(record)]}\n" for record in dataset.records))


def read_list(path: str | Path, dataset: DetectionDataset) -> list[int]:
    """Positions of the images that a list names, one a line: by file, by file without its ending,
    or by id. VOC's lists are read too, those of one class without the images that are not of it.

    Raises:
        UserError: the list is missing, empty, names an image that the data set has not, or names
            one twice.
    """
    index: dict[str, int] = {}
    stems = [Path(record.file).stem for record in dataset.records]
    # The surest name last: it wins.
    for called in (stems, [record.id for record in dataset.records], names(dataset)):
        count = Counter(called)
        index |= {name: i for i, name in enumerate(called) if count[name] == 1}
    absent: set[int] = set()

    def find(line: str) -> int | None:
        name, _, column = line.rpartition(" ")
        if line in index or column not in _COLUMN:
            return index.get(line)
        at = index.get(name.strip())
        if at is not None and column == "-1":
            absent.add(at)
        return at

    where = f"{len(dataset.records)} images of {dataset.name}"
    return [i for i in listed(Path(path), find, where) if i not in absent]


def announce(
    train: DetectionDataset, kept: DetectionDataset, labels: float | str, *, draw: int
) -> dict[str, Any]:
    """Log what `labelled` has left of `train`.

    Returns what a record says of it: `labels` as asked for, `share` of the images, `label_images`,
    `label_boxes`, and the `draw`, or the list's name and sha256. Nothing where all are used.
    """
    if labels == 1:
        return {}
    usable = [_teaching(dataset) for dataset in (train, kept)]
    images, boxes = len(usable[1]), sum(len(record.boxes) for record in usable[1])
    found = [_per_class(dataset) for dataset in (train, kept)]
    log.info(
        "labels=%s: %d of %d images of %s that have %s, %s: %s",
        *(labels, images, len(usable[0]), train.name, _teach(train)),
        "images of each class" if _of_pixels(train) else f"{boxes} boxes",
        some([f"{train.classes[c]} {found[1][c]}" for c in range(len(train.classes))], 10),
    )
    lost = [train.classes[c] for c in sorted(found[0]) if not found[1][c]]
    if lost:
        log.warning(
            "warning: labels=%s leaves nothing of %s, of %d classes: these cannot be learnt",
            *(labels, some(lost), len(train.classes)),
        )
    about: dict[str, Any] = {
        "labels": labels,
        "share": images / len(usable[0]),
        "label_images": images,
        "label_boxes": boxes,
    }
    if isinstance(labels, str):
        return about | {f"list_{name}": value for name, value in describe_list(labels).items()}
    return about | {"draw": draw}


def _per_class(dataset: DetectionDataset) -> Mapping[int, int]:
    """Boxes of each class; images of each class where pixels have one."""
    if _of_pixels(dataset):
        return Counter(category for record in dataset.records for category in _classes(record))
    boxes = (box for record in dataset.records for box in record.boxes if not box.crowd)
    return Counter(box.category for box in boxes)
