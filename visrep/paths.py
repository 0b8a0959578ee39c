"""Where configs and caches are: in a checkout, an editable install and a wheel alike."""

import os
from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent


def config_dir() -> Path:
    """The folder of the yaml files, absolute."""
    return _PACKAGE / "configs"


def cache_dir() -> Path:
    """The folder for what can be made again: `$VISREP_CACHE`, else `~/.cache/visrep`."""
    return Path(os.environ.get("VISREP_CACHE") or Path.home() / ".cache" / "visrep")
