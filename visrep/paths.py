"""Where configs and caches are: in a checkout, an editable install and a wheel alike."""

import os
from pathlib import Path

from visrep.errors import UserError

_PACKAGE = Path(__file__).resolve().parent
LINKED = ("pretrain", "transfer", "distill", "tools", "configs")


def config_dir() -> Path:
    """The folder of the yaml files, absolute."""
    return _PACKAGE / "configs"


def require_links() -> None:
    """Raise UserError where git has written the links inside the package as small text files."""
    broken = [name for name in LINKED if (_PACKAGE / name).is_file()]
    if broken:
        raise UserError(
            f"{_PACKAGE / broken[0]} is a text file where a link to ../{broken[0]} should be: let "
            "git make links (Windows: developer mode, then `git config core.symlinks true` and "
            "`git checkout -- visrep`), or install visrep from its wheel"
        )


def cache_dir() -> Path:
    """The folder for what can be made again: `$VISREP_CACHE`, else `~/.cache/visrep`."""
    return Path(os.environ.get("VISREP_CACHE") or Path.home() / ".cache" / "visrep")
