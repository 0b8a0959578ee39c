"""What is looked at before a detector is trained or measured: files, sizes, classes, both parts.

A fault of the test images, or of one file among thousands, is better known before hours of training
than after them.
"""

import logging
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

from visrep.data.detection.boxes import DetectionDataset, ImageRecord, trainable
from visrep.data.detection.classes import nearest
from visrep.data.detection.keypoints import check_same
from visrep.data.detection.segmentation import box_mask
from visrep.data.endings import examine
from visrep.data.images import BrokenImage, BrokenImages, UnknownRange
from visrep.data.overlap import overlap_line, same_files
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

_THREADS = 8
_MANY = 2000  # images whose examination is announced
_EVERY = 5.0  # seconds between lines on how far it is


def ready(
    train: DetectionDataset,
    test: DetectionDataset,
    *,
    chosen: bool,
    masks: bool,
    max_broken: float,
    keypoints: bool = False,
) -> tuple[DetectionDataset, DetectionDataset]:
    """Both parts as a detector is trained and measured on them, with the classes of `train`.

    Broken images within the tolerance are left out and counted in `.broken`. Images in both parts,
    and objects without a mask where `masks` are wanted, are named in a warning; in training such
    objects are left aside as crowds are.

    Args:
        chosen: the user has named the classes.
        max_broken: share of either part that may be unreadable.
        keypoints: are learned; both parts must have the same.

    Raises:
        ConfigError: a chosen class that neither part has.
        UserError: too many broken images, an image of another size than annotated, an id twice,
            no object to train on or to be found, or a class that only `test` has.
    """
    test = matched(train, test, chosen=chosen)
    train = sound(train, max_broken=max_broken)
    trainable(train, masks=False, keypoints=keypoints)
    if keypoints:
        check_same(train, test.keypoints.names if test.keypoints else (), test.name)
    test = measurable(test, masks=masks, max_broken=max_broken, keypoints=keypoints)
    warn_of_twins(train, test)
    return (with_masks(train) if masks else train), test


def warn_of_twins(train: DetectionDataset, test: DetectionDataset) -> None:
    """One line when images of `test` are also in `train`."""
    twins = same_files(_paths(train), _paths(test))
    if twins:
        line = overlap_line(twins, train=train.name, test=test.name, images=len(test.records))
        log.warning("%s", line)


def measurable(
    test: DetectionDataset, *, masks: bool, max_broken: float, keypoints: bool = False
) -> DetectionDataset:
    """`test` without broken images within the tolerance, once it is sure that it can be measured.

    Raises UserError as `ready` does.
    """
    return require_objects(sound(test, max_broken=max_broken), masks=masks, keypoints=keypoints)


def require_objects(
    test: DetectionDataset, *, masks: bool, keypoints: bool = False
) -> DetectionDataset:
    """`test`, which has something to be found and no id twice. Raises UserError otherwise."""
    ids = Counter(record.id for record in test.records)
    double = [id_ for id_, count in ids.items() if count > 1]
    if double:
        raise UserError(f"{test.name}: two images are called {double[0]!r}; rename one of them")
    wanted = [b for r in test.records for b in r.boxes if not (b.crowd or b.difficult)]
    if not wanted:
        raise UserError(
            f"{test.name}: no image has an object to be found, so nothing can be measured; choose "
            "another test part, or annotate it"
        )
    if keypoints and not any(box.keypoints for box in wanted):
        raise UserError(f"{test.name}: no object has a labelled keypoint; use outputs=boxes")
    lost = sum(box.mask is None for box in wanted) if masks else 0
    if lost == len(wanted):
        raise UserError(f"{test.name}: no object has a mask; use outputs=boxes")
    if lost:
        log.warning(
            "%s: %d of %d objects have no mask and do not count in mask AP",
            test.name,
            lost,
            len(wanted),
        )
    return test


def matched(train: DetectionDataset, test: DetectionDataset, *, chosen: bool) -> DetectionDataset:
    """`test` with the classes of `train`, by name. Raises as `ready`."""
    learnt, found = _counts(train, crowds=False), _counts(test, crowds=True)
    alone = [name for name in found if not learnt[name]]
    if alone and (not chosen or set(alone) == set(found)):
        counts = ", ".join(
            f"{name} ({found[name]} boxes){nearest(name, list(learnt))}" for name in alone
        )
        raise UserError(
            f"{test.name} has classes that {train.name} has no box of, so they cannot be learned: "
            f"{counts}; correct the names, or choose the classes with detection.classes=[...] "
            "(one that is named there stays, without being learned)"
        )
    if alone:
        log.warning("%s has no box of %s to learn from", train.name, ", ".join(alone))
    absent = [name for name in train.classes if not (learnt[name] or found[name])]
    if absent and chosen:
        known = [*learnt, *found, *train.ignored, *test.ignored]
        named = ", ".join(f"{name}{nearest(name, known)}" for name in absent)
        raise ConfigError(f"detection.classes: neither part has a box of {named}; correct it")
    return reindexed(test, train.classes)


def reindexed(dataset: DetectionDataset, classes: Sequence[str]) -> DetectionDataset:
    """`dataset` with `classes`, of which it must have all that its boxes are of."""
    if dataset.classes == list(classes):
        return dataset
    index = {name: i for i, name in enumerate(classes)}
    records = [
        replace(
            record,
            boxes=[replace(b, category=index[dataset.classes[b.category]]) for b in record.boxes],
        )
        for record in dataset.records
    ]
    return replace(dataset, classes=list(classes), records=records)


def sound(dataset: DetectionDataset, *, max_broken: float) -> DetectionDataset:
    """`dataset` without its broken images, which `.broken` counts. Raises UserError as `ready`."""
    broken = BrokenImages(max_broken, len(dataset.records))
    good, sizes = [], []
    for record, problem in examined(dataset):
        if isinstance(problem, UnknownRange):
            raise problem
        if isinstance(problem, BrokenImage):
            broken.record(problem.file, problem.reason)
        elif problem is not None:
            sizes.append(problem)
        else:
            good.append(record)
    if sizes:
        more = f" (and {len(sizes) - 1} more of {len(dataset.records)} images)" if sizes[1:] else ""
        raise UserError(f"{sizes[0]}{more}")
    for file, count in Counter(record.file for record in dataset.records).items():
        if count > 1:
            log.warning("%s: %s is %d images; its objects are apart", dataset.name, file, count)
    return replace(dataset, records=good, broken=broken)


def examined(dataset: DetectionDataset) -> Iterator[tuple[ImageRecord, UserError | None]]:
    """Every image with what is wrong with its file, in order: a BrokenImage, another size."""
    count = len(dataset.records)
    if count > _MANY:
        log.info("%s: looking at the headers of %d images", dataset.name, count)
    said = time.monotonic()
    with ThreadPoolExecutor(_THREADS) as pool:
        problems = pool.map(_problem, dataset.records)
        for done, pair in enumerate(zip(dataset.records, problems, strict=True)):
            if time.monotonic() - said > _EVERY:
                log.info("%s: %d of %d images looked at", dataset.name, done, count)
                said = time.monotonic()
            yield pair


def _problem(record: ImageRecord) -> UserError | None:
    try:
        if record.broken:
            raise BrokenImage(record.file, record.broken)
        record.check_size(*examine(record.file, depth=record.depth))
        if record.labels is not None:
            record.labels.check(record.height, record.width)
    except UserError as error:
        return error
    return None


def with_masks(dataset: DetectionDataset) -> DetectionDataset:
    """`dataset` with the objects that have no mask as crowds, which are neither right nor wrong.

    Raises:
        UserError: no object has a mask.
    """
    boxes = [box for record in dataset.records for box in record.boxes if not box.crowd]
    lost = sum(box.mask is None for box in boxes)
    if not lost:
        return dataset
    if lost == len(boxes):
        raise UserError(f"{dataset.name}: no object has a mask to learn; use outputs=boxes")
    log.warning(
        "%s: %d of %d objects have no mask and are left out of training",
        dataset.name,
        lost,
        len(boxes),
    )
    records = [
        replace(
            record,
            boxes=[
                box
                if box.mask is not None
                else replace(box, crowd=True, mask=box_mask(box.xyxy, record.height, record.width))
                for box in record.boxes
            ],
        )
        for record in dataset.records
    ]
    return replace(dataset, records=records)


def _counts(dataset: DetectionDataset, *, crowds: bool) -> Counter[str]:
    """Boxes of each class that has any."""
    return Counter(
        dataset.classes[box.category]
        for record in dataset.records
        for box in record.boxes
        if crowds or not box.crowd
    )


def _paths(dataset: DetectionDataset) -> dict[str, Path]:
    return {record.file: Path(record.file) for record in dataset.records}
