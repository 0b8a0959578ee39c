"""`visrep doctor detection=voc detection.root=PATH`: what a detector would be trained on.

Every image is read once. What would make a training or its numbers wrong is a problem, and the exit
code is 3: what `visrep detect` refuses, images in both parts, two spellings of a class. The rest is
told.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from pycocotools import mask as rle

from visrep.data.classes import some
from visrep.data.detection import Box, DetectionDataset, readiness, trainable
from visrep.data.detection.classes import spellings
from visrep.data.images import BrokenImage
from visrep.data.overlap import overlap_line, repeated, same_files
from visrep.errors import UserError
from visrep.tools.doctor_data import file_lines, look, opening, twin_names

SIZES = {"small": 32**2, "medium": 96**2}  # areas in pixels below which a box is called so; COCO's
_ROWS = 25  # classes in the table


def examine(
    parts: dict[str, Callable[[], DetectionDataset | None]],
    *,
    chosen: bool,
    max_broken: float,
    workers: int,
) -> list[str]:
    """Print what the parts (`train`, `test`) are; returns what is wrong, a clause each.

    Args:
        parts: what reads each of them.
        chosen: the user has named the classes.
        max_broken: share of unreadable images that is tolerated.
        workers: threads that read.

    Raises:
        ConfigError: the data are not named as they must be.
    """
    problems: list[str] = []
    opened: dict[str, DetectionDataset] = {}
    for part, dataset in opening(parts, problems):
        opened[part] = dataset
        boxes = sum(len(record.boxes) for record in dataset.records)
        print(f"\n{part}: {dataset.name}, {len(dataset.records)} images, {boxes} boxes")
        for line in _lines(dataset, max_broken, workers, problems):
            print(f"  {line}")
    if len(opened) == 2:
        problems += _disagreements(*opened.values(), chosen=chosen)
    return list(dict.fromkeys(problems))


def _lines(
    dataset: DetectionDataset, max_broken: float, workers: int, problems: list[str]
) -> Iterator[str]:
    yield from _table(dataset)
    yield from _kinds(dataset)
    files = {record.file: Path(record.file) for record in dataset.records}
    found = look(files, workers=workers)
    yield from file_lines(dataset.name, files, found, max_broken, problems)
    yield from _sizes(dataset, problems)
    for names in spellings([*dataset.classes, *dataset.ignored]):
        problems.append(f"{dataset.name}: {' and '.join(names)} are probably one class")
    if dataset.ignored:
        told = [f"{name} {count}" for name, count in dataset.ignored.items()]
        yield f"boxes of other classes, ignored: {some(told, 12)}"
    if dataset.skipped:
        yield f"{len(dataset.skipped)} faulty boxes or masks: {some(dataset.skipped, 3)}"
    twins = repeated(files)
    if twins:
        yield f"twice in it: {len(twins)} images: {twin_names(twins)}"


def _table(dataset: DetectionDataset) -> Iterator[str]:
    """Boxes of each class by their size; the most frequent class first."""
    counts: dict[str, Counter[str]] = {name: Counter() for name in dataset.classes}
    for record in dataset.records:
        for box in record.boxes:
            counts[dataset.classes[box.category]][_size(box)] += 1
    sizes = [*SIZES, "large"]
    width = max(12, *(len(name) for name in dataset.classes))
    yield f"{'class':<{width}} {'boxes':>8}" + "".join(f" {size:>8}" for size in sizes)
    order = sorted(counts, key=lambda name: -counts[name].total())
    for name in order[:_ROWS]:
        row = [counts[name].total(), *(counts[name][size] for size in sizes)]
        yield f"{name:<{width}}" + "".join(f" {count:>8}" for count in row)
    rest = order[_ROWS:]
    if rest:
        fewest = [f"{name} {counts[name].total()}" for name in rest[-3:]]
        yield f"and {len(rest)} more, the fewest of {', '.join(fewest)}"


def _size(box: Box) -> str:
    x0, y0, x1, y1 = box.xyxy
    drawn = (x1 - x0) * (y1 - y0) if box.mask is None else float(rle.area(box.mask))
    area = drawn if box.area is None else box.area
    return next((name for name, limit in SIZES.items() if area < limit), "large")


def _kinds(dataset: DetectionDataset) -> Iterator[str]:
    """Crowds, difficult objects, masks, images without a box, boxes that are there twice."""
    boxes = [box for record in dataset.records for box in record.boxes]
    bare = sum(not record.boxes for record in dataset.records)
    twice = sum(
        len(record.boxes) - len({(box.category, box.xyxy) for box in record.boxes})
        for record in dataset.records
    )
    counts = {
        "crowds": sum(box.crowd for box in boxes),
        "difficult": sum(box.difficult for box in boxes),
        "with a mask": sum(box.mask is not None for box in boxes),
        "there twice": twice,
        "images without a box": bare,
    }
    told = [f"{count} {what}" for what, count in counts.items() if count]
    if told:
        yield f"of these: {', '.join(told)}"


def _sizes(dataset: DetectionDataset, problems: list[str]) -> Iterator[str]:
    """Images of another size than annotated."""
    wrong = [
        str(problem)
        for _, problem in readiness.examined(dataset)
        if problem is not None and not isinstance(problem, BrokenImage)
    ]
    if wrong:
        yield f"{len(wrong)} images of another size than annotated"
        problems.append(f"{dataset.name}: {len(wrong)} images of another size: {wrong[0]}")


def _disagreements(
    train: DetectionDataset, test: DetectionDataset, *, chosen: bool
) -> Iterator[str]:
    """What is wrong with the parts as a pair, broken images apart."""
    for check in (
        lambda: readiness.matched(train, test, chosen=chosen),
        lambda: trainable(train, masks=False),
        lambda: readiness.require_objects(test, masks=False),
    ):
        try:
            check()
        except UserError as error:
            yield str(error)
    here, there = ({r.file: Path(r.file) for r in part.records} for part in (train, test))
    twins = same_files(here, there)
    if twins:
        yield overlap_line(twins, train=train.name, test=test.name, images=len(test.records))
