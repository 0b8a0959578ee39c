"""Images and label images in folders of a user's own.

ROOT/images/SPLIT/ID.jpg  ROOT/labels/SPLIT/ID.png   or
ROOT/SPLIT/images/ID.jpg  ROOT/SPLIT/labels/ID.png   or
ROOT/images/ID.jpg        ROOT/labels/ID.png   with the ids of a split in ROOT/SPLIT.txt
ROOT/classes.txt: the class of id 0, of id 1, ...; 255 is no class.
"""

import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset, existing_folder, inside
from visrep.data.detection.voc_files import Images, read_lines
from visrep.data.images import is_image_name
from visrep.data.semantic.labels import coding_of
from visrep.data.semantic.pairs import dataset_of, pairs_of
from visrep.errors import ConfigError, UserError


def read_folder(
    root: str | Path | None,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    names: Sequence[str] | None = None,
    images: str = "images",
    labels: str = "labels",
    depth: Any = "auto",
) -> DetectionDataset:
    """The images of `split` with the classes of their pixels.

    Args:
        names: the class of id 0, of id 1, ...; None = the lines of classes.txt.
        classes: some of them, in order; pixels of the rest are ignored. None = all.
        images, labels: names of the two folders.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder or list is missing, an image has no label image or a label image no
            image, or classes.txt is missing, empty or has a name twice.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = existing_folder(root, "detection.root")
    known, where = _names(place, names)
    found, coding = coding_of(dict(enumerate(known)), classes, where=where)
    pictures, drawn, ids = _split(place, split, images, labels)
    pairs = pairs_of(ids, pictures, drawn)
    name = f"{place.name}/{split}"
    return dataset_of(pairs, name=name, classes=found, coding=coding, depth=depth)


def _names(place: Path, names: Sequence[str] | None) -> tuple[list[str], str]:
    path = place / "classes.txt"
    if names is None:
        try:
            lines = read_lines(path)
        except FileNotFoundError:
            raise UserError(
                f"{path} is not there; write the class of id 0, of id 1, ... on its lines, or give "
                "detection.names=[...]"
            ) from None
        while lines and not lines[-1]:
            lines.pop()
    else:
        lines = [str(name) for name in names]
    where = str(path) if names is None else "detection.names"
    if not lines or not all(lines):
        raise UserError(f"{where}: id {lines.index('') if lines else 0} has no name; give it one")
    twice = [name for name, count in Counter(lines).items() if count > 1]
    if twice:
        raise UserError(f"{where} has {twice[0]} twice; name each class once")
    return lines, where


def _split(place: Path, split: str, images: str, labels: str) -> tuple[Path, Path, list[str]]:
    """The folders of a split, and its ids."""
    inside(place, split, f"split {split}")
    for folder in (images, labels):
        inside(place, folder, f"folder {folder}")
    for pictures, drawn in (
        (place / images / split, place / labels / split),
        (place / split / images, place / split / labels),
    ):
        if pictures.is_dir() or drawn.is_dir():
            return pictures, drawn, _all_ids(pictures, drawn)
    listed = place / f"{split}.txt"
    if listed.is_file():
        ids = [line for line in read_lines(listed) if line]
        if not ids:
            raise UserError(f"list {listed} has no ids; put one on each line")
        twice = (
            sorted({id_ for id_ in ids if ids.count(id_) > 1}) if len(set(ids)) < len(ids) else []
        )
        if twice:
            raise UserError(f"list {listed} has {twice[0]} twice; remove one")
        for id_ in ids:
            inside(place, id_, str(listed))
        return place / images, place / labels, ids
    there = sorted(
        {child.name for child in (place / images).glob("[!.]*") if child.is_dir()}
        | {child.parent.name for child in place.glob(f"*/{images}") if child.is_dir()}
        | {child.stem for child in place.glob("[!.]*.txt") if child.stem != "classes"}
    )
    raise UserError(
        f"{place} has no {images}/{split}, {split}/{images} or {split}.txt; choose "
        "detection.train.split and detection.test.split from what is there: "
        f"{', '.join(there) or 'nothing'}"
    )


def _all_ids(pictures: Path, drawn: Path) -> list[str]:
    """Ids of every image below a folder. Raises UserError for label images without one."""
    for folder in (pictures, drawn):
        if not folder.is_dir():
            raise UserError(f"{folder} is not there; put the files of this part there")
    ids = _names_below(pictures)
    if not ids:
        raise UserError(f"{pictures} has no images; put some there")
    alone = sorted(set(_names_below(drawn)) - set(ids))
    if alone:
        file = Images(drawn).find(alone[0])
        raise UserError(f"label image {file} has no image in {pictures}; add it or remove this one")
    return ids


def _names_below(folder: Path) -> list[str]:
    """Names, without suffix, of the images in a folder and the folders in it, sorted."""
    found = set()
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = Path(parent).relative_to(folder)
        found |= {
            (inner / name).with_suffix("").as_posix() for name in files if is_image_name(name)
        }
    return sorted(found)
