"""What the functions that torch's pickles call stand for here: tensors are views of storages.

A storage's bytes lie beside the pickle, or after it: `visrep.weights.containers.torch_files`.
"""

import math
import zlib
from typing import Any

import torch
from torch import Tensor

from visrep.weights.containers.pickle_functions import FUNCTIONS, record
from visrep.weights.containers.pickle_records import Damaged, Global, Inert
from visrep.weights.containers.stored import Span, Stored, as_type, in_memory_of_its_own

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
            if self.crc != (zlib.crc32(data.numpy().data) if whole else self.span.crc32()):
                raise ValueError("it does not agree with its checksum")
            self.crc = 0
        return data


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
    if not isinstance(function, Global) or function.name not in TORCH_FUNCTIONS:
        raise Damaged
    return TORCH_FUNCTIONS[function.name](*args)


def _itself(tensor: Any, *_: Any) -> Any:
    return tensor


TORCH_FUNCTIONS = {
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


def storage_of(kind: object, count: object) -> Storage:
    """The storage that a persistent id speaks of: its class and how many numbers it has."""
    if not isinstance(kind, Global) or not isinstance(count, int) or count < 0:
        raise Damaged
    name = kind.name.rpartition(".")[2]
    if name == "UntypedStorage":
        return Storage(None, count)
    dtype = _STORAGES.get(name.removesuffix("Storage"))
    if dtype is None or not kind.name.startswith("torch."):
        return Storage(torch.uint8, 0)  # of quantised numbers: no tensor fits on it
    return Storage(dtype, count * dtype.itemsize)
