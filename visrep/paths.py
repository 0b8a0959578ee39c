"""Where configs, tools and caches are: in a checkout, an editable install and a wheel alike."""

import importlib
import os
import sys
import types
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def _beside_or_inside(name: str) -> Path:
    """`visrep/NAME` in an installed wheel, `NAME` beside `visrep/` in a checkout."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


def config_dir() -> Path:
    """The folder of the yaml files, absolute."""
    return _beside_or_inside("configs")


def cache_dir() -> Path:
    """The folder for what can be made again: `$VISREP_CACHE`, else `~/.cache/visrep`."""
    return Path(os.environ.get("VISREP_CACHE") or Path.home() / ".cache" / "visrep")


def import_entry(module: str) -> types.ModuleType:
    """Import a command's module; `visrep.tools.x` is `tools/x` in a bare checkout."""
    if module.startswith("visrep.tools.") and "visrep.tools" not in sys.modules:
        package = types.ModuleType("visrep.tools")
        package.__path__ = [str(_beside_or_inside("tools"))]
        sys.modules["visrep.tools"] = package
    return importlib.import_module(module)
