"""What lies in a folder of images."""

import os
from pathlib import Path

from visrep.data.images import SUFFIXES
from visrep.errors import ConfigError, UserError


def existing(root: str | None) -> Path:
    """`root` as an absolute path; a one-line error if it is not given or no folder."""
    if root is None:
        raise ConfigError("this data needs a folder: add data.root=PATH")
    place = Path(root).expanduser()
    if not place.is_dir():
        raise UserError(f"{place} is not a folder; give an existing one as data.root=PATH")
    return place.resolve()


def sub_folders(place: Path) -> list[Path]:
    """The folders in `place`, sorted by name; hidden ones left out."""
    return sorted(
        (child for child in place.iterdir() if child.is_dir() and child.name[0] != "."),
        key=lambda child: child.name,
    )


def image_names(place: Path, *, recursive: bool = False) -> list[str]:
    """Image files in `place`, relative and with forward slashes, in torchvision's order."""
    found = []
    for folder_name, inner, files in os.walk(place, onerror=_refuse, followlinks=True):
        inner[:] = [name for name in inner if name[0] != "."] if recursive else []
        found += [
            (folder_name, file)
            for file in files
            if file.lower().endswith(SUFFIXES) and file[0] != "."
        ]
    return [(Path(at).relative_to(place) / file).as_posix() for at, file in sorted(found)]


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot read folder {error.filename}: {error.strerror}; check its permissions")
