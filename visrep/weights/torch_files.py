"""Reading what others saved, without executing anything of it.

`read_tree` opens a file by its content, never by its name: safetensors, torch's zip archive, and
torch's container from before 1.6. What comes back is a tree of dicts, lists, plain values and
tensors; the formats in `visrep.weights.formats` tell from its keys what it is.
"""

import json
import pickle
import re
import stat
import struct
import warnings
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import safetensors
import torch
from torch import Tensor

from visrep.errors import UserError

AGAIN = "copy or download it again"
DEPTH = 12  # of nested containers in a tree; no checkpoint comes near
_LEGACY = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."  # a pickle of torch's magic number
_STRANGERS = (
    (b"<", "it looks like a web page: the download link led to a page, not to the file"),
    (
        b"version https://git-lfs",
        "it is a Git LFS pointer: run git lfs pull to get the file itself",
    ),
    (b"\x89HDF", "it is an HDF5 file, which visrep does not read"),
    (b"\x1f\x8b", "it is a gzip archive: unpack it first"),
    (b"\x80", "it is a pickle that torch did not write"),
)
_DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class Tree:
    """What a weights file holds.

    Attributes:
        path: where it was read, for messages.
        container: safetensors, torch (zip) or torch (before 1.6).
        value: nested dicts, lists, plain values and tensors.
        metadata: of a safetensors file, else empty.
        size: bytes of the file; no honest tensor is larger.
    """

    path: Path
    container: str
    value: Any
    size: int
    metadata: dict[str, str] = field(default_factory=dict)


def read_tree(path: str | Path) -> Tree:
    """Read a weights file of any container.

    Raises:
        UserError: there is no such file; it is no weights file, is cut short or damaged; or it asks
            for code to be run.
    """
    path = Path(path)
    try:
        size, head = _look(path)
        if head.startswith(b"PK\x03\x04"):
            _check_archive(path, size)
            return Tree(path, "torch (zip)", _torch_load(path, mmap=True), size)
        if head.startswith(_LEGACY):
            return Tree(path, "torch (before 1.6)", _torch_load(path, mmap=False), size)
        if head[8:9] == b"{":
            tensors, metadata = _read_safetensors(path)
            return Tree(path, "safetensors", tensors, size, metadata)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    for start, hint in _STRANGERS:
        if head.lstrip().startswith(start):
            raise UserError(f"{path} is no checkpoint: {hint}")
    raise UserError(
        f"{path} is no checkpoint that visrep reads: give a safetensors or a torch (.pth) file"
    )


def check_tensor(tree: Tree, name: str, value: object) -> Tensor:
    """`value`, if it is a tensor that weights can be read from.

    Raises:
        UserError: it is no dense floating-point tensor, or claims more bytes than the file has.
    """
    if not isinstance(value, Tensor) or value.layout is not torch.strided or value.is_quantized:
        raise UserError(f"{tree.path}: {name} is no dense tensor; {AGAIN}")
    if not value.is_floating_point():
        raise UserError(f"{tree.path}: {name} holds {value.dtype}, not floating-point weights")
    if value.device.type != "cpu" or value.numel() * value.element_size() > tree.size:
        raise UserError(f"{tree.path}: {name} claims more data than the file holds; {AGAIN}")
    return value


def float_tensor(tree: Tree, name: str, value: object) -> Tensor:
    """`value` as a contiguous float32 tensor of its own, detached from the file.

    Raises:
        UserError: see `check_tensor`.
    """
    value = check_tensor(tree, name, value)
    if tree.container == "safetensors" and value.dtype == torch.float32:
        return value  # read into memory of its own
    return value.detach().to(torch.float32, copy=True, memory_format=torch.contiguous_format)


def save_torch(
    value: object, stream: BinaryIO, *, watch: Callable[[bytes], None] | None = None
) -> None:
    """`torch.save`, whose failed writes are the system's errors; `watch` sees all bytes.

    torch reports a full disk as an internal error about positions in its archive.

    Raises:
        OSError: a write failed.
    """
    watched = _Watched(stream, watch)
    try:
        torch.save(value, watched)  # type: ignore[arg-type]
    except RuntimeError:
        if watched.error is not None:
            raise watched.error from None
        raise


class _Watched:
    def __init__(self, stream: BinaryIO, watch: Callable[[bytes], None] | None) -> None:
        self.stream, self.watch = stream, watch
        self.error: OSError | None = None

    def write(self, data: bytes) -> int:
        try:
            written = self.stream.write(data)
        except OSError as error:
            self.error = error
            raise
        if self.watch is not None:
            self.watch(data)
        return written

    def flush(self) -> None:
        self.stream.flush()


def tensors_in(value: object) -> Iterator[tuple[str, Tensor]]:
    """(key path, tensor) of every tensor in nested dicts and lists; key paths are joined by '/'.

    A container is visited once, however often it is referred to.
    """
    seen: set[int] = set()

    def walk(value: object, prefix: str, depth: int) -> Iterator[tuple[str, Tensor]]:
        if isinstance(value, Tensor):
            yield prefix, value
        elif isinstance(value, dict | list | tuple) and depth < DEPTH and id(value) not in seen:
            seen.add(id(value))
            for key, item in value.items() if isinstance(value, dict) else enumerate(value):
                yield from walk(item, f"{prefix}/{key}" if prefix else str(key), depth + 1)

    return walk(value, "", 0)


def _look(path: Path) -> tuple[int, bytes]:
    """Size and first bytes."""
    try:
        status = path.stat()
    except FileNotFoundError as error:
        raise UserError(f"there is no file {path}: check weights=") from error
    if stat.S_ISDIR(status.st_mode):
        raise UserError(f"{path} is a folder: give the weights file in it")
    if not stat.S_ISREG(status.st_mode):
        raise UserError(f"{path} is not an ordinary file: give a weights file")
    if not status.st_size:
        raise UserError(f"{path} is empty: {AGAIN}")
    with open(path, "rb") as stream:
        return status.st_size, stream.read(64)


# torch


def _check_archive(path: Path, size: int) -> None:
    """torch reads its zip archives without looking at checksums or at what is packed in them."""
    damaged = f"{path} is cut short or damaged: {AGAIN}"
    try:
        with zipfile.ZipFile(path) as archive:
            entries = archive.infolist()
            names = [entry.filename for entry in entries]
            if not any(name.endswith("/data.pkl") for name in names):
                raise UserError(f"{path} is a zip archive, but torch did not write it")
            if any(name.endswith("/constants.pkl") for name in names):
                raise UserError(
                    f"{path} is a TorchScript archive, which holds code: save the state dict alone"
                )
            if len(set(names)) < len(names):
                raise UserError(damaged)
            if (
                any(entry.compress_type != zipfile.ZIP_STORED for entry in entries)
                or sum(entry.file_size for entry in entries) > size
            ):
                raise UserError(
                    f"{path} is a zip archive with packed entries, which torch does not write; "
                    "it is not opened"
                )
            # torch can be told to write no checksums; it then writes 0 for every entry.
            if any(entry.CRC for entry in entries) and archive.testzip() is not None:
                raise UserError(damaged)
    except UserError:
        raise
    except OSError:
        raise
    except Exception as error:  # zipfile raises many kinds on a malformed archive
        raise UserError(damaged) from error


def _torch_load(path: Path, *, mmap: bool) -> Any:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if mmap and not path.name.endswith(".safetensors"):  # torch would go by the name
                return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
            with open(path, "rb") as stream:
                return torch.load(stream, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        wanted = re.search(r"GLOBAL ([\w.]+)", str(error))
        if wanted is None:
            raise UserError(f"{path} is cut short or damaged: {AGAIN}") from error
        raise UserError(
            f"{path} asks to run {wanted[1]} when it is opened, which visrep never does: save its "
            "state dict alone, with torch.save(model.state_dict(), ...)"
        ) from error
    except Exception as error:  # whatever a malformed file makes torch raise
        raise UserError(f"{path} is cut short or damaged: {AGAIN}") from error


# safetensors


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata.

    The library checks the header; the tensors are read one by one into memory of their own, since
    it would map the file, whose pages count until it is closed and follow whoever writes to it.
    """
    try:
        with safetensors.safe_open(path, framework="pt") as opened:
            metadata = opened.metadata() or {}
        with open(path, "rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header = json.loads(stream.read(length))
            header.pop("__metadata__", None)
            tensors = {}
            for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
                if entry["dtype"] not in _DTYPES:
                    raise UserError(f"{path}: {name} is of type {entry['dtype']}, not weights")
                begin, end = entry["data_offsets"]
                stream.seek(8 + length + begin)
                data = np.fromfile(stream, np.uint8, end - begin)
                tensor = torch.from_numpy(data).view(_DTYPES[entry["dtype"]])
                tensors[name] = tensor.reshape(entry["shape"])
    except (UserError, OSError):
        raise
    except Exception as error:  # the library's own error class, and whatever a bad header causes
        raise UserError(f"{path} is cut short or damaged: {AGAIN}") from error
    return tensors, metadata
