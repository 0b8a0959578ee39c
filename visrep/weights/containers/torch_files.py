"""torch's two containers, the zip archive and the one from before torch 1.6; and writing the first.

Both hold a pickle that puts the tensors together out of storages, which lie beside it as raw bytes.
torch's own reader is not asked, not even with weights_only: that one refuses a file for a class it
does not know, reads storages that nobody wants, and imports what it knows.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import torch

from visrep.weights.containers.pickle_functions import FUNCTIONS
from visrep.weights.containers.pickle_machine import Input, Machine
from visrep.weights.containers.pickle_records import Damaged, Refused
from visrep.weights.containers.stored import Span
from visrep.weights.containers.torch_functions import TORCH_FUNCTIONS, Storage, storage_of
from visrep.weights.containers.zip_entries import Entry, entries_of

MAGIC = 0x1950A86A20F9469CFC6C  # the first pickle of the older container
_PROTOCOL = 1001

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
                storage = storage_of(kind, count)
                entry = entries[f"{root}data/{name}"]
                if storage.size > entry.size:
                    raise Damaged
                storage.span, storage.crc = Span(path, entry.begin, entry.size), entry.crc
                storage.big_endian = big_endian
                storages[name] = storage
            return storages[name], 0

        span = _checked(path, entries[pickles[0]])
        source = Input(stream, path, span.begin, span.begin + span.size)
        return Machine(source, TORCH_FUNCTIONS, persistent).load()


def _checked(path: Path, entry: Entry) -> Span:
    span = Span(path, entry.begin, entry.size)
    if entry.crc and span.crc32() != entry.crc:
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
            storages[name] = storage_of(kind, count)
            storages[name].big_endian = big_endian
        return storages[name], 0 if part is None else part[1]

    value = Machine(source, TORCH_FUNCTIONS, persistent).load()
    for name in load().load():
        storage = storages[name]
        count = int.from_bytes(source.take(8), "big" if big_endian else "little")
        if count * (storage.dtype or torch.uint8).itemsize != storage.size:
            raise Damaged
        storage.span = source.skip(storage.size)
    if any(storage.span is None for storage in storages.values()):
        raise Damaged
    return value


# Writing


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
