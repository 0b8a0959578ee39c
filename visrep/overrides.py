"""What the user types after a command: `key=value`, in Hydra's grammar but for paths.

A path is taken as it is typed: `out=2024_02`, `weights=epoch=99.ckpt` and `data.root=photos (1)`
are names of files, whatever Hydra would make of them. Which keys hold paths is told by their names,
for keys of plugins too. Three things in a path are not literal: quotes around the whole of it, as
Hydra's users write them; interpolations (`out=runs/${seed}`); and `null`, where the key can do
without a value. Under `-m` commas separate the values of a sweep, so all is Hydra's there.
"""

import re
from collections.abc import Sequence
from dataclasses import replace

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException
from omegaconf.errors import GrammarParseError
from omegaconf.grammar_parser import parse as parse_interpolation

from visrep.errors import ConfigError

# The last word of a key that holds a path: root, data.root, detection.train.image_root.
_PATHS = {"out", "root", "weights", "prefix", "teacher", "detector", "runs", "config", "names"}
_PATHS |= {"annotations", "dir", "folder", "file", "path"}
_PATHS_OR_NUMBERS = {"labels"}  # a list file, or a share


def parse(overrides: Sequence[str]) -> list[Override]:
    """What the user typed, read as Hydra reads it, and paths as they are.

    Raises:
        ConfigError: it is no setting; the message names it.
    """
    return [_literal(line) if _is_literal(line) else _parsed(line) for line in overrides]


def first_of(override: str) -> str:
    """The setting with the first of a sweep's values: a=1,2 is a=1.

    Raises:
        ConfigError: it is none of Hydra's.
    """
    parsed = _parsed(override)
    if not parsed.is_sweep_override():
        return _unswept(override, parsed)
    try:
        values = list(parsed.sweep_string_iterator())
    except Exception as error:  # of Hydra's optimisers: interval(0,1)
        raise ConfigError(f"{override}: a sweep is a list of values, a=1,2") from error
    if not values:
        raise ConfigError(f"{override}: the sweep has no value")
    return as_typed(f"{override.partition('=')[0]}={values[0]}")


def as_typed(override: str) -> str:
    """A setting of one run of a sweep, as it can be typed without `-m`."""
    return _unswept(override, _parsed(override))


def for_hydra(override: str) -> str:
    """A setting under `-m` as Hydra wants it: a path that it takes for a number is quoted."""
    parsed = _parsed(override)
    key, _, value = override.partition("=")
    as_it_is = parsed.is_sweep_override() or isinstance(parsed.value(), str | None)
    return override if as_it_is or not _is_literal(override) else f"{key}={quoted(value)}"


def quoted(text: str) -> str:
    """`text` as a value that is read literally whatever is in it."""
    return QuotedString(text=text, quote=Quote.single).with_quotes()


def one_line(error: BaseException) -> str:
    """All that `error` says; some libraries put a line break where the reason begins."""
    lines = [line.strip() for line in str(error).splitlines()]
    return " ".join(filter(None, lines)) or type(error).__name__


def escaped(text: str) -> str:
    """`text` for a configuration: what looks like an interpolation, but is none, stays a text."""
    if "${" not in text:
        return text
    try:
        parse_interpolation(text)
    except GrammarParseError:
        return re.sub(r"(\\*)\$\{", r"\1\1\\${", text)
    return text


def holds_a_path(key: str) -> bool:
    """Whether the value of `key` is the name of a file or folder."""
    return re.split(r"[._]", key)[-1] in _PATHS


def _is_literal(line: str) -> bool:
    key, assigned, value = line.partition("=")
    if not assigned or key.startswith("~") or value == "null":
        return False
    a_list = key.rpartition(".")[2] in _PATHS_OR_NUMBERS and not _is_number(value)
    return holds_a_path(key) or a_list


def _is_number(value: str) -> bool:
    """1e-2 and .5 are; 2024_02 is the name of a file."""
    lists = value.startswith("[") and value.endswith("]")  # of shares: demo's labels=[0.01,0.1]
    parts = value[1:-1].split(",") if lists else [value]
    try:
        return "_" not in value and [float(part) for part in parts] != []
    except ValueError:
        return False


def _literal(line: str) -> Override:
    key, _, value = line.partition("=")
    if not value:
        raise ConfigError(f"{key}= has no value: give the name of a file or folder")
    if _wholly_quoted(value):
        return _parsed(line)
    return replace(_parsed(f"{key}=x"), _value=value, input_line=line)


def _wholly_quoted(value: str) -> bool:
    if len(value) < 2 or value[0] != value[-1] or value[0] not in "'\"":
        return False
    try:
        return isinstance(_parsed(f"x={value}")._value, QuotedString)
    except ConfigError:
        return False


def _unswept(line: str, parsed: Override) -> str:
    value = parsed.value()
    if not _is_literal(line) or not isinstance(value, str):
        return line
    key = line.partition("=")[0]
    plain = f"{key}={value}"
    return plain if not _wholly_quoted(value) else f"{key}={quoted(value)}"


def _parsed(line: str) -> Override:
    try:
        return OverridesParser.create().parse_overrides([line])[0]
    except (HydraException, RecursionError) as error:
        # Of the grammar's own words only the line's are of use.
        raise ConfigError(
            f"cannot read {_shown(line)}: {_shown(one_line(error), 200)}; put a value with special "
            "characters in quotes: \"key='a b'\""
        ) from error


def _shown(text: str, most: int = 80) -> str:
    return text if len(text) <= most else f"{text[:most]}..."
