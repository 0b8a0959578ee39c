"""torch's two containers: the zip archive, and the one from before torch 1.6.

Both hold a pickle that puts the tensors together out of storages, which lie beside it as raw bytes.
torch's own reader is not asked, not even with weights_only: that one refuses a file for a class it
does not know, reads storages that nobody wants, and imports what it knows.
"""

import math
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.weights.containers.pickle_functions import FUNCTIONS, record
from visrep.weights.containers.pickle_machine import Input, Machine
from visrep.weights.containers.pickle_records import Damaged, Global, Inert, Refused
from visrep.weights.containers.stored import Span, Stored, as_type, in_memory_of_its_own
from visrep.weights.containers.zip_entries import Entry, entries_of

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older container
_PROTOCOL = 1001
_CHUNK = 1 << 22
_STORAGES = {
    "Double": torch.float64,
    "Float": torch.float32,
    "Half": torch.float16,
    "BFloat16": torch.bfloat16,
    "Long": torch.int64,
    "Int": torch.int32,
    "Short": torch.int16,
    "Char": torch.int8,
    "Byte": torch.uint8,
    "Bool": torch.bool,
    "ComplexFloat": torch.complex64,
    "ComplexDouble": torch.complex128,
}


class Storage:
    """Bytes that tensors are views of.

    Attributes:
        dtype: of its numbers; None where each tensor says its own.
        size: in bytes.
        span: where they are.
    """

    def __init__(self, dtype: torch.dtype | None, size: int) -> None:
        self.dtype, self.size = dtype, size
        self.span: Span | None = None
        self.crc = 0  # 0: none is known
        self.big_endian = False

    def read(self, begin: int, size: int) -> Tensor:
        """`size` bytes from `begin` on, after a check of all that the checksum covers."""
        if self.span is None:
            raise ValueError("its data are missing")
        data = self.span.read(begin, size)
        if self.crc:
            whole = size == self.span.size
            crc = zlib.crc32(data.numpy().data) if whole else crc_of(self.span)
            if crc != self.crc:
                raise ValueError("it does not agree with its checksum")
            self.crc = 0
        return data


def crc_of(span: Span) -> int:
    crc = 0
    for begin in range(0, span.size, _CHUNK):
        crc = zlib.crc32(span.read(begin, min(_CHUNK, span.size - begin)).numpy().data, crc)
    return crc


class View(Stored):
    """A tensor on a storage; offset and strides are in numbers, as torch counts."""

    def __init__(
        self,
        storage: Storage,
        dtype: torch.dtype,
        offset: int,
        shape: tuple[int, ...],
        strides: tuple[int, ...],
    ) -> None:
        self.storage, self.dtype, self.shape, self.strides = storage, dtype, shape, strides
        self.offset = offset
        numbers = (offset, *shape, *strides)
        if not all(isinstance(n, int) and 0 <= n < 1 << 60 for n in numbers) or len(shape) > 32:
            raise Damaged
        last = sum((n - 1) * stride for n, stride in zip(shape, strides, strict=True))
        self.numbers = last + 1 if math.prod(shape) else 0  # from the first to the last
        if (offset + self.numbers) * dtype.itemsize > storage.size:
            raise Damaged

    def read(self) -> Tensor:
        width = self.dtype.itemsize
        if not self.numbers:
            return torch.empty(self.shape, dtype=self.dtype)
        data = self.storage.read(self.offset * width, self.numbers * width)
        data = as_type(data, self.dtype, big_endian=self.storage.big_endian)
        return in_memory_of_its_own(data.as_strided(self.shape, self.strides))


# What torch's pickles call


def _tensor(place: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> View | Inert:
    storage, start = _place(place)
    if storage.dtype is None:
        raise Damaged
    return View(storage, storage.dtype, start + offset, tuple(shape), tuple(strides))


def _tensor_of_type(
    place: Any, offset: Any, shape: Any, strides: Any, grad: Any, hooks: Any, kind: Any, *_: Any
) -> View | Inert:
    storage, start = _place(place)
    dtype = getattr(torch, kind.name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise Damaged
    return View(storage, dtype, start + offset, tuple(shape), tuple(strides))


def _place(place: Any) -> tuple[Storage, int]:
    """A storage, and the first number in it that counts."""
    if not isinstance(place, tuple) or not isinstance(place[0], Storage):
        raise Damaged
    return place


def _of_subclass(function: Any, kind: Any, args: Any, *_: Any) -> Any:
    if not isinstance(function, Global) or function.name not in _FUNCTIONS:
        raise Damaged
    return _FUNCTIONS[function.name](*args)


def _itself(tensor: Any, *_: Any) -> Any:
    return tensor


_FUNCTIONS = {
    **FUNCTIONS,
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": _itself,
    "torch._utils._rebuild_parameter_with_state": _itself,
    "torch._tensor._rebuild_from_type_v2": _of_subclass,
    "torch.nn.parameter.Parameter": _itself,  # before torch 0.4, as the next one
    "torch.autograd.variable.Variable": _itself,
    **{
        f"torch.{name}": record(f"torch.{name}")
        for name in (
            "_utils._rebuild_sparse_tensor",
            "_utils._rebuild_qtensor",
            "_utils._rebuild_nested_tensor",
            "_utils._rebuild_meta_tensor_no_storage",
            "_utils._rebuild_device_tensor_from_numpy",
            "_utils._rebuild_device_tensor_from_cpu_tensor",
            "_utils._rebuild_wrapper_subclass",
            "serialization._get_layout",
        )
    },
}


def _described(kind: object, count: object) -> Storage:
    """The storage that a persistent id speaks of."""
    if not isinstance(kind, Global) or not isinstance(count, int) or count < 0:
        raise Damaged
    name = kind.name.rpartition(".")[2]
    if name == "UntypedStorage":
        return Storage(None, count)
    dtype = _STORAGES.get(name.removesuffix("Storage"))
    if dtype is None or not kind.name.startswith("torch."):
        return Storage(torch.uint8, 0)  # of quantised numbers: no tensor fits on it
    return Storage(dtype, count * dtype.itemsize)


# The zip archive


def read_zip(path: Path, size: int) -> Any:
    """The content of a zip archive of torch.

    Raises:
        OSError, Refused, Exception: see `Machine.load`.
    """
    with open(path, "rb") as stream:
        entries = entries_of(stream, size)
        pickles = [name for name in entries if name.endswith("/data.pkl")]
        if not pickles:
            raise Refused("is a zip archive, but torch did not write it")
        root = pickles[0].removesuffix("data.pkl")
        if f"{root}constants.pkl" in entries:
            raise Refused("is a TorchScript archive, which holds code: save the state dict alone")
        if any(entry.packed for entry in entries.values()):
            raise Refused(
                "is a zip archive with packed entries, which torch does not write; it is not opened"
            )
        if len(pickles) > 1 or sum(entry.size for entry in entries.values()) > size:
            raise Damaged
        big_endian = False
        if f"{root}byteorder" in entries:
            big_endian = _checked(path, entries[f"{root}byteorder"]).read().tolist() == [*b"big"]
        storages: dict[str, Storage] = {}

        def persistent(pid: Any) -> Any:
            word, kind, name, _, count = pid
            if word != "storage":
                raise Damaged
            if name not in storages:
                storage = _described(kind, count)
                entry = entries[f"{root}data/{name}"]
                if storage.size > entry.size:
                    raise Damaged
                storage.span, storage.crc = Span(path, entry.begin, entry.size), entry.crc
                storage.big_endian = big_endian
                storages[name] = storage
            return storages[name], 0

        span = _checked(path, entries[pickles[0]])
        source = Input(stream, path, span.begin, span.begin + span.size)
        return Machine(source, _FUNCTIONS, persistent).load()


def _checked(path: Path, entry: Entry) -> Span:
    span = Span(path, entry.begin, entry.size)
    if entry.crc and crc_of(span) != entry.crc:
        raise Damaged
    return span


# The container from before torch 1.6


def read_legacy(source: Input) -> Any:
    """What follows the magic number: protocol, system, content, names of storages, storages.

    Raises:
        OSError, Refused, Exception: see `Machine.load`.
    """
    load = partial(Machine, source, FUNCTIONS)
    if load().load() != _PROTOCOL:
        raise Damaged
    system = load().load()
    big_endian = not system["little_endian"]
    storages: dict[str, Storage] = {}

    def persistent(pid: Any) -> Any:
        if pid[0] == "module":  # of a whole pickled net: its class and the code of its class
            return pid[1]
        word, kind, name, _, count, part = pid
        if word != "storage" or not isinstance(name, str):
            raise Damaged
        if name not in storages:
            storages[name] = _described(kind, count)
            storages[name].big_endian = big_endian
        return storages[name], 0 if part is None else part[1]

    value = Machine(source, _FUNCTIONS, persistent).load()
    for name in load().load():
        storage = storages[name]
        count = int.from_bytes(source.take(8), "big" if big_endian else "little")
        if count * (storage.dtype or torch.uint8).itemsize != storage.size:
            raise Damaged
        storage.span = source.skip(storage.size)
    if any(storage.span is None for storage in storages.values()):
        raise Damaged
    return value
