"""The line that visrep's snapshots end in: a sha256 of all before it."""

import hashlib
from pathlib import Path

SEAL = b"\nvisrep-snapshot/1 sha256 "
SEAL_BYTES = len(SEAL) + 64 + 1
_CHUNK = 1 << 20


def seal_of(sha256: str) -> bytes:
    """The line behind a content with the hexadecimal `sha256`."""
    return SEAL + sha256.encode() + b"\n"


def is_sealed(path: Path) -> bool:
    """Whether the file ends in such a line. Raises OSError."""
    with open(path, "rb") as stream:
        stream.seek(max(path.stat().st_size - SEAL_BYTES, 0))
        return stream.read(len(SEAL)) == SEAL


def problem(path: Path) -> str | None:
    """Why the file is not what was sealed; None if it is. Raises OSError."""
    size = path.stat().st_size
    left, sha256 = max(size - SEAL_BYTES, 0), hashlib.sha256()
    with open(path, "rb") as stream:
        while left and (chunk := stream.read(min(left, _CHUNK))):
            sha256.update(chunk)
            left -= len(chunk)
        seal = stream.read()
    if size < SEAL_BYTES or not seal.startswith(SEAL):
        return f"cut short at {size} bytes"
    if seal != seal_of(sha256.hexdigest()):
        return "its content has changed since it was written"
    return None
