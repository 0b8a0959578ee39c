"""Training snapshots: private, resumable state, whole or not counted.

A snapshot is what `torch.save` writes, followed by one line with the sha256 of all before it. The
line is the last thing written and the rename comes after the flush, so a file that lacks the line,
or does not agree with it, was cut short or has changed since, and the one before it is used. Only
tensors and plain values are stored: nothing in a snapshot is ever executed when it is read.
"""

import hashlib
import logging
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from visrep import dist
from visrep.errors import UserError
from visrep.files import atomic_path
from visrep.weights.containers import seal
from visrep.weights.containers.torch_files import save_torch

log = logging.getLogger("visrep")

_NAME = re.compile(r"step-(\d+)\.pt")
_VALUES = (str, int, float, bool, type(None))


class _Damaged(Exception):
    """Why a snapshot cannot be used."""


def save(
    folder: str | Path,
    step: int,
    state: dict[str, Any],
    *,
    keep: int = 2,
    spare: int | None = None,
) -> None:
    """Write `state` as that of `step`; remove all but the newest `keep` and that of step `spare`.

    Only the main process writes; on the others this does nothing. `state` holds tensors and plain
    values (dict, list, tuple, str, int, float, bool, None) only.

    Raises:
        TypeError: something else is in `state`; it could not be read back.
        UserError: the folder cannot be written, or the disk is full; older snapshots remain.
    """
    if not dist.is_main():
        return
    _require_plain(state, "state")
    folder = Path(folder)
    with atomic_path(folder / f"step-{step:09d}.pt") as temporary, open(temporary, "wb") as stream:
        _write(state, stream)
    for old, path in _snapshots(folder)[max(keep, 1) :]:
        if old != spare:
            path.unlink(missing_ok=True)
    # A process that was killed while it wrote has left its temporary file.
    for path in folder.glob(".step-*.pt"):
        path.unlink(missing_ok=True)


def latest(folder: str | Path, *, required: bool = False) -> tuple[int, dict[str, Any]] | None:
    """The newest whole snapshot as (step, state) with tensors on the CPU; None if there is none.

    Damaged ones are passed over; one log line names them and what is used instead.

    Raises:
        UserError: a snapshot may not be read (permissions); or there is none though one is
            `required`.
    """
    damaged = []
    for step, path in _snapshots(Path(folder)):
        try:
            state = _read(path)
        except _Damaged as error:
            damaged.append(f"{path.name} ({error})")
            continue
        if damaged:
            log.warning(
                "%s: skipped the damaged %s; going on from %s",
                folder,
                " and ".join(damaged),
                path.name,
            )
        return step, state
    if required:
        why = f"all are damaged: {' and '.join(damaged)}" if damaged else "there is none"
        raise UserError(
            f"resume=must: no snapshot in {folder} can be gone on with ({why}); use resume=auto to "
            "start from the beginning"
        )
    if damaged:
        log.warning(
            "%s: skipped the damaged %s; there is no other, so the run starts from the beginning",
            folder,
            " and ".join(damaged),
        )
    return None


def newest(folder: str | Path) -> int | None:
    """The step of the newest snapshot, whole or not; None if there is none."""
    return next((step for step, _ in _snapshots(Path(folder))), None)


def set_aside(folder: str | Path, *, after: int | None) -> None:
    """Rename the snapshots of later steps than `after` (None: all) to `collapsed-*.pt`.

    A resumed run does not take those: it goes on from what was good.
    """
    for step, path in _snapshots(Path(folder)):
        if after is None or step > after:
            path.rename(path.with_name(path.name.replace("step-", "collapsed-", 1)))


def _snapshots(folder: Path) -> list[tuple[int, Path]]:
    """(step, path), newest first."""
    found = []
    for path in folder.glob("step-*.pt"):
        match = _NAME.fullmatch(path.name)
        if match:
            found.append((int(match[1]), path))
    return sorted(found, reverse=True)


def _write(state: dict[str, Any], stream: BinaryIO) -> None:
    sha256 = hashlib.sha256()
    save_torch(state, stream, watch=sha256.update)
    stream.write(seal.seal_of(sha256.hexdigest()))


def _read(path: Path) -> dict[str, Any]:
    try:
        _check_seal(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except PermissionError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; check its permissions") from error
    except OSError as error:
        raise _Damaged(error.strerror or str(error)) from error
    except _Damaged:
        raise
    except Exception as error:  # whatever a foreign file makes the unpickler raise
        raise _Damaged("not a snapshot of this version of visrep") from error
    if not isinstance(state, dict):
        raise _Damaged("not a snapshot")
    return state


def _check_seal(path: Path) -> None:
    problem = seal.problem(path)
    if problem:
        raise _Damaged(problem)


def _require_plain(value: object, where: str) -> None:
    # Types are compared exactly: a NumPy float is a float, but is not stored as one.
    if type(value) in (dict, OrderedDict):
        for key, item in value.items():  # type: ignore[attr-defined]
            _require_plain(key, f"a key of {where}")
            _require_plain(item, f"{where}[{key!r}]")
    elif type(value) in (list, tuple):
        for index, item in enumerate(value):  # type: ignore[arg-type, var-annotated]
            _require_plain(item, f"{where}[{index}]")
    elif type(value) not in _VALUES and not isinstance(value, Tensor):
        raise TypeError(f"{where} is a {type(value).__name__}: a snapshot holds plain values only")
