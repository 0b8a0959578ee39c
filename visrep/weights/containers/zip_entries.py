"""The entries of a zip archive: where each lies. Nothing is unpacked.

Written from PKWARE's APPNOTE 6.3.10, sections 4.3 and 4.5.3, for what torch writes: no comment,
one disk, the fields of 64 bits where they are needed.
"""

import struct
from dataclasses import dataclass
from typing import BinaryIO

from visrep.weights.containers.pickle_records import Damaged
from visrep.weights.containers.seal import SEAL, SEAL_BYTES

LIMIT = 1 << 26  # bytes of a directory, of half a million entries
_ENTRY = struct.Struct("<4s4x2H4xLLL3H8xL")  # flags, method, crc, sizes, lengths, offset
_LOCAL = struct.Struct("<4s22x2H")


@dataclass(frozen=True)
class Entry:
    """Bytes of an archive.

    Attributes:
        begin, size: in the file.
        crc: CRC-32 of them, or 0 where none was written.
        packed: they are compressed or encrypted.
    """

    begin: int
    size: int
    crc: int
    packed: bool


def entries_of(stream: BinaryIO, size: int) -> dict[str, Entry]:
    """Name -> entry of the archive in a file of `size` bytes.

    Raises:
        Damaged, struct.error, ValueError: it is none, or none that torch would write.
        OSError: it cannot be read.
    """
    count, begin, length = _directory(stream, size)
    if length > LIMIT or begin + length > size:
        raise Damaged
    stream.seek(begin)
    directory, entries, at = stream.read(length), {}, 0
    for _ in range(count):
        mark, flags, method, crc, packed, full, names, extras, comment, offset = _ENTRY.unpack_from(
            directory, at
        )
        if mark != b"PK\x01\x02":
            raise Damaged
        at += _ENTRY.size
        name = directory[at : at + names].decode("utf-8")
        extra = directory[at + names : at + names + extras]
        at += names + extras + comment
        full, packed, offset = _long(extra, [full, packed, offset])
        stream.seek(offset)
        mark, *lengths = _LOCAL.unpack(stream.read(_LOCAL.size))
        place = offset + _LOCAL.size + sum(lengths)
        if mark != b"PK\x03\x04" or place + packed > begin or name in entries:
            raise Damaged
        if stream.read(names) != name.encode():
            raise Damaged
        entries[name] = Entry(place, full, crc, method != 0 or flags & 1 != 0 or full != packed)
    return entries


def _directory(stream: BinaryIO, size: int) -> tuple[int, int, int]:
    """Number of entries, begin and bytes of the directory, from the records at the end."""
    stream.seek(max(size - SEAL_BYTES, 0))
    if stream.read(len(SEAL)) == SEAL:
        size -= SEAL_BYTES
    stream.seek(max(size - 22, 0))
    mark, count, length, begin = struct.unpack("<4s6xHLL2x", stream.read(22))
    if mark != b"PK\x05\x06":
        raise Damaged
    if count == 0xFFFF or 0xFFFFFFFF in (length, begin):
        stream.seek(max(size - 42, 0))
        mark, place = struct.unpack("<4s4xQ4x", stream.read(20))
        if mark != b"PK\x06\x07" or place > size:
            raise Damaged
        stream.seek(place)
        mark, count, length, begin = struct.unpack("<4s28xQQQ", stream.read(56))
        if mark != b"PK\x06\x06":
            raise Damaged
    return count, begin, length


def _long(extra: bytes, fields: list[int]) -> list[int]:
    """Sizes and offset, from the field of 64-bit values where they are all ones."""
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            values = iter(struct.unpack_from(f"<{length // 8}Q", extra, at + 4))
            return [next(values) if field == 0xFFFFFFFF else field for field in fields]
        at += 4 + length
    return fields
