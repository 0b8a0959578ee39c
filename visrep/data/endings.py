"""Whether an image file is all there, by its first and last bytes: thousands are looked at in
seconds, where decoding them takes minutes."""

from pathlib import Path

from visrep.data.depth import Depth
from visrep.data.images import BrokenImage, image_size, read_image

_PADDING = b"\0\r\n \t"  # some programs write it behind the end
_TAIL = 256  # bytes


def examine(path: str | Path, *, depth: Depth = "auto") -> tuple[int, int]:
    """(height, width) of what `read_image` gives.

    A file that does not end as its kind does, or is of a kind without an end of its own, is decoded
    to see. What is wrong between the ends shows when the image is read.

    Raises:
        BrokenImage: it cannot be read, or is cut short.
    """
    size = image_size(path)
    if not _ends(path):
        read_image(path, depth=depth)
    return size


def _ends(path: str | Path) -> bool:
    """Whether the last bytes are the end of a JPEG, PNG or WebP file."""
    try:
        with open(path, "rb") as file:
            head = file.read(12)
            length = file.seek(0, 2)
            file.seek(max(0, length - _TAIL))
            tail = file.read().rstrip(_PADDING)
    except OSError as error:
        raise BrokenImage(path, error.strerror or "cannot be read") from error
    if head.startswith(b"\xff\xd8"):
        return tail.endswith(b"\xff\xd9")
    if head.startswith(b"\x89PNG"):
        return tail.endswith(b"IEND\xaeB\x60\x82")
    if head.startswith(b"RIFF"):
        return int.from_bytes(head[4:8], "little") + 8 <= length
    return False
