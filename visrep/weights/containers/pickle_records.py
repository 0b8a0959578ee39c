"""What a pickle may mention, and what is made of it.

Checkpoints hold the arguments, settings and modules of the programs that wrote them, whose classes
nobody here knows and nobody imports: they become records. What no checkpoint holds is refused,
though nothing would run: a call of an unknown function (by Python's custom, a name in small
letters), and any mention of what opens files, starts programs or reaches the interpreter.
"""

import re
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from visrep.weights.containers.stored import Span

_MODULES = re.compile(
    r"(os|nt|posix|sys|subprocess|_posixsubprocess|shutil|tempfile|glob|pty|commands|popen2|signal|"
    r"importlib|imp|runpy|pkgutil|zipimport|code|codeop|pdb|bdb|timeit|profile|cProfile|trace|"
    r"pydoc|doctest|site|pip|ensurepip|venv|inspect|gc|io|_io|mmap|ctypes|_ctypes|cffi|socket|"
    r"_socket|http|httplib|urllib|urllib2|requests|webbrowser|ftplib|smtplib|telnetlib|asyncio|"
    r"multiprocessing|threading|_thread|concurrent|pickle|_pickle|cPickle|marshal|shelve|"
    r"cloudpickle|joblib|zipfile|tarfile|sqlite3|logging\.config|torch\.hub|torch\.jit|"
    r"torch\.package|torch\.utils\.cpp_extension|numpy\.f2py|numpy\.testing|"
    r"numpy\.distutils)\."
)
_NAMES = re.compile(
    r"builtins\.(eval|exec|execfile|compile|open|file|input|raw_input|__import__|setattr|"
    r"delattr|globals|locals|vars|breakpoint|apply|reload)(\.|$)|types\.(FunctionType|CodeType)|"
    r"operator\.(methodcaller|attrgetter)|torch\.load$|numpy\.loads?$"
)
_RENAMED = (
    ("__builtin__.", "builtins."),
    ("copy_reg.", "copyreg."),
    ("numpy._core.", "numpy.core."),
)


class Refused(Exception):
    """The pickle wants what it must not have; the message is a clause that follows the path."""


class Damaged(Exception):
    """The pickle is none, or not whole."""


@dataclass(eq=False, repr=False, slots=True)
class Global:
    """A name that a pickle mentions: a class, a function, a data type.

    Attributes:
        name: module and qualified name, with today's names of Python 2's and NumPy's modules.
    """

    name: str

    def __repr__(self) -> str:
        return self.name


@dataclass(eq=False, repr=False, slots=True)
class Inert:
    """An object that a pickle describes, as a record of the description.

    Attributes:
        name: of its class.
        args: what it is made of.
        state: its attributes, in most cases a dict.
        items: of a mapping.
        elements: of a sequence.
    """

    name: str
    args: tuple[Any, ...] = ()
    state: Any = None
    items: dict[Any, Any] = field(default_factory=dict)
    elements: list[Any] = field(default_factory=list)

    def __repr__(self) -> str:
        return self.name  # what it holds may hold itself

    def fields(self) -> dict[Any, Any]:
        """What it holds by name, whichever way its class is pickled: items and attributes.

        A frozen mapping is made of one dict, or has it as an attribute.
        """
        held = dict(self.items)
        if len(self.args) == 1 and isinstance(self.args[0], dict):
            held |= self.args[0]
        if isinstance(self.state, dict):
            inner = [self.state.get(name) for name in ("_mapping", "_storage", "_dict")]
            held |= next((m for m in inner if isinstance(m, dict)), self.state)
        return held


@dataclass(eq=False, repr=False, slots=True)
class Record(Global):
    """A class that is its fields: objects of it are `Inert` with these as their state."""

    fields: tuple[str, ...]


@dataclass(eq=False, repr=False, slots=True)
class Blob:
    """Long bytes, or with `text` a long text in UTF-8, which is left in the file."""

    span: Span
    text: bool

    def read(self) -> Tensor:
        """The bytes, as a tensor of uint8; of a text, one for each character.

        Raises:
            OSError, ValueError: see `Span.read`; or a character is no byte.
        """
        data = self.span.read()
        if self.text:
            data = torch.frombuffer(
                bytearray(str(data.numpy().data, "utf-8").encode("latin1")), dtype=torch.uint8
            )
        return data


def mention(module: str, name: str) -> Global:
    """The record of a name.

    Raises:
        Refused: no checkpoint mentions it.
    """
    full = f"{module}.{name}"
    for old, new in _RENAMED:
        if full.startswith(old):
            full = new + full.removeprefix(old)
    if _MODULES.match(full) or _NAMES.match(full):
        raise wants_to_run(full)
    return Global(full)


def make(kind: Any, args: Any, *, new: bool) -> Inert:
    """The record of the object that `kind` makes of `args`; `new`: `kind` must be a class.

    Raises:
        Refused: `kind` is an unknown function, or neither.
    """
    if not isinstance(kind, Global) or not isinstance(args, tuple):
        raise Refused("calls what is no function and no class")
    if isinstance(kind, Record):
        return Inert(kind.name, args, dict(zip(kind.fields, args, strict=True)))
    if new or kind.name.rpartition(".")[2].lstrip("_")[:1].isupper():
        return Inert(kind.name, args)
    raise wants_to_run(kind.name)


def wants_to_run(name: str) -> Refused:
    return Refused(f"asks to run {printable(name)} when it is opened, which visrep never does")


def printable(text: str) -> str:
    """`text` from a file, fit for a line on a terminal."""
    text = "".join(c if c.isprintable() else "?" for c in text[:61])
    return text if len(text) <= 60 else f"{text[:57]}..."


def key(value: Any) -> Any:
    """`value`, if it is quick to hash: nested tuples may take for ever."""
    if isinstance(value, str | float | bytes | Global | Inert | None):
        return value
    if isinstance(value, int) and -(1 << 63) <= value < 1 << 64:
        return value
    flat = isinstance(value, tuple) and not any(isinstance(item, tuple) for item in value[:32])
    if flat and len(value) <= 32:
        return tuple(map(key, value))
    raise Refused("has a key that is no name and no number")
