"""The lock of a run folder: one command at a time writes in it.

The system drops the lock with the process that holds it, however it ends, so a killed run bars
nothing. The file stays: who removed it could take it from under a command that has just opened it.
"""

import errno
import fcntl
import logging
import os
import socket
from pathlib import Path

from visrep import files
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

NAME = ".lock"

_held: list[int] = []  # open files of this process


def hold(folder: Path) -> None:
    """Make `folder` and lock it until `release`, or this process' end; clear killed runs' rests.

    A folder that this process holds already stays locked.

    Raises:
        ConfigError: another process holds it.
        UserError: it cannot be made, or written to.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        place = folder.resolve()
        if any(_is_open(place / NAME, descriptor) for descriptor in _held):
            return
        descriptor = os.open(place / NAME, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            _lock(descriptor, folder)
        except BaseException:
            os.close(descriptor)
            raise
        _held.append(descriptor)
        for each in (place, place / "snapshots"):
            files.remove_temporaries(each)
    except OSError as error:
        raise UserError(
            f"out={folder}: {error.strerror or error}; choose a folder that can be written to"
        ) from error


def release() -> None:
    """Let go of all folders that this process holds."""
    while _held:
        os.close(_held.pop())


def _is_open(path: Path, descriptor: int) -> bool:
    return path.exists() and os.path.samestat(path.stat(), os.fstat(descriptor))


def _lock(descriptor: int, folder: Path) -> None:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
            log.warning(
                "%s cannot be locked (%s): see to it that no other command writes there",
                folder,
                error.strerror,
            )
            return
        holder = os.pread(descriptor, 200, 0).decode(errors="replace").strip()
        raise ConfigError(
            f"{folder} is in use by another command ({holder or 'unknown'}): wait for it, or "
            "choose another out="
        ) from error
    os.ftruncate(descriptor, 0)
    os.pwrite(descriptor, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)


# A forked worker shares the open file: it would hold the lock on after this process' end.
os.register_at_fork(after_in_child=release)
