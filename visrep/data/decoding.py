"""The numbers in an image file, as Pillow reads them, and which way up they are."""

import os
import stat
import struct
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from PIL import ExifTags, Image, ImageFile

# Only these are tried, so that no file reaches a rarer decoder (PostScript and its like) by a
# wrong name. A file's content counts, not its suffix.
_FORMATS = ("JPEG", "PNG", "PPM", "BMP", "TIFF", "WEBP", "GIF")

# Pillow reads colours of 16 bits as 8: under the first name it takes the high byte of each, under
# the second the low one. Grey with alpha has the bytes of four channels: grey, then alpha.
_OTHER_BYTE = {
    **{f"{mode};16B": f"{mode};16L" for mode in ("RGB", "RGBX", "RGBA")},
    **{f"{mode};16L": f"{mode};16B" for mode in ("RGB", "RGBX", "RGBA")},
    **{f"{mode};16N": f"{mode};16B" for mode in ("RGB", "RGBX", "RGBA")},
    "LA;16B": "RGBA",
}

# Grey of fewer bits comes from Pillow stretched to 255, by these factors.
_STRETCHED = {"L;4": 17, "L;2": 85}

# How EXIF says that an H x W (x 3) array is to be turned.
_TURNS = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: pixels[::-1, ::-1].swapaxes(0, 1),
    8: lambda pixels: np.rot90(pixels),
}

ON_ITS_SIDE = (5, 6, 7, 8)
_TURNED_BY_PILLOW = ("TIFF",)  # when it decodes them; their size in Pillow is the turned one

ERRORS = (
    OSError,  # missing, unreadable, unidentified, cut short
    SyntaxError,  # how Pillow reports a broken PNG
    ValueError,
    EOFError,
    struct.error,
    Image.DecompressionBombError,
    Image.DecompressionBombWarning,
)


def decode(path: str | Path, *, exact: bool) -> tuple[np.ndarray, int | None]:
    """The values of a file, turned as EXIF says, and `full` as `to_bytes` wants it.

    Returns:
        H x W, or H x W x 3. With `exact` the numbers as they are in the file; else colours of more
        than 8 bits have their high byte only, which is what Pillow gives.

    Raises:
        one of `ERRORS`: the file cannot be read; `reason` says why.
    """
    with _open(path) as image:
        kind, tile = image.format, image.tile[0] if image.tile else None
        values, full = _values(image, tile, exact)
        turn = None if kind in _TURNED_BY_PILLOW else _TURNS.get(_orientation(image))
    if exact and (other := _OTHER_BYTE.get(_raw_mode(tile))):
        with _open(path) as image:
            image.tile = [_renamed(each, other) for each in image.tile]
            values, full = _both_bytes(values, np.asarray(image), other)
    if values.dtype.kind == "f" and not np.isfinite(values).all():
        raise ValueError("some of its pixels are no finite numbers")
    return (turn(values) if turn else values), full


def header(path: str | Path) -> tuple[int, int, int]:
    """Height and width of what `decode` gives, and EXIF's orientation; raises as it does."""
    with _open(path) as image:
        orientation = _orientation(image)
        turned = orientation in ON_ITS_SIDE and image.format not in _TURNED_BY_PILLOW
        height, width = (image.width, image.height) if turned else (image.height, image.width)
    return height, width, orientation


def decode_ids(path: str | Path) -> np.ndarray | None:
    """The numbers in a grey or palette file, H x W, turned as EXIF says; None for colours.

    Of a palette these are the indices, of fewer than 8 bits the numbers as they are in the file.

    Raises:
        one of `ERRORS`: the file cannot be read; `reason` says why.
    """
    with _open(path) as image:
        if not _holds_ids(image):
            return None
        stretched = _STRETCHED.get(_raw_mode(image.tile[0] if image.tile else None), 1)
        turn = None if image.format in _TURNED_BY_PILLOW else _TURNS.get(_orientation(image))
        ids = np.asarray(image) // stretched if stretched > 1 else np.asarray(image)
    ids = ids.astype(np.int64)
    return turn(ids) if turn else ids


def header_of_ids(path: str | Path) -> tuple[int, int, bool]:
    """Height and width of what `decode_ids` gives, and whether it gives ids; raises as it does."""
    height, width, _ = header(path)
    with _open(path) as image:
        return height, width, _holds_ids(image)


def _holds_ids(image: ImageFile.ImageFile) -> bool:
    return image.mode in ("1", "L", "P", "I") or image.mode.startswith("I;16")


def reason(error: BaseException) -> str:
    """One line on one of `ERRORS`."""
    if isinstance(error, Image.DecompressionBombError | Image.DecompressionBombWarning):
        return f"it has more pixels than the limit of {Image.MAX_IMAGE_PIXELS}"
    if isinstance(error, Image.UnidentifiedImageError):
        return "it is no JPEG, PNG, PPM, BMP, TIFF, WebP or GIF image that Pillow can read"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _open(path: str | Path) -> ImageFile.ImageFile:
    if stat.S_ISFIFO(os.stat(path).st_mode):
        raise OSError("it is a pipe, no file")  # opening it would wait for a writer, for ever
    with warnings.catch_warnings():
        # Pillow only warns between one and two times its limit.
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        image = Image.open(path, formats=_FORMATS)
    assert isinstance(image, ImageFile.ImageFile)
    return image


def _values(image: ImageFile.ImageFile, tile: Any, exact: bool) -> tuple[np.ndarray, int | None]:
    """What Pillow reads, as an array, and the largest number that may be in it."""
    if image.mode == "F":
        return np.asarray(image), None
    if image.mode.startswith("I;16"):
        return np.asarray(image), 4095 if _raw_mode(tile) == "I;12" else 65535
    if image.mode == "I" and image.format != "PPM":
        whole = np.asarray(image)
        return whole.view(np.uint32) if _raw_mode(tile) == "I;32N" else whole, None
    if image.mode == "I":
        values, full = np.asarray(image), 65535
    else:
        # Pillow wants palettes with transparency to go by way of RGBA.
        bridge = image.mode == "P" and "transparency" in image.info
        values, full = np.array((image.convert("RGBA") if bridge else image).convert("RGB")), 255
    if exact and tile and tile.codec_name.startswith("ppm") and isinstance(tile.args, tuple):
        # Pillow stretches them to `full`; the header says what they were.
        most = tile.args[1]
        return np.rint(values * (most / full)).astype(np.int64), most
    return values, full


def _raw_mode(tile: Any) -> str:
    """How the pixels lie in the file, by Pillow's names."""
    args = tile.args if tile else ""
    return str(args[0] if isinstance(args, tuple) else args)


def _renamed(tile: Any, raw_mode: str) -> Any:
    args = (raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode
    return tile._replace(args=args)


def _both_bytes(high: np.ndarray, other: np.ndarray, raw_mode: str) -> tuple[np.ndarray, int]:
    """Colours of 16 bits from the two readings that `_OTHER_BYTE` tells of: H x W x 3."""
    low = other[..., [1, 1, 1]] if raw_mode == "RGBA" else other[..., :3]
    return high.astype(np.uint16) * 256 + low, 65535


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF's number, 1 where there is none or EXIF itself is damaged, as viewers have it."""
    try:
        if image.format == "PNG" and image.fp is not None and _exif_comes_late(image.fp):
            image.load()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what Pillow says of damaged EXIF
            # PngImageFile's own would decode every image to look for a late one.
            return int(Image.Image.getexif(image).get(ExifTags.Base.Orientation, 1))
    except Exception:  # nothing in the notes about a picture may make it unreadable
        return 1


def _exif_comes_late(file: Any) -> bool:
    """Whether a PNG has its EXIF behind the pixels; the file is left where it was."""
    begin = file.tell()
    try:
        file.seek(8)
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            if kind == b"eXIf":
                return True
            file.seek(length + 4, 1)  # the content and its checksum
        return False
    finally:
        file.seek(begin)
