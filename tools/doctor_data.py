"""`visrep doctor data=imagefolder data.root=PATH`: what a training on these images would meet.

Every image is read once. What would make a training wrong is a problem, and the exit code is 3:
more broken files than are tolerated, images for training that are test images too, classes without
images or of one part only. The rest is told.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from statistics import median
from typing import Any, TypeVar

from visrep.data import decoding
from visrep.data.classes import class_counts, key, some
from visrep.data.dataset import ImageDataset
from visrep.data.overlap import Twin, duplicates, overlap, overlap_line, paths_of
from visrep.errors import ConfigError, UserError

T = TypeVar("T")

BLOCK = 1000  # files that are read at a time


def examine(
    parts: dict[str, Callable[[], ImageDataset | None]], *, max_broken: float, workers: int
) -> list[str]:
    """Print what the parts (`train`, `test`) of the data are; returns what is wrong, a clause each.

    Args:
        parts: what opens each of them, with broken images in it.
        max_broken: share of unreadable images that is tolerated.
        workers: threads that read.

    Raises:
        ConfigError: the data are not named as they must be.
    """
    problems: list[str] = []
    opened: dict[str, ImageDataset] = {}
    for part, dataset in opening(parts, problems):
        opened[part] = dataset
        print(f"\n{part}: {dataset.name}, {len(dataset)} images")
        for line in [*_class_lines(dataset), *_not_read(dataset)]:
            print(f"  {line}")
        broken: list[str] = []
        for line in _file_lines(dataset, max_broken, workers, problems, broken):
            print(f"  {line}")
        for line in _repeated(dataset):
            print(f"  {line}")
        if dataset.labels is not None:
            problems += _empty(dataset, broken)
    if len(opened) == 2:
        problems += _disagreements(*opened.values())
    return problems


def opening(
    parts: Mapping[str, Callable[[], T | None]], problems: list[str]
) -> Iterator[tuple[str, T]]:
    """The parts that are there; what keeps one from being opened is one of the `problems`."""
    for part, open_it in parts.items():
        try:
            dataset = open_it()
        except ConfigError:
            raise
        except UserError as error:
            print(f"\n{part}: cannot be opened")
            if str(error) not in problems:  # one folder for both parts, perhaps
                problems.append(str(error))
            continue
        if dataset is None:
            print(f"\n{part}: none")
        else:
            yield part, dataset


@dataclass
class Looks:
    """What was found in the files of a data set; names of files where they are to be named.

    Attributes:
        sizes: (height, width) -> images.
        broken: file -> why.
        turned: files that EXIF turns or mirrors.
        deep: files of more than 8 bits -> what their numbers are.
    """

    sizes: Counter[tuple[int, int]] = field(default_factory=Counter)
    broken: dict[str, str] = field(default_factory=dict)
    turned: list[str] = field(default_factory=list)
    deep: dict[str, str] = field(default_factory=dict)


def look(files: dict[str, Path], *, workers: int = 0) -> Looks:
    """Read the files, name -> path, with `workers` threads beside this one's."""
    found = Looks()
    with ThreadPoolExecutor(max(1, workers)) as threads:
        rest = iter(files.items())
        while block := list(islice(rest, BLOCK)):
            seen = threads.map(_read, (path for _, path in block))
            for (name, _), one in zip(block, seen, strict=True):
                if isinstance(one, str):
                    found.broken[name] = one
                    continue
                size, orientation, depth = one
                found.sizes[size] += 1
                if orientation != 1:
                    found.turned.append(name)
                if depth:
                    found.deep[name] = depth
    return found


def _read(path: Path) -> tuple[tuple[int, int], int, str] | str:
    """Size, orientation and kind of numbers ("" = 8 bits); or why it cannot be read."""
    try:
        _, _, orientation = decoding.header(path)
        values, full = decoding.decode(path, exact=True)
    except decoding.ERRORS as error:
        return decoding.reason(error)
    height, width = values.shape[:2]
    if full is None:
        depth = "floating-point" if values.dtype.kind == "f" else "signed or 32 bits"
    else:
        depth = "" if full <= 255 else f"{full.bit_length()} bits"
    return (height, width), orientation, depth


def _file_lines(
    dataset: ImageDataset,
    max_broken: float,
    workers: int,
    problems: list[str],
    broken: list[str],
) -> Iterator[str]:
    if dataset.images is not None:
        height, width = dataset.images.shape[-2:]
        yield f"{height} x {width} px (height x width), all of them, in memory"
        return
    files = paths_of(dataset)
    if files is None:
        yield "a data set of a class of its own: its files are not known here"
        return
    found = look(files, workers=workers)
    broken += found.broken
    yield from file_lines(dataset.name, files, found, max_broken, problems)


def file_lines(
    name: str, files: dict[str, Path], found: Looks, max_broken: float, problems: list[str]
) -> Iterator[str]:
    """Sizes, broken, turned and deep ones among the `files` (name -> path) of the data `name`."""
    yield from size_lines(found.sizes)
    if found.broken:
        share = len(found.broken) / len(files)
        named = some([f"{file} ({why})" for file, why in found.broken.items()], 3)
        line = f"{len(found.broken)} of {len(files)} images ({100 * share:.2g} %) cannot be read"
        yield f"broken: {line}: {named}"
        if share > max_broken:
            problems.append(f"{name}: {line}, more than max_broken={max_broken}: {named}")
    if found.turned:
        yield f"turned by EXIF, and read so: {len(found.turned)}: {some(found.turned, 3)}"
    for kind, count in Counter(found.deep.values()).items():
        names = [file for file, depth in found.deep.items() if depth == kind]
        yield f"deep: {count} of {kind}: {some(names, 3)}; see depth="


def size_lines(sizes: Counter[tuple[int, int]]) -> Iterator[str]:
    """One line on heights and widths."""
    if len(sizes) == 1:
        ((height, width),) = sizes
        yield f"{height} x {width} px (height x width), all of them"
    elif sizes:
        short = sorted(min(size) for size in sizes.elements())
        long = sorted(max(size) for size in sizes.elements())
        yield (
            f"{len(sizes)} sizes; short side {short[0]} to {short[-1]} px, {median(short):g} in "
            f"the median; long side {long[0]} to {long[-1]} px, {median(long):g} in the median"
        )


def _class_lines(dataset: ImageDataset) -> Iterator[str]:
    targets: Any = getattr(dataset, "targets", None)
    if dataset.classes is None or (dataset.labels is None and targets is None):
        yield "no labels"
        return
    counts = class_counts(dataset) if targets is None else (targets > 0).sum(dim=0).tolist()
    several = "" if targets is None else ", several in an image"
    order = sorted(range(len(counts)), key=lambda c: (counts[c], c))
    told = [f"{dataset.classes[c]} {counts[c]}" for c in order]
    if len(told) > 12:
        told = [*told[:4], "...", *told[-4:]]
    yield (
        f"{len(counts)} classes{several}, {min(counts)} to {max(counts)} images each, "
        f"{median(counts):g} in the median: {', '.join(told)}"
    )


def _empty(dataset: ImageDataset, broken: list[str]) -> Iterator[str]:
    """Classes without an image, or without one that can be read."""
    counts = class_counts(dataset)
    names = dataset.classes or []
    if empty := [name for name, n in zip(names, counts, strict=True) if not n]:
        yield f"{dataset.name} has no image of {some(empty)}"
    unread = set(broken)
    if not unread or dataset.labels is None:
        return
    lost = Counter(int(c) for i, c in enumerate(dataset.labels) if dataset.file(i) in unread)
    if gone := [names[c] for c, n in sorted(lost.items()) if n == counts[c]]:
        yield f"{dataset.name} has no image of {some(gone)} that can be read"


def _not_read(dataset: ImageDataset) -> Iterator[str]:
    """Files beside the images that are none of the data, by kind."""
    files, root = paths_of(dataset), getattr(dataset, "root", None)
    if files is None or root is None:
        return
    used = set(files.values())
    aside: Counter[str] = Counter()
    for path in Path(root).rglob("*"):
        if path not in used and path.is_file():
            hidden = any(name.startswith(".") for name in path.relative_to(root).parts)
            aside["hidden" if hidden else path.suffix or "without a suffix"] += 1
    if aside:
        kinds = ", ".join(f"{count} {kind}" for kind, count in aside.most_common(6))
        yield f"no part of it, though in its folder: {kinds}"


def _repeated(dataset: ImageDataset) -> Iterator[str]:
    twins = duplicates(dataset)
    if twins:
        yield f"twice in it: {len(twins)}: {twin_names(twins)}"
    if dataset.labels is None or not twins:
        return
    label = {dataset.file(i): int(c) for i, c in enumerate(dataset.labels)}
    torn = [twin for twin in twins if label[twin.first] != label[twin.second]]
    if torn:
        yield f"of these in two classes: {len(torn)}: {twin_names(torn)}"


def twin_names(twins: Iterable[Twin]) -> str:
    """The first three of the pairs."""
    return some([f"{second} is {first}" for first, second in twins], 3)


def _disagreements(train: ImageDataset, test: ImageDataset) -> Iterator[str]:
    """What is wrong between the two parts."""
    if train.classes is not None and test.classes is not None:
        here, there = ({key(name) for name in part.classes or []} for part in (train, test))
        for part, other, lacking in ((train, test, there - here), (test, train, here - there)):
            if lacking:
                yield f"{part.name} lacks classes of {other.name}: {some(sorted(lacking))}"
    twins = overlap(train, test)
    if twins:
        yield overlap_line(twins, train=train.name, test=test.name, images=len(test))
