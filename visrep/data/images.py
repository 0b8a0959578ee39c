"""Image files, which come from anywhere, decoded with care."""

import logging
import struct
import warnings
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

SUFFIXES = (".jpg", ".jpeg", ".png", ".ppm", ".pgm", ".bmp", ".tif", ".tiff", ".webp")

# Only these are tried, so that no file reaches a rarer decoder (PostScript and its like) by a
# wrong name.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP")


class BrokenImage(UserError):
    """A file is not a readable image; `.file` names it."""

    def __init__(self, file: str | Path, reason: str) -> None:
        super().__init__(f"cannot read image {file}: {reason}; repair or remove the file")
        self.file = str(file)
        self.reason = reason

    def __reduce__(self) -> tuple[type["BrokenImage"], tuple[str, str]]:
        return BrokenImage, (self.file, self.reason)  # survives the way back from a worker


def read_image(path: str | Path) -> Tensor:
    """Decode an image file: uint8 3 x H x W, RGB.

    Grey and palette images become RGB, 16-bit ones keep their high byte, transparency is dropped,
    a rotation noted in EXIF is not applied.

    Raises:
        BrokenImage: the file is missing, no image, cut short, or larger than Pillow's limit on
            pixels (`PIL.Image.MAX_IMAGE_PIXELS`), which stays on.
    """
    try:
        with _open(path) as image:
            if image.mode.startswith("I"):
                grey = np.asarray(image).clip(0, 65535) >> 8
                return torch.from_numpy(grey.astype(np.uint8)).expand(3, -1, -1).contiguous()
            if image.mode == "F":
                raise BrokenImage(path, "its pixels are floating-point numbers")
            # Pillow wants palettes with transparency to go by way of RGBA.
            bridge = image.mode == "P" and "transparency" in image.info
            pixels = np.array((image.convert("RGBA") if bridge else image).convert("RGB"))
    except _DECODING_ERRORS as error:
        raise BrokenImage(path, _reason(error)) from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def image_size(path: str | Path) -> tuple[int, int]:
    """(height, width) from the file's header, without decoding it. Raises as `read_image`."""
    try:
        with _open(path) as image:
            return image.height, image.width
    except _DECODING_ERRORS as error:
        raise BrokenImage(path, _reason(error)) from error


_DECODING_ERRORS = (
    OSError,  # missing, unreadable, unidentified, cut short
    SyntaxError,  # how Pillow reports a broken PNG
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def _open(path: str | Path) -> Image.Image:
    with warnings.catch_warnings():
        # Pillow only warns between one and two times its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        return Image.open(path, formats=_FORMATS)


def _reason(error: BaseException) -> str:
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more pixels than the limit of {Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is not a JPEG, PNG, PPM, BMP, TIFF or WebP image"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


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
