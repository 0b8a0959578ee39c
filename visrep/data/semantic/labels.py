"""The class of each pixel: label images, and how the numbers in them become classes.

A label image is a grey or palette image of the size of its photograph whose numbers are ids, not
colours. Which id is which class is said by a `Coding`; pixels of no class are `IGNORED`, which
neither teaches nor counts.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

from visrep.data import decoding
from visrep.data.detection.classes import choose, nearest
from visrep.data.images import BrokenImage
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path

IGNORED = 255
MOST_CLASSES = 255  # a class is one byte

_SHOWN = 5  # unknown ids in a message


@dataclass(frozen=True)
class Coding:
    """Which class an id of a label image is.

    Attributes:
        classes: id -> index of the class, or `IGNORED`.
        about: where the ids come from, for messages: "VOC's 0 to 20, and 255".
    """

    classes: Mapping[int, int]
    about: str

    @property
    def is_plain(self) -> bool:
        """Whether an id is its class's index, or `IGNORED`."""
        return all(id_ == number for id_, number in self.classes.items())

    def decode(self, ids: np.ndarray, file: str | Path) -> Tensor:
        """H x W ids as classes, uint8.

        Raises:
            UserError: an id that is none; the message names it, its pixels and the file.
        """
        top = max(self.classes)
        table = np.full(top + 1, -1, dtype=np.int16)
        for id_, number in self.classes.items():
            table[id_] = number
        inside = (ids >= 0) & (ids <= top)
        found = np.where(inside, table[np.where(inside, ids, 0)], -1)
        if (found < 0).any():
            unknown, counts = np.unique(ids[found < 0], return_counts=True)
            shown = ", ".join(
                f"{id_} ({count} pixels)"
                for id_, count in list(zip(unknown, counts, strict=True))[:_SHOWN]
            )
            more = f" and {len(unknown) - _SHOWN} more" if len(unknown) > _SHOWN else ""
            raise UserError(
                f"label image {file} has unknown ids {shown}{more}; known are {self.about}: "
                "correct it, or the list of classes"
            )
        return torch.from_numpy(found.astype(np.uint8))


def coding_of(
    names: Mapping[int, str],
    chosen: Sequence[str] | str | None,
    *,
    void: Iterable[int] = (),
    where: str,
) -> tuple[list[str], Coding]:
    """The classes, and the coding of label images whose ids `names` names.

    Args:
        names: id -> class, in the order of the classes.
        chosen: some of the classes in another order; pixels of the rest are ignored. None = all.
        void: ids of no class, beside `IGNORED`.
        where: the source of the names, for messages.

    Raises:
        ConfigError: more classes than a byte holds, or `chosen` is empty, has a name twice or one
            that is none of them.
        UserError: none of `chosen` is a class.
    """
    classes = choose(list(names.values()), chosen, where)
    absent = [name for name in classes if name not in names.values()]
    if absent:
        raise ConfigError(
            f"detection.classes: {where} has no class {absent[0]}"
            f"{nearest(absent[0], list(names.values()))}; correct it"
        )
    if len(classes) > MOST_CLASSES or max(names) > 65535:
        raise ConfigError(f"{where}: {len(classes)} classes; at most {MOST_CLASSES} can be learned")
    index = {name: number for number, name in enumerate(classes)}
    known = {id_: index.get(name, IGNORED) for id_, name in names.items()}
    others = sorted({IGNORED, *void} - set(names))
    about = _spans(sorted(names)) + f", and {_spans(others)} for no class" * bool(others)
    return classes, Coding({**dict.fromkeys(others, IGNORED), **known}, f"{about} ({where})")


def _spans(ids: Sequence[int]) -> str:
    """0 to 20, 255."""
    spans: list[list[int]] = []
    for id_ in ids:
        if spans and id_ == spans[-1][1] + 1:
            spans[-1][1] = id_
        else:
            spans.append([id_, id_])
    return ", ".join(f"{a} to {b}" if b > a else f"{a}" for a, b in spans)


@dataclass(frozen=True)
class LabelImage:
    """The classes of an image's pixels as a file of ids."""

    file: str
    coding: Coding

    def read(self, height: int, width: int) -> Tensor:
        """uint8 H x W, classes or `IGNORED`.

        Raises:
            BrokenImage: the file cannot be read.
            UserError: it is in colours, of another size than height x width, or has unknown ids.
        """
        try:
            ids = decoding.decode_ids(self.file)
        except decoding.ERRORS as error:
            raise BrokenImage(self.file, decoding.reason(error)) from error
        if ids is None:
            raise _in_colours(self.file)
        _check_size(self.file, ids.shape[0], ids.shape[1], height, width)
        return self.coding.decode(ids, self.file)

    def check(self, height: int, width: int) -> None:
        """Raise as `read` where the file's header is enough to know."""
        try:
            own_height, own_width, ids = decoding.header_of_ids(self.file)
        except decoding.ERRORS as error:
            raise BrokenImage(self.file, decoding.reason(error)) from error
        if not ids:
            raise _in_colours(self.file)
        _check_size(self.file, own_height, own_width, height, width)

    def content(self) -> str:
        """What a change of the labels changes, wherever the file lies."""
        try:
            size: int | str = Path(self.file).stat().st_size
        except OSError:  # for the reader to judge
            size = "?"
        return f"{size} {sorted(self.coding.classes.items())}"


@dataclass(frozen=True)
class DrawnLabels:
    """The classes of an image's pixels from the masks of its objects; the rest is class 0.

    Attributes:
        masks: run-length code and class of each object; a later one covers an earlier one. A mask
            of class `IGNORED` (a crowd) covers only what is no object.
    """

    masks: Sequence[tuple[Mapping[str, Any], int]]

    def read(self, height: int, width: int) -> Tensor:
        """uint8 H x W, classes or `IGNORED`."""
        drawn = np.zeros((height, width), dtype=np.uint8)
        for code, number in self.masks:
            covered = rle.decode(code) > 0
            if number == IGNORED:
                covered &= drawn == 0
            drawn[covered] = number
        return torch.from_numpy(drawn)

    def check(self, height: int, width: int) -> None:
        """The masks are of the image's size already."""

    def content(self) -> str:
        """What a change of the labels changes."""
        return repr([(code["counts"], number) for code, number in self.masks])


def write_classes(path: str | Path, classes: Tensor) -> None:
    """Write uint8 H x W classes as a grey PNG, whole or not at all.

    Raises:
        UserError: it cannot be written.
    """
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        Image.fromarray(classes.numpy()).save(stream, format="PNG")


def _in_colours(file: str) -> UserError:
    return UserError(
        f"label image {file} is in colours: give one of ids, grey or with a palette, one number "
        "for each pixel"
    )


def _check_size(file: str, own_height: int, own_width: int, height: int, width: int) -> None:
    if (own_height, own_width) != (height, width):
        raise UserError(
            f"label image {file} is {own_width}x{own_height} pixels and its image {width}x{height};"
            " give both the same size"
        )
