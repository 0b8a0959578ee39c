"""A machine that runs pickles without importing or calling anything that they name.

A pickle is a program for a stack machine. This one makes plain values, and records of the rest: a
name becomes a `Global`, an object an `Inert`, long bytes a `Blob` that stays in the file. A name
stands for a function only if the reader of the container has one of its own for it.
"""

import codecs
import pickle
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, BinaryIO

from visrep.weights.containers.pickle_records import (
    Blob,
    Damaged,
    Global,
    Inert,
    Refused,
    key,
    make,
    mention,
)
from visrep.weights.containers.stored import Span

STEPS = 1_000_000  # a checkpoint of thousands of tensors takes some hundred thousand
MARKS = 1000  # within one another
LONG = 1 << 14  # bytes; longer texts and bytes stay in the file
LINE = 1 << 28  # bytes, of the protocol whose arrays are lines of text


class Input:
    """The part of a file from `begin` to `end`, read forwards."""

    def __init__(self, stream: BinaryIO, path: Path, begin: int, end: int) -> None:
        self.stream, self.path, self.at, self.end = stream, path, begin, end
        stream.seek(begin)

    def take(self, size: int) -> bytes:
        if not 0 <= size <= self.end - self.at:
            raise Damaged
        self.at += size
        return self.stream.read(size)

    def line(self) -> bytes:
        line = self.stream.readline(min(LINE, self.end - self.at))
        self.at += len(line)
        if not line.endswith(b"\n"):
            raise Damaged
        return line[:-1]

    def skip(self, size: int) -> Span:
        """The next `size` bytes, unread."""
        if not 0 <= size <= self.end - self.at:
            raise Damaged
        span = Span(self.path, self.at, size)
        self.at += size
        self.stream.seek(self.at)
        return span


class Machine:
    """Runs one pickle.

    Args:
        source: where it begins; left where it ends.
        functions: name -> what is called in its place.
        persistent: what gives the object of a persistent id; without it there must be none.
    """

    def __init__(
        self,
        source: Input,
        functions: Mapping[str, Callable[..., Any]],
        persistent: Callable[[Any], Any] | None = None,
    ) -> None:
        self.source, self.functions, self.persistent = source, functions, persistent
        self.stack: list[Any] = []
        self.below: list[list[Any]] = []  # the stacks under the marks
        self.memo: dict[int, Any] = {}
        self.left = STEPS

    def load(self) -> Any:
        """What the pickle makes.

        Raises:
            OSError: the file cannot be read.
            Refused: see there.
            Exception: of any kind; the pickle is damaged.
        """
        take = self.source.take
        while (opcode := take(1)) != pickle.STOP:
            self.spend(1)
            _OPERATIONS[opcode](self)
        return self.stack.pop()

    def spend(self, steps: int) -> None:
        self.left -= steps
        if self.left < 0:
            raise Refused("holds more objects than a checkpoint does")

    def marked(self) -> list[Any]:
        """What lies above the last mark; it is taken off."""
        items, self.stack = self.stack, self.below.pop()
        return items

    def make(self, kind: Any, args: Any, *, new: bool) -> None:
        """Put what `kind` makes of `args` on the stack; `new`: `kind` must be a class."""
        for value in (args, *args) if isinstance(args, tuple) else ():
            if isinstance(value, list | tuple | dict):
                self.spend(len(value))  # it may be copied, and a pickle can name it many times
            elif isinstance(value, str | bytes):
                self.spend(len(value) >> 10)
        stand_in = self.functions.get(kind.name) if isinstance(kind, Global) else None
        self.stack.append(stand_in(*args) if stand_in else make(kind, args, new=new))


_OPERATIONS: dict[bytes, Callable[[Machine], None]] = {}


def _on(*opcodes: bytes) -> Callable[[Callable[[Machine], None]], Callable[[Machine], None]]:
    def register(operation: Callable[[Machine], None]) -> Callable[[Machine], None]:
        _OPERATIONS.update(dict.fromkeys(opcodes, operation))
        return operation

    return register


def _push(opcode: bytes, value: Callable[[Machine], Any]) -> None:
    def operation(machine: Machine) -> None:
        made = value(machine)  # first, since it may go back to the stack under a mark
        machine.stack.append(made)

    _OPERATIONS[opcode] = operation


# Numbers, texts, bytes


def _number(code: str) -> Callable[[Machine], Any]:
    form = struct.Struct(code)
    return lambda machine: form.unpack(machine.source.take(form.size))[0]


def _counted(
    length: Callable[[Machine], int], read: Callable[[bytes], Any], *, text: bool = False
) -> Callable[[Machine], Any]:
    def value(machine: Machine) -> Any:
        size = length(machine)
        if size > LONG:
            return Blob(machine.source.skip(size), text)
        return read(machine.source.take(size))

    return value


def _integer(data: bytes) -> int:
    return int.from_bytes(data, "little", signed=True)


def _whole(line: bytes) -> Any:
    return {b"00": False, b"01": True}[line] if line in (b"00", b"01") else int(line, 0)


def _quoted(line: bytes) -> str:
    if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in b"'\"":
        raise Damaged
    return codecs.escape_decode(line[1:-1])[0].decode("latin1")  # type: ignore[attr-defined]


def _latin(data: bytes) -> str:
    return data.decode("latin1")  # Python 2's texts are bytes


def _text(data: bytes) -> str:
    return data.decode("utf-8", "surrogatepass")


_byte, _word, _long, _huge = (_number(code) for code in ("<B", "<H", "<I", "<Q"))
_push(pickle.NONE, lambda _: None)
_push(pickle.NEWTRUE, lambda _: True)
_push(pickle.NEWFALSE, lambda _: False)
_push(pickle.INT, lambda machine: _whole(machine.source.line()))
_push(pickle.LONG, lambda machine: int(machine.source.line().removesuffix(b"L"), 0))
_push(pickle.FLOAT, lambda machine: float(machine.source.line()))
_push(pickle.STRING, lambda machine: _quoted(machine.source.line()))
_push(pickle.UNICODE, lambda machine: str(machine.source.line(), "raw-unicode-escape"))
_push(pickle.BININT, _number("<i"))
_push(pickle.BININT1, _byte)
_push(pickle.BININT2, _word)
_push(pickle.BINFLOAT, _number(">d"))
_push(pickle.LONG1, _counted(_byte, _integer))
_push(pickle.LONG4, _counted(_long, _integer))
_push(pickle.SHORT_BINSTRING, _counted(_byte, _latin))
_push(pickle.BINSTRING, _counted(_long, _latin))
_push(pickle.SHORT_BINBYTES, _counted(_byte, bytes))
_push(pickle.BINBYTES, _counted(_long, bytes))
_push(pickle.BINBYTES8, _counted(_huge, bytes))
_push(pickle.BYTEARRAY8, _counted(_huge, bytes))
_push(pickle.SHORT_BINUNICODE, _counted(_byte, _text))
_push(pickle.BINUNICODE, _counted(_long, _text, text=True))
_push(pickle.BINUNICODE8, _counted(_huge, _text, text=True))


# Containers


_push(pickle.EMPTY_LIST, lambda _: [])
_push(pickle.EMPTY_SET, lambda _: [])  # a set is a list here: nobody looks into one
_push(pickle.EMPTY_DICT, lambda _: {})
_push(pickle.EMPTY_TUPLE, lambda _: ())
_push(pickle.TUPLE1, lambda machine: tuple(_pop(machine, 1)))
_push(pickle.TUPLE2, lambda machine: tuple(_pop(machine, 2)))
_push(pickle.TUPLE3, lambda machine: tuple(_pop(machine, 3)))
_push(pickle.TUPLE, lambda machine: tuple(machine.marked()))
_push(pickle.FROZENSET, lambda machine: tuple(machine.marked()))
_push(pickle.LIST, lambda machine: machine.marked())
_push(pickle.DICT, lambda machine: _set_items({}, machine.marked()))


def _pop(machine: Machine, count: int) -> list[Any]:
    if len(machine.stack) < count:
        raise Damaged
    taken = machine.stack[-count:]
    del machine.stack[-count:]
    return taken


def _set_items(target: Any, pairs: list[Any]) -> Any:
    held = target.items if isinstance(target, Inert) else target
    if not isinstance(held, dict) or len(pairs) % 2:
        raise Damaged
    for name, value in zip(pairs[::2], pairs[1::2], strict=True):
        held[key(name)] = value
    return target


def _extend(target: Any, values: list[Any]) -> None:
    held = target.elements if isinstance(target, Inert) else target
    if not isinstance(held, list):
        raise Damaged
    held.extend(values)


@_on(pickle.SETITEM)
def _setitem(machine: Machine) -> None:
    pair = _pop(machine, 2)
    _set_items(machine.stack[-1], pair)


@_on(pickle.SETITEMS)
def _setitems(machine: Machine) -> None:
    pairs = machine.marked()
    _set_items(machine.stack[-1], pairs)


@_on(pickle.APPEND)
def _append(machine: Machine) -> None:
    values = _pop(machine, 1)
    _extend(machine.stack[-1], values)


@_on(pickle.APPENDS, pickle.ADDITEMS)
def _appends(machine: Machine) -> None:
    values = machine.marked()
    _extend(machine.stack[-1], values)


# Names and objects


@_on(pickle.GLOBAL)
def _global(machine: Machine) -> None:
    module, name = (machine.source.line().decode("utf-8") for _ in range(2))
    machine.stack.append(mention(module, name))


@_on(pickle.STACK_GLOBAL)
def _stack_global(machine: Machine) -> None:
    module, name = _pop(machine, 2)
    if not isinstance(module, str) or not isinstance(name, str):
        raise Damaged
    machine.stack.append(mention(module, name))


@_on(pickle.REDUCE)
def _reduce(machine: Machine) -> None:
    machine.make(*_pop(machine, 2), new=False)


@_on(pickle.NEWOBJ)
def _newobj(machine: Machine) -> None:
    machine.make(*_pop(machine, 2), new=True)


@_on(pickle.NEWOBJ_EX)
def _newobj_ex(machine: Machine) -> None:
    kind, args, named = _pop(machine, 3)
    if not isinstance(args, tuple):
        raise Damaged
    machine.spend(len(args))
    machine.make(kind, (*args, named) if named else args, new=True)


@_on(pickle.INST)
def _inst(machine: Machine) -> None:
    args = machine.marked()
    _global(machine)
    machine.make(machine.stack.pop(), tuple(args), new=False)


@_on(pickle.OBJ)
def _obj(machine: Machine) -> None:
    kind, *args = machine.marked()
    machine.make(kind, tuple(args), new=False)


@_on(pickle.BUILD)
def _build(machine: Machine) -> None:
    (state,) = _pop(machine, 1)
    target = machine.stack[-1]
    if hasattr(target, "build"):
        target.build(state)
    elif isinstance(target, Inert):
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):
            machine.spend(len(state[0] or ()) + len(state[1]))
            state = {**(state[0] or {}), **state[1]}  # of a class with slots
        target.state = state
    elif not isinstance(target, dict | list):  # these hold nothing beside their items
        raise Refused("tries to change a function when it is opened")


@_on(pickle.PERSID)
def _persid(machine: Machine) -> None:
    machine.stack.append(machine.source.line().decode("ascii"))
    _binpersid(machine)


@_on(pickle.BINPERSID)
def _binpersid(machine: Machine) -> None:
    (pid,) = _pop(machine, 1)
    if machine.persistent is None:
        raise Damaged
    machine.stack.append(machine.persistent(pid))


# The machine itself


@_on(pickle.PROTO)
def _proto(machine: Machine) -> None:
    if _byte(machine) > pickle.HIGHEST_PROTOCOL:
        raise Damaged


@_on(pickle.FRAME)
def _frame(machine: Machine) -> None:
    machine.source.take(8)  # frames follow one another without a gap


@_on(pickle.READONLY_BUFFER)
def _readonly(machine: Machine) -> None:
    pass


@_on(pickle.MARK)
def _mark(machine: Machine) -> None:
    if len(machine.below) == MARKS:
        raise Refused("holds containers too deep to be a checkpoint")
    machine.below.append(machine.stack)
    machine.stack = []


@_on(pickle.POP)
def _drop(machine: Machine) -> None:
    if machine.stack:
        machine.stack.pop()
    else:
        machine.marked()


@_on(pickle.POP_MARK)
def _drop_marked(machine: Machine) -> None:
    machine.marked()


_push(pickle.DUP, lambda machine: machine.stack[-1])
_push(pickle.GET, lambda machine: machine.memo[int(machine.source.line())])
_push(pickle.BINGET, lambda machine: machine.memo[_byte(machine)])
_push(pickle.LONG_BINGET, lambda machine: machine.memo[_long(machine)])


@_on(pickle.PUT)
def _put(machine: Machine) -> None:
    machine.memo[int(machine.source.line())] = machine.stack[-1]


@_on(pickle.BINPUT)
def _binput(machine: Machine) -> None:
    machine.memo[_byte(machine)] = machine.stack[-1]


@_on(pickle.LONG_BINPUT)
def _long_binput(machine: Machine) -> None:
    machine.memo[_long(machine)] = machine.stack[-1]


@_on(pickle.MEMOIZE)
def _memoize(machine: Machine) -> None:
    machine.memo[len(machine.memo)] = machine.stack[-1]
