"""Which images of one part of the data are also in another, or twice in one: by content.

Files are compared by their length, then by their first bytes, then as a whole, so that hardly any
is read to its end; images in memory by their pixels.
"""

import contextlib
import hashlib
import logging
from collections.abc import Callable, Hashable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from visrep.data.dataset import ImageDataset

log = logging.getLogger("visrep")

HEAD = 4096  # bytes; most images differ in them
MOST_FILES = 100_000  # that are opened; of more an even part is compared, which is said


class Twin(NamedTuple):
    """The names of two images with the same content, such as one for training and one for tests."""

    first: str
    second: str


class _Member(NamedTuple):
    name: str
    path: Path
    of_test: bool
    length: int
    identity: tuple[int, int]  # the same for two names of one file on the disk


_Group = list[_Member]


def overlap(train: ImageDataset, test: ImageDataset) -> list[Twin]:
    """Images of `test` that are also in `train`: (name in train, name in test), in test's order.

    Data sets of a stranger's class, which have neither pixels in memory nor a `root`, are compared
    by their fingerprints alone: all images or none.
    """
    if train.images is not None and test.images is not None:
        if train.images.shape[1:] != test.images.shape[1:]:
            return []
        found = dict(zip(reversed(_pixels(train)), range(len(train) - 1, -1, -1), strict=True))
        return [
            Twin(train.file(found[digest]), test.file(i))
            for i, digest in enumerate(_pixels(test))
            if digest in found
        ]
    here, there = paths_of(train), paths_of(test)
    if here is not None and there is not None:
        return same_files(here, there)
    if train.fingerprint != test.fingerprint:
        return []
    return [Twin(train.file(i), test.file(i)) for i in range(len(test))]


def duplicates(dataset: ImageDataset) -> list[Twin]:
    """Images that are in `dataset` already under an earlier name: (earlier name, name)."""
    paths = paths_of(dataset)
    if dataset.images is not None:
        first: dict[str, int] = {}
        digests = enumerate(_pixels(dataset))
        pairs = [(first.setdefault(digest, i), i) for i, digest in digests]
        return [Twin(dataset.file(a), dataset.file(b)) for a, b in pairs if a != b]
    if paths is None:
        return []
    return repeated(paths)


def repeated(files: Mapping[str, Path]) -> list[Twin]:
    """`duplicates` of a set of files, name -> path."""
    groups = _alike(_members(files, of_test=False), lambda group: len(group) > 1)
    return [Twin(group[0].name, other.name) for group in groups for other in group[1:]]


def same_files(train: Mapping[str, Path], test: Mapping[str, Path]) -> list[Twin]:
    """`overlap` of two sets of files, name -> path. Files that cannot be read are no twins."""
    members = [*_members(train, of_test=False), *_members(test, of_test=True)]
    groups = _alike(members, lambda group: not group[0].of_test and group[-1].of_test)
    earlier = {other.name: group[0].name for group in groups for other in group if other.of_test}
    return [Twin(earlier[name], name) for name in test if name in earlier]


def overlap_line(twins: Sequence[Twin], *, train: str, test: str, images: int) -> str:
    """One line on the `twins` of `overlap`; `images` is the number of those in `test`."""
    named = ", ".join(
        first if first == second else f"{second} is {first}" for first, second in twins[:3]
    )
    more = f" and {len(twins) - 3} more" if twins[3:] else ""
    are = "all" if len(twins) == images else f"{len(twins)} of"
    return (
        f"{are} {images} test images of {test} are also training images of {train}, the same "
        f"content in both ({named}{more}): what is measured on them says nothing of new images; "
        "remove them from one of the two"
    )


def paths_of(dataset: ImageDataset) -> dict[str, Path] | None:
    """Name -> file of every image; None where the data set does not say where its files are."""
    root = getattr(dataset, "root", None)
    if root is None:
        return None
    return {name: Path(root) / name for name in map(dataset.file, range(len(dataset)))}


def _pixels(dataset: ImageDataset) -> list[str]:
    assert dataset.images is not None
    return [hashlib.sha256(image.contiguous().numpy().data).hexdigest() for image in dataset.images]


def _members(files: Mapping[str, Path], *, of_test: bool) -> Iterator[_Member]:
    """The files that are there and hold something."""
    for name, path in files.items():
        with contextlib.suppress(OSError):
            status = path.stat()
            identity = (status.st_dev, status.st_ino)
            if status.st_size:
                yield _Member(name, path, of_test, status.st_size, identity)


def _alike(members: Iterable[_Member], wanted: Callable[[_Group], bool]) -> list[_Group]:
    """The groups of files of one content that are `wanted`; each in the order of `members`."""
    groups = _split(list(members), lambda member: member.length, wanted)
    count = sum(map(len, groups))
    if count > MOST_FILES:
        groups = groups[:: -(-count // MOST_FILES)]
        part = sum(map(len, groups))
        log.info("looking for equal images: %d of %d files of equal length", part, count)
    for content in (_head, _whole):
        groups = [part for group in groups for part in _refined(group, content, wanted)]
    return groups


def _refined(
    group: _Group, content: Callable[[_Member], str], wanted: Callable[[_Group], bool]
) -> list[_Group]:
    same_file = len({member.identity for member in group}) == 1
    return [group] if same_file else _split(group, content, wanted)


def _split(
    group: _Group, key: Callable[[_Member], Hashable], wanted: Callable[[_Group], bool]
) -> list[_Group]:
    """`group` by `key`; of the parts those that are wanted, without files that cannot be read."""
    parts: dict[Hashable, _Group] = {}
    for member in group:
        with contextlib.suppress(OSError):
            parts.setdefault(key(member), []).append(member)
    return [part for part in parts.values() if wanted(part)]


def _head(member: _Member) -> str:
    with open(member.path, "rb") as file:
        return hashlib.sha256(file.read(HEAD)).hexdigest()


def _whole(member: _Member) -> str:
    with open(member.path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
