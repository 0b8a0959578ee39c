"""The files of a PASCAL VOC data set: where they lie, the lists of its splits, the images of ids.

ROOT/Annotations/ID.xml  ROOT/JPEGImages/ID.jpg  ROOT/ImageSets/Main/SPLIT.txt   the devkit's
ROOT/SPLIT/ID.xml  ROOT/SPLIT/ID.jpg                                             a common export
ROOT/ID.xml  ROOT/ID.jpg, with ROOT/ImageSets/Main/SPLIT.txt or without lists    of one folder
"""

import os
from dataclasses import dataclass, field
from pathlib import Path

from visrep.data.detection.boxes import inside
from visrep.data.images import SUFFIXES, is_image_name
from visrep.errors import UserError


@dataclass(frozen=True)
class Layout:
    """Where a set's annotations and images lie, and its lists; `lists` None = every annotation."""

    annotations: Path
    images: Path
    lists: Path | None


def layout(place: Path, split: str | None) -> Layout:
    """The layout of the folder `place`. Raises UserError, with what to do, when it has none."""
    lists = None if split is None else place / "ImageSets" / "Main"
    if (place / "Annotations").is_dir() and (place / "JPEGImages").is_dir():
        return Layout(place / "Annotations", place / "JPEGImages", lists)
    part = None if split is None else inside(place, split, f"split {split}")
    if part is not None and xml_names(part):
        return Layout(part, part, None)
    if xml_names(place):
        return Layout(place, place, lists)
    missing = "Annotations" if not (place / "Annotations").is_dir() else "JPEGImages"
    folders = sorted(child for child in place.iterdir() if child.is_dir() and _seen(child.name))
    deeper = [child for child in folders if (child / missing).is_dir()]
    parts = [child.name for child in folders if xml_names(child) and child.name != "Annotations"]
    advice = f" (perhaps {deeper[0]})" if deeper else ""
    if parts:
        advice = (
            f", or choose among its folders {', '.join(parts)} with detection.train.split= and "
            "detection.test.split="
        )
    elif not deeper:
        advice = f" (folders there: {', '.join(child.name for child in folders) or 'none'})"
    raise UserError(
        f"{place} has no folder {missing}; give the one that holds Annotations, JPEGImages and "
        f"ImageSets{advice}"
    )


def xml_names(folder: Path) -> list[str]:
    """Names, without suffix, of the xml files in `folder`, sorted; hidden files are no data."""
    if not folder.is_dir():
        return []
    names = (name for name in os.listdir(folder) if _seen(name))
    return sorted(Path(name).stem for name in names if name.endswith(".xml"))


def read_lines(path: Path) -> list[str]:
    """The lines of a list, stripped, with or without a byte order mark.

    Raises:
        FileNotFoundError: there is no such file.
        UserError: it cannot be read.
    """
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8-sig").splitlines()]
    except FileNotFoundError:
        raise
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise UserError(f"cannot read list {path}: {reason}; give a list of ids") from error


def listed_ids(at: Layout, split: str) -> list[str]:
    """Ids that the list of `split` names.

    A line is an id; or an id with 1, 0 or -1 after it (VOC's lists per class), of which those with
    -1 are left out. An id may end so itself: a line that is an annotation's name is that.

    Raises:
        UserError: the list is missing, empty, has an id twice, or one without an annotation.
    """
    assert at.lists is not None
    path = inside(at.lists, f"{split}.txt", f"split {split}")
    try:
        lines = read_lines(path)
    except FileNotFoundError:
        there = sorted(p.stem for p in at.lists.glob("*.txt") if _seen(p.name))[:8]
        raise UserError(
            f"{path} is not there; choose from {', '.join(there)}"
            if there
            else f"{path} is not there; write one with an image id on each line"
        ) from None
    chosen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        where = f"{path}:{number}"
        id_ = _id_of(line, at, where)
        if not id_:
            continue
        if id_ in chosen:
            raise UserError(f"{where}: {id_} is also on line {chosen[id_]}; remove one")
        if not _annotation(at, id_, where).is_file():
            raise UserError(
                f"{where}: {id_} has no annotation {at.annotations / id_}.xml; add it or remove "
                "the line"
            )
        chosen[id_] = number
    if not chosen:
        raise UserError(f"list {path} has no ids; put one on each line")
    return list(chosen)


def ids_of_all_lists(at: Layout) -> list[str]:
    """Sorted ids with an annotation that any list names; of every annotation without lists."""
    names: set[str] = set()
    for path in sorted(at.lists.glob("*.txt")) if at.lists is not None else ():
        if _seen(path.name):
            for line in read_lines(path):
                names |= {line, line.rsplit(None, 1)[0]} if _has_column(line) else {line}
    there = xml_names(at.annotations)
    return [name for name in there if name in names] if names else there


def all_ids(at: Layout, images: "Images") -> list[str]:
    """Ids of every annotation. Raises UserError for an image without one."""
    ids = xml_names(at.annotations)
    bare = sorted(images.names() - set(ids))
    if bare:
        raise UserError(
            f"image {images.find(bare[0])} has no annotation {at.annotations / bare[0]}.xml; add "
            "it (without objects if there are none) or remove the image"
        )
    if not ids:
        raise UserError(f"{at.annotations} has no xml files; put the annotations there")
    return ids


@dataclass
class Images:
    """The images of a folder by their names without suffix, whatever its case."""

    folder: Path
    _known: dict[Path, dict[str, Path]] = field(default_factory=dict)

    def names(self) -> set[str]:
        """Those directly in the folder."""
        return set(self._in(self.folder))

    def find(self, id_: str) -> Path | None:
        """The image of `id_`, which may name a folder in this one; None where there is none."""
        path = self.folder / id_
        return self._in(path.parent).get(path.name)

    def _in(self, folder: Path) -> dict[str, Path]:
        if folder not in self._known:
            found: dict[str, Path] = {}
            names = os.listdir(folder) if folder.is_dir() else []
            for suffix in SUFFIXES:
                for name in sorted(names):
                    if is_image_name(name) and name.lower().endswith(suffix):
                        found.setdefault(name[: -len(suffix)], folder / name)
            self._known[folder] = found
        return self._known[folder]


def _id_of(line: str, at: Layout, where: str) -> str:
    """The id that a line chooses; empty where it chooses none."""
    if not _has_column(line) or _annotation(at, line, where).is_file():
        return line
    id_, column = line.rsplit(None, 1)
    return "" if column == "-1" else id_


def _has_column(line: str) -> bool:
    words = line.split()
    return len(words) > 1 and words[-1] in ("1", "+1", "0", "-1")


def _annotation(at: Layout, id_: str, where: str) -> Path:
    inside(at.annotations.parent, f"{at.annotations.name}/{id_}.xml", where)
    return at.annotations / f"{id_}.xml"


def _seen(name: str) -> bool:
    return not name.startswith(".")
