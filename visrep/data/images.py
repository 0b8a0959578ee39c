"""Image files, which come from anywhere, decoded with care: one reader for every command."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from visrep.data import decoding
from visrep.data.depth import Depth, to_bytes
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

# What a folder of images is searched for, as torchvision does.
SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

_OTHER_SUFFIXES = (".gif", ".jfif", ".jpe", ".jp2", ".heic", ".heif", ".avif", ".tga", ".dcm")

_SAMPLE = 8  # images of a data set that are looked at for its range, at most
_DARK = 8  # the share of the range that they must reach is one by this


def is_image_name(name: str) -> bool:
    """Whether a file of this name counts as an image: by its suffix, and hidden files never do.

    `._photo.jpg` beside `photo.jpg` is what macOS leaves on other file systems.
    """
    return name.lower().endswith(SUFFIXES) and not name.startswith(".")


class BrokenImage(UserError):
    """A file is not a readable image; `.file` names it."""

    advice = "repair or remove the file"

    def __init__(self, file: str | Path, reason: str) -> None:
        super().__init__(f"cannot read image {file}: {reason}; {self.advice}")
        self.file = str(file)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenImage"], tuple[str, str]]:
        return type(self), (self.file, self.reason)  # survives the way back from a worker


class UnknownRange(BrokenImage):
    """A file's values have no range of their own, and `depth` does not say it."""

    advice = (
        "say what is black and white with depth=[LOW,HIGH] or depth=per_image on the data node "
        "(data.depth=, detection.depth=)"
    )


def is_left_out(name: str) -> bool:
    """Whether a file is an image by its suffix, and of a kind that folders are not searched for."""
    return name.lower().endswith(_OTHER_SUFFIXES) and not name.startswith(".")


def read_image(path: str | Path, *, depth: Depth = "auto") -> Tensor:
    """Decode an image file: uint8 3 x H x W, RGB.

    Grey and palette images become RGB, transparency is dropped, the first picture of several is
    taken, and a rotation or mirroring noted in EXIF is applied. `depth` as `visrep.data.depth` has
    it.

    Raises:
        BrokenImage: the file is missing, no image, cut short, or larger than Pillow's limit on
            pixels (`PIL.Image.MAX_IMAGE_PIXELS`), which stays on.
        UnknownRange: it holds signed numbers, 32 bits or floats, and `depth` is auto.
    """
    values, full = _decode(path, exact=depth != "auto")
    pixels = to_bytes(values, full, depth)
    if pixels is None:
        raise UnknownRange(path, f"its pixels are {_kind(values)}, and need depth=")
    if pixels.ndim == 2:
        return torch.from_numpy(np.ascontiguousarray(pixels)).expand(3, -1, -1).contiguous()
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1)))


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) of what `read_image` gives, from the file's header. Raises as it does."""
    try:
        height, width, _ = decoding.header(path)
    except decoding.ERRORS as error:
        raise BrokenImage(path, decoding.reason(error)) from error
    return height, width


def lies_on_its_side(path: str | Path) -> bool:
    """Whether EXIF exchanges the height and width of a file as it is stored. Raises as above."""
    try:
        return decoding.header(path)[2] in decoding.ON_ITS_SIDE
    except decoding.ERRORS as error:
        raise BrokenImage(path, decoding.reason(error)) from error


def check_range(files: Sequence[Path], *, depth: Depth, name: str) -> None:
    """Warn when `depth` makes all of a few of a data set's `files` (nearly) black, or white.

    Raises:
        UnknownRange: one of them holds values that need a `depth`.
    """
    seen = []
    count = min(_SAMPLE, len(files))
    for file in [files[i * (len(files) - 1) // max(1, count - 1)] for i in range(count)]:
        try:
            seen.append((file, read_image(file, depth=depth)))
        except UnknownRange:
            raise
        except BrokenImage:
            continue  # counted where it is used
    if not seen:
        return
    if depth not in ("auto", "per_image") and all(int(image.min()) == 255 for _, image in seen):
        said = "is above"
    elif depth != "per_image" and all(int(image.max()) < 256 // _DARK for _, image in seen):
        said = "stays in the lowest eighth of"
    else:
        return
    top = max(float(_decode(file, exact=True)[0].max()) for file, _ in seen)
    shown = list(depth) if isinstance(depth, tuple) else "the range of their files"
    log.warning(
        "%s: each of %d images %s %s: they are (nearly) of one tone. The largest value is %g: "
        "perhaps depth=[0,%d] or depth=per_image on the data node (data.depth=, detection.depth=)",
        name,
        len(seen),
        said,
        shown,
        top,
        2 ** math.ceil(math.log2(max(top, 1) + 1)) - 1,
    )


def _decode(path: str | Path, *, exact: bool) -> tuple[np.ndarray, int | None]:
    try:
        return decoding.decode(path, exact=exact)
    except decoding.ERRORS as error:
        raise BrokenImage(path, decoding.reason(error)) from error


def _kind(values: np.ndarray) -> str:
    ends = f"from {values.min():g} to {values.max():g}"
    if values.dtype.kind == "f":
        return f"floating-point numbers, here {ends}"
    return f"signed or 32-bit numbers, here {ends}"


class BrokenImages:
    """Counts the broken images of a run and ends it when they are too many.

    A few unreadable files among a million must not end a run of days; many mean that something
    is wrong with the data. The same file counts once, however often it comes up.
    """

    def __init__(self, limit_share: float, total: int) -> None:
        """`limit_share`: tolerated share (0.001 = 0.1 %) of the `total` images of the data set."""
        if not 0 <= limit_share < 1:
            raise ConfigError(f"max_broken={limit_share} is no share; give 0 or more, less than 1")
        self.limit_share = limit_share
        self.total = total
        self.files: dict[str, str] = {}  # file -> why

    def record(self, file: str | Path, reason: str = "broken") -> None:
        """Note a broken image.

        Raises:
            UserError: more than `limit_share` of `total` are broken.
        """
        file = str(file)
        if file in self.files:
            return
        self.files[file] = reason
        count = len(self.files)
        if count > self.limit_share * self.total:
            named = ", ".join(f"{name} ({why})" for name, why in list(self.files.items())[:5])
            more = f" and {count - 5} more" if count > 5 else ""
            raise UserError(
                f"{count} of {self.total} images cannot be read, more than the tolerated "
                f"{100 * self.limit_share:g} %: {named}{more}; repair or remove them, or raise "
                "max_broken"
            )
        log.warning(
            "skipped image %s: %s (%d broken so far, %d tolerated)",
            file,
            reason,
            count,
            int(self.limit_share * self.total),
        )
