"""A tensor where it lies in a file: its shape and type are known, its numbers are read on demand.

A checkpoint of some gigabytes holds optimizer states and further networks that nobody wants; what
reads it passes such records around and reads the encoder's tensors one by one.
"""

import math
import mmap
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

_PART = 1 << 22  # bytes


class Stored:
    """A dense tensor that is not in memory; every reader of a container has its subclass.

    Attributes:
        shape: a tuple of plain ints.
        dtype: of torch.
    """

    shape: tuple[int, ...]
    dtype: torch.dtype

    def read(self) -> Tensor:
        """The tensor, row-major, in memory of its own: whoever asks may keep and change it.

        Raises:
            OSError: the file cannot be read.
            ValueError: what is there is damaged; the message is a clause about it.
        """
        raise NotImplementedError

    def then(self, change: Callable[[Tensor], Tensor]) -> "Stored":
        """What `change` makes of this tensor, as a record again: a transposition, a part, a sum.

        `change` is run on the meta device first, for shape and type.
        """
        return _Changed(self, change)

    @property
    def size(self) -> int:
        """Bytes in memory."""
        return math.prod(self.shape) * self.dtype.itemsize


class _Changed(Stored):
    def __init__(self, source: Stored, change: Callable[[Tensor], Tensor]) -> None:
        self.source, self.change = source, change
        result = change(torch.empty(source.shape, dtype=source.dtype, device="meta"))
        self.shape, self.dtype = tuple(result.shape), result.dtype

    def read(self) -> Tensor:
        return in_memory_of_its_own(self.change(self.source.read()))


def in_memory_of_its_own(data: Tensor) -> Tensor:
    """`data` row-major, and alone in its memory."""
    data = data.contiguous()
    whole = data.untyped_storage().nbytes() == data.numel() * data.element_size()
    return data if whole else data.clone()


def as_type(data: Tensor, dtype: torch.dtype, *, big_endian: bool) -> Tensor:
    """Bytes of a file as numbers of this machine, without a copy; the bytes may be turned round."""
    parts = 2 if dtype.is_complex else 1
    if big_endian != (sys.byteorder == "big") and dtype.itemsize > parts:
        words = data.numpy().view(f"u{dtype.itemsize // parts}")
        words.byteswap(inplace=True)
    return data.view(dtype)


def _memory(size: int) -> Tensor:
    """`size` bytes; many of them are a mapping of their own, which is gone when it is freed.

    C's allocator keeps freed blocks of up to 32 MiB, and between the tensors of an encoder that
    come to stay they add up to a third of it.
    """
    if size < 1 << 18:
        return torch.empty(size, dtype=torch.uint8)
    pages = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    return torch.frombuffer(pages, dtype=torch.uint8)


@dataclass(frozen=True)
class Span:
    """Bytes of a file, from `begin` on; `read` returns them as a tensor of uint8.

    Raises:
        OSError: the file cannot be read.
        ValueError: it ends before them.
    """

    path: Path
    begin: int
    size: int

    def read(self, begin: int = 0, size: int | None = None) -> Tensor:
        """All of them, or `size` of them from `begin` on."""
        size = self.size - begin if size is None else size
        if begin < 0 or size < 0 or begin + size > self.size:
            raise ValueError("it reaches beyond its place in the file")
        data = _memory(size)
        with open(self.path, "rb", buffering=0) as stream:
            stream.seek(self.begin + begin)
            view, done = data.numpy().data, 0
            while done < size:  # a single call reads 2 GiB at most
                count = stream.readinto(view[done:])
                if not count:
                    raise ValueError("the file ends before it")
                done += count
        return data

    def crc32(self) -> int:
        """CRC-32 of all of them, read by the part."""
        crc = 0
        for begin in range(0, self.size, _PART):
            crc = zlib.crc32(self.read(begin, min(_PART, self.size - begin)).numpy().data, crc)
        return crc
