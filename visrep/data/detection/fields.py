"""Values of annotation files as programs write them: numbers, ids and flags, as text too.

A merge or a detour through a table turns 7 into "7" or 7.0, and 0 into "0", which Python takes for
true. Each value is read as what it says; one that says nothing is refused with file and key.
"""

import math
import re
from typing import Any

from visrep.errors import UserError

_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)
_FLAGS = {"0": False, "false": False, "no": False, "1": True, "true": True, "yes": True}


def field(entry: Any, key: str, where: str) -> Any:
    """The single value of `key`. Raises UserError when there is none."""
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise UserError(f"{where} has no {key!r}; add it")
    if isinstance(entry[key], list | dict):
        raise UserError(f"{where}: {key!r} must be a single value; correct it")
    return entry[key]


def identity(entry: Any, key: str, where: str) -> int | str:
    """An id: 7, 7.0, "7" and "7.0" are one; other text is itself. Raises UserError."""
    value = field(entry, key, where)
    text = str(int(value) if isinstance(value, float) and value.is_integer() else value).strip()
    if _WHOLE.fullmatch(text):
        return int(text.partition(".")[0])
    if not isinstance(value, str) or not text:
        raise UserError(f"{where}: {key} {value!r} is no id; make it a whole number or a text")
    return text


def number(value: Any, key: str, where: str) -> float:
    """A finite number. Raises UserError."""
    try:
        if isinstance(value, bool):
            raise ValueError
        read = float(value)
        if not math.isfinite(read):
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise UserError(f"{where}: {key} {value!r} is no number; correct it") from error
    return read


def side(value: Any, key: str, where: str) -> int | None:
    """Width or height in pixels; None where the file has none or 0. Raises UserError."""
    if value is None or (isinstance(value, str) and not value.strip()):
        return None
    read = number(value, key, where)
    if read < 0 or not read.is_integer():
        raise UserError(f"{where}: {key} {value!r} is no size in pixels; correct or remove it")
    return int(read) or None


def flag(value: Any, key: str, where: str) -> bool:
    """0 or 1, as number, text or truth value; False where there is none. Raises UserError."""
    if value is None or value == "":
        return False
    text = str(value).strip().lower()
    if isinstance(value, float) and value in (0, 1):
        text = str(int(value))
    if text not in _FLAGS:
        raise UserError(f"{where}: {key} is {value!r}; make it 0 or 1")
    return _FLAGS[text]
