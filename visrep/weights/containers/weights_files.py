"""Any weights file: what others saved is read without executing anything of it.

`read_tree` opens a file by its content: safetensors, torch's two containers, plain pickles; and
TensorFlow's bundles, which are several files. What comes back is a tree of dicts, lists, plain
values and records of tensors; the formats in `visrep.weights.formats` tell from its keys what it
is, and read the tensors they want.

All pickles go through `visrep.weights.containers.pickle_machine`. There is no second way for those
that torch calls safe: weights_only reads everything at once, and imports the classes that it
allows.
"""

import logging
import stat
from pathlib import Path

from visrep.errors import UserError
from visrep.weights.containers import seal
from visrep.weights.containers.pickle_files import read_pickle
from visrep.weights.containers.pickle_records import Refused
from visrep.weights.containers.safetensors_files import read_safetensors
from visrep.weights.containers.tf_bundle import find_bundle, read_bundle
from visrep.weights.containers.torch_files import read_zip
from visrep.weights.containers.tree import AGAIN, Tree

log = logging.getLogger("visrep")

_STRANGERS = (
    (b"<", "it looks like a web page: the download link led to a page, not to the file"),
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer: run git lfs pull to get the file itself",
    ),
    (b"\x89HDF", "it is an HDF5 file, which visrep does not read"),
    (b"\x1f\x8b", "it is a gzip archive: unpack it first"),
)
_PICKLES = (b"\x80", b"(dp", b"(lp", b"(d.", b"}", b"ccollections\n", b"c__builtin__\n")


def read_tree(path: str | Path) -> Tree:
    """Read a weights file of any container; its tensors are left in it.

    Raises:
        UserError: there is no such file; it is no weights file, is cut short or damaged; or it asks
            for code to be run.
    """
    path = Path(path)
    damaged = f"{path} is cut short or damaged: {AGAIN}"
    try:
        prefix = find_bundle(path)
        if prefix is not None:
            return read_bundle(prefix)
        path = _of_run(path) if path.is_dir() else path
        size, head = _look(path)
        if head.startswith(b"PK\x03\x04"):
            if seal.is_sealed(path) and (problem := seal.problem(path)):
                raise UserError(f"{path}: {problem}: {AGAIN}")
            return Tree(path, "torch (zip)", read_zip(path, size), size)
        if head[8:9] == b"{":
            tensors, metadata = read_safetensors(path)
            return Tree(path, "safetensors", tensors, size, metadata)
        if head.startswith(_PICKLES):
            with open(path, "rb") as stream:
                container, value = read_pickle(stream, path, size)
            return Tree(path, container, value, size)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except Refused as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # whatever a malformed file leads to
        raise UserError(damaged) from error
    for start, hint in _STRANGERS:
        if head.lstrip().startswith(start):
            raise UserError(f"{path} is no checkpoint: {hint}")
    raise UserError(
        f"{path} is no checkpoint that visrep reads: give a safetensors, a torch (.pth) or a "
        "pickle file"
    )


def _of_run(folder: Path) -> Path:
    """The encoder file of a run folder, else its newest whole snapshot, which is said."""
    encoder = folder / "encoder.safetensors"
    if encoder.is_file():
        return encoder
    for path in sorted(folder.glob("snapshots/step-*.pt"), reverse=True):
        if seal.problem(path):  # cut short by a full disk, for example; the one before it counts
            log.warning("%s: passed over the damaged %s", folder, path.name)
            continue
        log.warning("%s has no encoder.safetensors: its snapshot %s is read", folder, path.name)
        return path
    return folder


def _look(path: Path) -> tuple[int, bytes]:
    """Size and first bytes."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: check weights=") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder without encoder.safetensors: give a weights file")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not an ordinary file: give a weights file")
    if not status.st_size:
        raise UserError(f"{path} is empty: {AGAIN}")
    with open(path, "rb") as stream:
        return status.st_size, stream.read(64)
