"""TensorFlow's checkpoint bundles, read without TensorFlow.

A bundle is `PREFIX.index`, a table in LevelDB's format that says for every variable where it lies,
and shards `PREFIX.data-00000-of-00001` of raw numbers. Formats:
https://github.com/google/leveldb/blob/main/doc/table_format.md and
tensorflow/core/protobuf/tensor_bundle.proto. Every block and every tensor carries a masked CRC32C,
which is checked when it is read; tensors are read one by one.
"""

import math
import re
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.errors import UserError
from visrep.weights.containers.stored import Span, Stored, as_type
from visrep.weights.containers.tree import AGAIN, Tree

CONTAINER = "TensorFlow bundle"
_MAGIC = 0xDB4775248B80FB57
_FOOTER = 48
_MASK = 0xA282EAD8
_LARGEST = 64 << 20  # bytes of an index; that of a ResNet-152 with all its slots is below 1 MiB
_LONGEST = 1024  # characters of a name
_RANK = 8
_DTYPES = {  # of tensorflow/core/framework/types.proto
    1: torch.float32,
    2: torch.float64,
    3: torch.int32,
    4: torch.uint8,
    5: torch.int16,
    6: torch.int8,
    9: torch.int64,
    10: torch.bool,
    14: torch.bfloat16,
    19: torch.float16,
}
_MEMBER = re.compile(r"(.+)\.(index|meta|data-\d{5}-of-\d{5})", re.DOTALL)
_LATEST = re.compile(r'^model_checkpoint_path:\s*"([^"\n]+)"', re.MULTILINE)


def find_bundle(path: Path) -> Path | None:
    """The prefix of the bundle that `path` means; None if it means none.

    `path` is a prefix (`model.ckpt-250228`), one of a bundle's files, or a folder with one bundle
    or with a file `checkpoint` that names one.

    Raises:
        UserError: the folder holds several bundles, or a SavedModel, or its `checkpoint` names a
            bundle that is not there; or the file's index is not there.
    """
    if path.is_dir():
        return _in_folder(path)
    if not path.exists() and _index(path).is_file():
        return path
    member = _MEMBER.fullmatch(path.name)
    if member is None:
        return None
    prefix = path.with_name(member[1])
    if _index(prefix).is_file():
        return prefix
    if path.exists():
        raise UserError(
            f"{path} is a part of a TensorFlow checkpoint: put {_index(prefix).name} beside it"
        )
    return None


def read_bundle(prefix: Path) -> Tree:
    """The variables of a bundle by name; those of no numeric type are given as text.

    Raises:
        UserError: a file is missing, damaged, of another version of the format or of TensorFlow 2.
        OSError: a file cannot be read.
    """
    index = _index(prefix)
    try:
        return _read(prefix, index)
    except UserError:
        raise
    except (ValueError, TypeError, IndexError, struct.error) as error:  # of a malformed index
        clause = f": {error}" if type(error) is ValueError else ""
        raise UserError(f"{index} is cut short or damaged{clause}; {AGAIN}") from error


def _in_folder(folder: Path) -> Path | None:
    note = folder / "checkpoint"
    if note.is_file():
        with open(note, encoding="utf-8", errors="replace") as stream:
            latest = _LATEST.search(stream.read(1 << 16))
        if latest:
            prefix = folder / latest[1].replace("\\", "/").rpartition("/")[2]
            if _index(prefix).is_file():
                return prefix
            raise UserError(f"{note} names {latest[1]}, but there is no {_index(prefix).name}")
    found = sorted(path.name.removesuffix(".index") for path in folder.glob("*.index"))
    if len(found) > 1:
        shown = ", ".join(found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        raise UserError(f"{folder} holds {len(found)} checkpoints, {shown}: give one of them")
    if not found and (folder / "saved_model.pb").is_file():
        raise UserError(f"{folder} holds a SavedModel: {_TAKE_TF1}")
    return folder / found[0] if found else None


_TAKE_TF1 = (
    "visrep reads TensorFlow 1 checkpoints; take the model.ckpt-N.index and "
    "model.ckpt-N.data-00000-of-00001 that are published beside it"
)


def _index(prefix: Path) -> Path:
    return prefix.with_name(f"{prefix.name}.index")


def _read(prefix: Path, index: Path) -> Tree:
    size = index.stat().st_size
    if size > _LARGEST:
        raise UserError(f"{index} has {size >> 20} MiB, more than any index of a checkpoint")
    entries = _table(index, index.read_bytes())
    header = dict(_fields(entries.pop(b"", b"")))
    shards = [_shard(prefix, i, header.get(1, 0)) for i in range(header.get(1, 0))]
    sizes = [shard.stat().st_size for shard in shards]
    variables: dict[str, Stored | str] = {}
    for key, value in entries.items():
        name = key.decode()
        if "OBJECT_GRAPH" in name or ".ATTRIBUTES" in name:
            raise UserError(f"{index} is an object checkpoint of TensorFlow 2: {_TAKE_TF1}")
        variables[name] = _variable(index, name, value, shards, sizes, big=header.get(2, 0) == 1)
    if sum(v.size for v in variables.values() if isinstance(v, Stored)) > sum(sizes):
        raise ValueError("its variables have more numbers than its data files")
    return Tree(prefix, CONTAINER, variables, sum(sizes))


def _shard(prefix: Path, number: int, count: int) -> Path:
    if count > 10_000:
        raise ValueError(f"it has {count} data files")
    shard = prefix.with_name(f"{prefix.name}.data-{number:05}-of-{count:05}")
    if not shard.is_file():
        raise UserError(f"{_index(prefix)} needs {shard.name} beside it, which is not there")
    return shard


def _variable(
    index: Path, name: str, value: bytes, shards: list[Path], sizes: list[int], *, big: bool
) -> Stored | str:
    entry: dict[int, Any] = {1: 0, 2: b"", 3: 0, 4: 0, 5: 0, 6: 0}
    for field, content in _fields(value):
        if field == 7:
            raise UserError(
                f"{index}: {name} is stored in slices (a partitioned variable), which visrep does "
                "not put together: save it whole with TensorFlow"
            )
        entry[field] = content
    dtype = _DTYPES.get(entry[1])
    if dtype is None:
        return f"a variable of TensorFlow's type {entry[1]}"
    shape = tuple(dict(_fields(dim)).get(1, 0) for field, dim in _fields(entry[2]) if field == 2)
    if len(shape) > _RANK or any(n > 1 << 40 for n in shape):
        raise ValueError(f"{name} is of no possible shape")
    if entry[5] != math.prod(shape) * dtype.itemsize:
        raise ValueError(f"{name} has {entry[5]} bytes, which is not its shape")
    if entry[3] >= len(shards) or entry[4] + entry[5] > sizes[entry[3]]:
        raise UserError(f"{index}: {name} lies beyond the end of its data file; {AGAIN}")
    return _Entry(Span(shards[entry[3]], entry[4], entry[5]), entry[6], shape, dtype, big=big)


class _Entry(Stored):
    def __init__(
        self, span: Span, crc: int, shape: tuple[int, ...], dtype: torch.dtype, *, big: bool
    ) -> None:
        self.span, self.crc, self.shape, self.dtype, self.big = span, crc, shape, dtype, big

    def read(self) -> Tensor:
        data = self.span.read()
        if masked_crc32c(data.numpy().data) != self.crc:
            raise ValueError("it does not agree with its checksum")
        return as_type(data, self.dtype, big_endian=self.big).reshape(self.shape)


def masked_crc32c(data: bytes | memoryview) -> int:
    """CRC32C (Castagnoli), turned and shifted as LevelDB stores it.

    Google's library takes 3 GB a second; the same in NumPy, by tables of 8 bytes, 0.06.
    """
    import google_crc32c  # here: nothing else needs it

    crc = 0
    for start in range(0, len(data), 1 << 20):  # it takes nothing but bytes: copy by the MiB
        crc = google_crc32c.extend(crc, bytes(data[start : start + (1 << 20)]))
    return (((crc >> 15) | (crc << 17)) + _MASK) & 0xFFFFFFFF


# The table and its messages. A short read is an IndexError or a struct.error of the caller's.


def _table(index: Path, data: bytes) -> dict[bytes, bytes]:
    """All entries, in the order of their keys."""
    if len(data) < _FOOTER or struct.unpack("<Q", data[-8:])[0] != _MAGIC:
        raise ValueError("it does not end as a table does")
    _, at = _handle(data, len(data) - _FOOTER)  # the metaindex, which bundles leave empty
    top, _ = _handle(data, at)
    entries: dict[bytes, bytes] = {}
    last: bytes | None = None
    for _, place in _block(index, data, *top):
        for key, value in _block(index, data, *_handle(place, 0)[0]):
            if last is not None and key <= last:
                raise ValueError("its names are out of order")
            entries[key] = value
            last = key
    return entries


def _handle(data: bytes, at: int) -> tuple[tuple[int, int], int]:
    """(offset, size) of a block, and the position after it."""
    offset, at = _varint(data, at)
    size, at = _varint(data, at)
    return (offset, size), at


def _block(index: Path, data: bytes, offset: int, size: int) -> Iterator[tuple[bytes, bytes]]:
    """Keys and values; a key begins with `shared` bytes of the one before it."""
    end = offset + size
    if end + 5 > len(data):
        raise ValueError("a block lies beyond its end")
    kind, crc = struct.unpack_from("<BI", data, end)
    if masked_crc32c(data[offset : end + 1]) != crc:
        raise ValueError("a block does not agree with its checksum")
    if kind:
        packing = "snappy" if kind == 1 else f"method {kind}"
        raise UserError(
            f"{index} is packed ({packing}), as TensorFlow's checkpoints are not: save it again "
            "with TensorFlow"
        )
    (restarts,) = struct.unpack_from("<I", data, end - 4)
    end -= 4 + 4 * restarts
    key, at = b"", offset
    if end < at:
        raise ValueError("a block is shorter than its table of restarts")
    while at < end:
        shared, at = _varint(data, at)
        fresh, at = _varint(data, at)
        length, at = _varint(data, at)
        if shared > len(key) or shared + fresh > _LONGEST or at + fresh + length > end:
            raise ValueError("a name in it is damaged")
        key = key[:shared] + data[at : at + fresh]
        at += fresh + length
        yield key, data[at - length : at]


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number in groups of 7 bits, the lowest first, and the position after it."""
    number = 0
    for shift in range(0, 64, 7):
        byte = data[at]
        at += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, at
    raise ValueError("a number in it is too long")


def _fields(message: bytes) -> Iterator[tuple[int, Any]]:
    """Field numbers and values of a protocol buffer: ints, or bytes of texts and messages."""
    at = 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            value, at = _varint(message, at)
            yield tag >> 3, value
            continue
        if kind == 2:
            length, at = _varint(message, at)
        elif kind in (1, 5):
            length = 8 if kind == 1 else 4
        else:
            raise ValueError("a message in it is damaged")
        if at + length > len(message):
            raise ValueError("a message in it is cut short")
        content = message[at : at + length]
        at += length
        yield tag >> 3, content if kind == 2 else int.from_bytes(content, "little")
