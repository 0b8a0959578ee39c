"""What the functions that pickles call stand for here: those of Python, NumPy and dill.

Nothing of NumPy sees what a file says: an array becomes a record, whose numbers are read from the
file when they are asked for.
"""

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from visrep.weights.containers.pickle_records import (
    Blob,
    Damaged,
    Global,
    Inert,
    Record,
    Refused,
    key,
    make,
    mention,
    printable,
    wants_to_run,
)
from visrep.weights.containers.stored import Stored, as_type, in_memory_of_its_own

_TYPES = {
    "f2": torch.float16,
    "f4": torch.float32,
    "f8": torch.float64,
    "i1": torch.int8,
    "i2": torch.int16,
    "i4": torch.int32,
    "i8": torch.int64,
    "u1": torch.uint8,
    "u2": torch.uint16,
    "u4": torch.uint32,
    "u8": torch.uint64,
    "b1": torch.bool,
    "c8": torch.complex64,
    "c16": torch.complex128,
    "M8": torch.int64,
    "m8": torch.int64,
}


class NumpyType:
    """`numpy.dtype("f4", ...)`, and then a state with its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        match = re.fullmatch(r"([<>=|]?)([a-zA-Z])(\d*)", code) if isinstance(code, str) else None
        self.text = int(match[3]) if match and match[2] in "SU" and match[3] else 0  # characters
        kind = "u1" if self.text and match and match[2] == "S" else "u4"
        short = kind if self.text else f"{match[2]}{match[3]}" if match else ""
        if short not in _TYPES:
            shown = code if isinstance(code, str) else type(code).__name__
            raise Refused(f"holds arrays of {printable(shown)}, not of numbers")
        self.dtype = _TYPES[short]
        self.big_endian = match is not None and match[1] == ">"

    def build(self, state: Any) -> None:
        _, order, *parts = state
        if any(part is not None for part in parts[:3]):
            raise Refused("holds arrays of records, not of numbers")
        self.big_endian = order == ">"


class NumpyArray(Stored):
    """`_reconstruct(...)`, and then a state with all that an array is."""

    data: Blob | bytes | None = None

    def __init__(self, *_: object) -> None:
        self.shape, self.dtype = (), torch.uint8

    def build(self, state: Any) -> None:
        shape, kind, fortran, data = state[-4:]
        self.set(shape, kind, data, fortran=bool(fortran))

    def set(self, shape: object, kind: object, data: object, *, fortran: bool) -> "NumpyArray":
        if not isinstance(kind, NumpyType) or not isinstance(shape, tuple):
            raise Damaged
        if isinstance(data, str):  # of Python 2
            data = data.encode("latin1")
        if not isinstance(data, Blob | bytes):
            raise Refused("holds an array without its data")
        sizes = [int(n) for n in shape]
        if not all(0 <= n < 1 << 40 for n in sizes) or len(sizes) > 32:
            raise Damaged
        self.dtype, self.big_endian, self.fortran = kind.dtype, kind.big_endian, fortran
        self.shape = (*sizes, kind.text) if kind.text else tuple(sizes)
        self.data = data
        size = len(data) if isinstance(data, bytes) else data.span.size
        coded = isinstance(data, Blob) and data.text  # of two bytes where a byte is above 127
        if not (self.size <= size <= 2 * self.size if coded else size == self.size):
            raise Refused("holds an array without its data")
        return self

    def read(self) -> Tensor:
        if self.data is None:
            raise ValueError("it has no data")
        if isinstance(self.data, Blob):
            data = self.data.read()
        else:
            data = torch.frombuffer(bytearray(self.data) or bytearray(1), dtype=torch.uint8)
        data = as_type(data[: self.size], self.dtype, big_endian=self.big_endian)
        if self.fortran:
            turned = data.reshape(self.shape[::-1])
            return in_memory_of_its_own(turned.permute(*range(turned.dim() - 1, -1, -1)))
        return data.reshape(self.shape)


def _array_of_bytes(shape: object, kind: object, data: object) -> NumpyArray:
    return NumpyArray().set(shape, NumpyType(kind), data, fortran=False)


def _array_of_buffer(data: object, kind: object, shape: object, order: object) -> NumpyArray:
    return NumpyArray().set(shape, kind, data, fortran=order == "F")


def _array_of_dill(function: object, args: object, state: Any, *_: object) -> NumpyArray:
    array = NumpyArray()
    array.build(state)
    return array


def _scalar(kind: object, data: object = b"") -> Any:
    array = NumpyArray().set((), kind, data, fortran=False)
    if array.shape:  # a text
        raw = bytes(array.read().view(torch.uint8).tolist())
        return raw.decode("latin1" if array.dtype == torch.uint8 else "utf-32-le").rstrip("\0")
    return array.read().item()


def _named_tuple(name: object, fields: Any, module: object, *_: object) -> Record:
    if not all(isinstance(field, str) for field in fields):
        raise Damaged
    return Record(mention(str(module), str(name)).name, tuple(fields))


def _encode(text: object, encoding: object) -> Blob | bytes:
    if encoding not in ("latin1", "latin-1"):
        raise Refused("encodes text in an unusual way")
    if isinstance(text, str):
        return text.encode("latin1")
    if not isinstance(text, Blob):
        raise Damaged
    return text


def _bytes(*data: Any) -> Any:
    """Of a text, bytes, a list of small numbers or nothing; not of a size."""
    value, *encoding = data or (b"",)
    if isinstance(value, str | Blob) and encoding:
        return _encode(value, *encoding)
    if isinstance(value, int) or encoding:
        raise Refused("asks for bytes that it does not hold")
    return value if isinstance(value, bytes | Blob) else bytes(value)


def _mapping(*args: Any) -> dict[Any, Any]:
    """A dict of a dict or of pairs."""
    pairs = args[0] if args else ()
    pairs = pairs.items() if isinstance(pairs, dict) else pairs
    return {key(name): value for name, value in pairs}


def _attribute(target: object, name: object = None, *_: object) -> Global:
    """Protocols before 4 spell a class within a class so."""
    if not isinstance(target, Global) or not isinstance(name, str):
        raise wants_to_run("builtins.getattr")
    if not target.name.rpartition(".")[2].lstrip("_")[:1].isupper():
        raise wants_to_run(f"{target.name}.{name}")
    return mention(target.name, name)


def _object(kind: object, *args: Any) -> Any:
    """How protocols before 2 spell an object of a class."""
    stand_in = FUNCTIONS.get(kind.name) if isinstance(kind, Global) else None
    return stand_in(*args) if stand_in else make(kind, args, new=True)


def record(name: str) -> Callable[..., Inert]:
    """A function that gives a record of its call."""
    return lambda *args: Inert(name, args)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "numpy.ndarray": _array_of_bytes,
    "numpy.dtype": NumpyType,
    "numpy.core.multiarray._reconstruct": NumpyArray,
    "numpy.core.multiarray.scalar": _scalar,
    "numpy.core.numeric._frombuffer": _array_of_buffer,
    "dill._dill._create_array": _array_of_dill,
    "dill._dill._create_namedtuple": _named_tuple,
    "_codecs.encode": _encode,
    "builtins.bytes": _bytes,
    "builtins.bytearray": _bytes,
    "builtins.set": lambda *items: list(*items),
    "builtins.frozenset": lambda *items: tuple(*items),
    "builtins.list": lambda *items: list(*items),
    "builtins.tuple": lambda *items: tuple(*items),
    "builtins.dict": _mapping,
    "builtins.complex": complex,
    "builtins.getattr": _attribute,
    "collections.OrderedDict": _mapping,
    "collections.Counter": _mapping,
    "collections.defaultdict": lambda *args: _mapping(*args[1:]),
    "collections.deque": lambda *args: list(args[0]) if args else [],
    "copyreg._reconstructor": lambda kind, base, state: _object(
        kind, *(() if state is None else (state,))
    ),
    "copyreg.__newobj__": _object,
    "copyreg.__newobj_ex__": lambda kind, args, named: _object(kind, *args),
    "torch.Size": lambda items=(): tuple(items),
}
# Functions in small letters that are classes, or that make a value which nobody here needs.
for _name in (
    *(
        "builtins.range",
        "builtins.xrange",
        "builtins.slice",
        "builtins.object",
        "functools.partial",
    ),
    *("datetime.datetime", "datetime.date", "datetime.time", "datetime.timedelta"),
    *("datetime.timezone", "re._compile", "operator.itemgetter", "torch.device"),
    *("numpy.random._pickle.__randomstate_ctor", "numpy.random._pickle.__generator_ctor"),
    "numpy.random._pickle.__bit_generator_ctor",
    "numpy.random.bit_generator.__pyx_unpickle_SeedSequence",
):
    FUNCTIONS[_name] = record(_name)
