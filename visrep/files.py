"""Files that are either whole or absent, and lines that are."""

import json
import logging
import os
import re
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visrep.errors import UserError

log = logging.getLogger("visrep")

# What `mkstemp` makes of the names below: a process that was killed leaves one behind.
_TEMPORARY = re.compile(r"\..*\.[a-z0-9_]{8}(\.[^.]+)?")


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; on success it is flushed to disk and renamed to `path`.

    When the body raises, the temporary file is removed and `path` is what it was before.

    Raises:
        UserError: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    suffix = "".join(path.suffixes[-1:])
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.stem}.", suffix=suffix, dir=path.parent)
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; check the folder and its space"
        ) from error
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        # mkstemp makes the file private; give it the mode that an ordinary open() would have.
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        if error.filename is not None and Path(error.filename) not in (temporary, path):
            raise
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; free some space or choose another "
            "folder, then run the command again"
        ) from error
    finally:
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_bytes(path: str | Path, data: bytes) -> None:
    """Write `data` to `path`, whole or not at all."""
    with atomic_path(path) as temporary, open(temporary, "wb") as stream:
        stream.write(data)


def write_text(path: str | Path, text: str) -> None:
    """Write `text` to `path` as UTF-8, whole or not at all."""
    write_bytes(path, text.encode())


def is_temporary(path: Path) -> bool:
    """Is it what a killed process has left of `atomic_path`?"""
    return _TEMPORARY.fullmatch(path.name) is not None and path.is_file()


def remove_temporaries(folder: str | Path) -> None:
    """Remove what killed processes have left of `atomic_path` in `folder`; nobody may write there.

    Raises:
        OSError: the folder cannot be read or written.
    """
    folder = Path(folder)
    for path in folder.iterdir() if folder.is_dir() else ():
        if is_temporary(path):
            path.unlink(missing_ok=True)


def append_line(path: str | Path, line: str) -> None:
    """Add a line of JSON to the file `path`.

    What a kill or a full disk has left of the line before is dropped, and said.

    Raises:
        UserError: the file cannot be written.
    """
    try:
        _mend_end(Path(path))
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line + "\n")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror or error}; check the folder and its space"
        ) from error


def _mend_end(path: Path) -> None:
    """Give the last line of `path` its end, or drop it where it is no whole JSON."""
    if not path.exists() or not path.stat().st_size:
        return
    with open(path, "r+b") as stream:
        stream.seek(-1, os.SEEK_END)
        if stream.read() == b"\n":
            return
        stream.seek(0)
        content = stream.read()
        begin = content.rfind(b"\n") + 1
        try:
            json.loads(content[begin:])
        except ValueError:
            log.warning("%s: its last line was cut short and is dropped", path)
            stream.truncate(begin)
        else:
            stream.write(b"\n")
