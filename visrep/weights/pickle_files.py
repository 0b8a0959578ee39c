"""Reading pickles of NumPy arrays without importing or calling anything that they name.

Python's own unpickler is subclassed in its pure form: it keeps its memo in a dict, where the C one
fills a table up to whatever index a file names. Every name a pickle may use stands for a function
of this page; any other is refused. Nothing of NumPy sees a pickle's arguments before they are
checked.
"""

import pickle
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, ClassVar

import numpy as np

from visrep.errors import UserError
from visrep.weights.torch_files import AGAIN, DEPTH

_NUMERIC = {f"{kind}{size}" for kind in "iuf" for size in (1, 2, 4, 8)} - {"f1"} | {"b1"}


def read_pickle(path: str | Path) -> Any:
    """The content of a pickle of dicts, lists, plain values and NumPy arrays.

    Raises:
        UserError: there is no such file, it is damaged, or it names anything else.
    """
    path = Path(path)
    try:
        size = path.stat().st_size
        with open(path, "rb") as stream:
            return _finish(_Unpickler(stream, size).load())
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except _Refused as error:
        raise UserError(f"{path} {error}") from error
    except Exception as error:  # whatever a malformed pickle makes the unpickler raise
        raise UserError(f"{path} is cut short or damaged: {AGAIN}") from error


class _Refused(Exception):
    """The pickle wants what it must not have."""


class _Unpickler(pickle._Unpickler):  # type: ignore[name-defined]
    def __init__(self, stream: BinaryIO, size: int) -> None:
        super().__init__(stream, encoding="latin1")  # as Detectron2 does; Python 2 wrote such files
        self.size = size

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _ALLOWED:
            return _Stand(_ALLOWED[module, name])
        shown = f"{module}.{name}"[:80]
        shown = "".join(c if c.isprintable() else "?" for c in shown)
        raise _Refused(f"asks to run {shown} when it is opened, which visrep never does")

    dispatch: ClassVar[dict[int, Any]] = dict(pickle._Unpickler.dispatch)  # type: ignore[attr-defined]

    def load_bytearray8(self) -> None:
        # The original sets aside as many bytes as the file names before it reads them.
        length = int.from_bytes(self.read(8), "little")  # type: ignore[attr-defined]
        if length > self.size:
            raise pickle.UnpicklingError("more bytes are named than there are")
        self.append(bytearray(self.read(length)))  # type: ignore[attr-defined]

    dispatch[pickle.BYTEARRAY8[0]] = load_bytearray8


class _Stand:
    """Stands for a function that a pickle names; it can be called, and nothing else."""

    __slots__ = ("call",)
    call: Callable[..., Any]

    def __init__(self, call: Callable[..., Any]) -> None:
        object.__setattr__(self, "call", call)

    def __call__(self, *args: Any) -> Any:
        return self.call(*args)

    def __setattr__(self, name: str, value: object) -> None:
        raise _Refused("tries to change a function when it is opened")

    def __setstate__(self, state: object) -> None:
        raise _Refused("tries to change a function when it is opened")


class _Dtype:
    """A type of numbers on its way: `numpy.dtype("f4", ...)`, then a state with its byte order."""

    def __init__(self, code: object, *_: object) -> None:
        if not isinstance(code, str) or code.lstrip("<>=|") not in _NUMERIC:
            raise _Refused(f"holds arrays of {str(code)[:20]!r}, not of numbers")
        self.dtype = np.dtype(code)

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        if state[1] in ("<", ">"):
            self.dtype = self.dtype.newbyteorder(state[1])


class _Array:
    """An array on its way: `_reconstruct(...)`, then a state with all that it is."""

    def __init__(self, *_: object) -> None:
        self.value: np.ndarray | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, fortran, data = state
        self.value = _array(shape, dtype.dtype, data, "F" if fortran else "C")


def _array(shape: object, dtype: np.dtype, data: object, order: Any = "C") -> np.ndarray:
    if isinstance(data, str):  # of Python 2
        data = data.encode("latin1")
    if not isinstance(data, bytes | bytearray) or not isinstance(shape, tuple):
        raise _Refused("holds an array without its data")
    flat = np.frombuffer(bytearray(data) if isinstance(data, bytes) else data, dtype)
    return flat.reshape([int(n) for n in shape], order=order)


def _ndarray(shape: object, dtype: object, data: object) -> np.ndarray:
    return _array(shape, _Dtype(dtype).dtype, data)


def _frombuffer(data: object, dtype: _Dtype, shape: object, order: str) -> np.ndarray:
    return _array(shape, dtype.dtype, data, "F" if order == "F" else "C")


def _scalar(dtype: _Dtype, data: object) -> Any:
    return _array((), dtype.dtype, data).item()


def _encode(text: str, encoding: str) -> bytes:
    if encoding not in ("latin1", "latin-1"):
        raise _Refused(f"encodes text as {str(encoding)[:20]!r}")
    return text.encode("latin1")


def _bytes() -> bytes:
    return b""  # old protocols spell only the empty one so


def _bytearray(data: bytes) -> bytearray:
    if not isinstance(data, bytes):
        raise _Refused("asks for bytes that it does not hold")
    return bytearray(data)


_ALLOWED: dict[tuple[str, str], Callable[..., Any]] = {
    ("numpy", "ndarray"): _ndarray,
    ("numpy", "dtype"): _Dtype,
    ("_codecs", "encode"): _encode,
    ("builtins", "bytearray"): _bytearray,
    ("builtins", "bytes"): _bytes,
    ("__builtin__", "bytearray"): _bytearray,
    ("__builtin__", "bytes"): _bytes,
    ("collections", "OrderedDict"): lambda *items: OrderedDict(*items),
}
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED[f"{_core}.multiarray", "_reconstruct"] = _Array
    _ALLOWED[f"{_core}.multiarray", "scalar"] = _scalar
    _ALLOWED[f"{_core}.numeric", "_frombuffer"] = _frombuffer


def _finish(value: Any, done: dict[int, Any] | None = None, depth: int = 0) -> Any:
    """`value` with its arrays in place of what stood for them.

    A container is visited once, however often it is referred to: ten lists, each of which holds
    the next one a hundred times, are a small file.
    """
    done = {} if done is None else done
    if isinstance(value, _Array):
        if value.value is None:
            raise _Refused("holds an array without its data")
        return value.value
    if isinstance(value, dict | list | tuple):
        if depth == DEPTH:
            raise _Refused("holds containers too deep to be a checkpoint")
        if id(value) not in done:
            if isinstance(value, dict):
                done[id(value)] = {k: _finish(v, done, depth + 1) for k, v in value.items()}
            else:
                done[id(value)] = type(value)(_finish(v, done, depth + 1) for v in value)
        return done[id(value)]
    if isinstance(value, str | int | float | bool | bytes | bytearray | np.ndarray | None):
        return value
    raise _Refused("holds something that is no plain value and no array")


def write_pickle(stream: BinaryIO, value: object) -> None:
    """Pickle dicts, lists, plain values and contiguous NumPy arrays of numbers.

    An array is stored as `numpy.ndarray(shape, type, bytes)`: NumPy's own way names a private
    module that was moved in NumPy 2, so that older ones cannot open such a file.
    """
    _Pickler(stream, protocol=5).dump(value)


class _Pickler(pickle.Pickler):
    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, np.ndarray):
            data = pickle.PickleBuffer(np.ascontiguousarray(value).data)
            return np.ndarray, (value.shape, value.dtype.str, data)
        return NotImplemented
