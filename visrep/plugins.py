"""Parts of a stranger: modules named by `plugins=`, which are imported and trusted from then on.

A module is looked at for what it holds: classes that a yaml names with `_target_` (a method, a data
set, a backbone, a view operation), a checkpoint format (`NAME`, `recognise`, `read`), a section of
the report (`render`). Every kind is described in docs/extending.md.
"""

import importlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

from visrep.errors import ConfigError

_loaded: dict[str, ModuleType] = {}


def load(names: Sequence[str]) -> None:
    """Import the modules `names`; the current folder is searched last, so it shadows nothing.

    Raises:
        ConfigError: a module is not found or fails when it is imported; the message names it.
    """
    here = str(Path.cwd())
    if names and here not in sys.path:
        sys.path.append(here)
    for name in names:
        try:
            _loaded[name] = importlib.import_module(name)
        except ModuleNotFoundError as error:
            if error.name is not None and (name == error.name or name.startswith(f"{error.name}.")):
                raise ConfigError(
                    f"plugins={name}: there is no such module in {here} or on PYTHONPATH"
                ) from error
            raise ConfigError(
                f"plugins={name}: it imports {error.name}, which is missing"
            ) from error
        except Exception as error:
            raise ConfigError(f"plugins={name}: importing it fails: {error!r}") from error


def names() -> list[str]:
    """The modules that were loaded."""
    return list(_loaded)


def trusted(target: str) -> bool:
    """Whether the dotted name `target` lies in a module that was named in `plugins=`."""
    return any(target.startswith(f"{name}.") for name in _loaded)


def having(*members: str) -> Iterator[ModuleType]:
    """The plugin modules that hold all of `members`."""
    return (m for m in _loaded.values() if all(hasattr(m, member) for member in members))
