"""PASCAL VOC's layout, with any classes: Annotations/ID.xml, ImageSets/Main/SPLIT.txt, JPEGImages/.

Unlike the devkit's own readers it takes float coordinates, other classes, png images, lists of one
line and lists with a second column, and says which file is wrong.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

import defusedxml.ElementTree
from defusedxml import DefusedXmlException

from visrep.data.detection.boxes import (
    Box,
    DetectionDataset,
    ImageRecord,
    Problems,
    existing_folder,
    inside,
    usable_box,
    with_depth,
)
from visrep.data.images import SUFFIXES, image_size
from visrep.errors import ConfigError, UserError

# fmt: off
VOC_CLASSES = (
    "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow",
    "diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train",
    "tvmonitor",
)
# fmt: on


def read_voc(
    root: str | Path | None,
    split: str | None,
    *,
    classes: Sequence[str] | None = None,
    on_bad: str = "report",
    depth: Any = "auto",
) -> DetectionDataset:
    """Read `root/ImageSets/Main/SPLIT.txt` and the annotations and images that it lists.

    VOC counts pixels from 1 and includes the last one, so a box is (xmin - 1, ymin - 1, xmax,
    ymax) in continuous coordinates.

    Args:
        split: a list's name; a line is an id, or an id with 1, 0 or -1 after it (VOC's lists per
            class: present, only difficult, absent), where those with -1 are left out. None = every
            annotation there is.
        classes: their names in order; None = the names found in `Annotations`, sorted.
        on_bad: "report" skips boxes without area, cuts those that leave the image, and notes both
            in `.skipped`; "raise" makes each an error.
        depth: what is black and white in images of more than 8 bits: `visrep.data.depth`.

    Raises:
        UserError: a folder, list, annotation or image is missing, an annotation has no annotated
            image, is no XML, has a DTD or entities, or a class that `classes` has not.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = existing_folder(root, "detection.root")
    annotations, images = place / "Annotations", place / "JPEGImages"
    for folder in (annotations, images):
        if not folder.is_dir():
            deeper = [child.name for child in place.iterdir() if (child / folder.name).is_dir()]
            hint = f" (perhaps {place / deeper[0]})" if deeper else ""
            raise UserError(
                f"{place} has no folder {folder.name}; give the one that holds Annotations, "
                f"JPEGImages and ImageSets{hint}"
            )
    ids = _all_ids(annotations, images) if split is None else _listed_ids(place, split)
    known = _found_classes(annotations) if classes is None else [str(name) for name in classes]
    if not known:
        raise UserError(f"the annotations in {annotations} have no objects; annotate some")
    index = {name: i for i, name in enumerate(known)}
    problems = Problems(on_bad)
    name = f"{place.name}/{split or 'all'}"
    records = [_read(annotations, images, id_, index, problems) for id_ in ids]
    dataset = DetectionDataset(name, known, records, problems.close(name))
    return with_depth(dataset, depth)


def read_voc_sets(
    root: str | Path | None,
    sets: Sequence[str],
    *,
    classes: Sequence[str] = VOC_CLASSES,
    on_bad: str = "report",
    depth: Any = "auto",
) -> DetectionDataset:
    """Several VOC sets as one: `sets` are YEAR/SPLIT under `root`, such as "VOC2007/trainval".

    Raises as `read_voc`.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    parts = []
    for entry in sets:
        year, _, split = entry.rpartition("/")
        place = Path(root) / year
        parts.append(read_voc(place, split, classes=classes, on_bad=on_bad, depth=depth))
    return DetectionDataset(
        name="+".join(part.name for part in parts),
        classes=[str(name) for name in classes],
        records=[record for part in parts for record in part.records],
        skipped=[line for part in parts for line in part.skipped],
    )


def _listed_ids(place: Path, split: str) -> list[str]:
    lists = place / "ImageSets" / "Main"
    path = inside(lists, f"{split}.txt", f"split {split}")
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        there = sorted(file.stem for file in lists.glob("*.txt"))[:8] if lists.is_dir() else []
        raise UserError(
            f"{path} is not there; choose from {', '.join(there)}"
            if there
            else f"{path} is not there; write one with an image id on each line"
        ) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or "it is no text file"
        raise UserError(f"cannot read list {path}: {reason}; give a list of ids") from error
    chosen: dict[str, int] = {}
    for number, line in enumerate(lines, start=1):
        id_ = line.strip()
        columns = id_.split()
        if len(columns) == 2 and columns[1] in ("1", "+1", "0", "-1"):
            if columns[1] == "-1":
                continue
            id_ = columns[0]
        if not id_:
            continue
        if id_ in chosen:
            raise UserError(f"{path}:{number}: {id_} is also on line {chosen[id_]}; remove one")
        if not inside(place, f"Annotations/{id_}.xml", f"{path}:{number}").is_file():
            raise UserError(
                f"{path}:{number}: {id_} has no annotation {place}/Annotations/{id_}.xml; add it "
                "or remove the line"
            )
        chosen[id_] = number
    if not chosen:
        raise UserError(f"list {path} has no ids; put one on each line")
    return list(chosen)


def _all_ids(annotations: Path, images: Path) -> list[str]:
    ids = {path.stem for path in annotations.glob("*.xml")}
    for path in sorted(images.iterdir()):
        if path.suffix.lower() in SUFFIXES and path.stem not in ids:
            raise UserError(
                f"image {path} has no annotation {annotations / path.stem}.xml; add it (without "
                "objects if there are none) or remove the image"
            )
    if not ids:
        raise UserError(f"{annotations} has no xml files; put the annotations there")
    return sorted(ids)


def _found_classes(annotations: Path) -> list[str]:
    found = set()
    for path in sorted(annotations.glob("*.xml")):
        for number, item in enumerate(_parse(path).findall("object"), start=1):
            found.add(_text(item, "name", f"{path}: object {number}"))
    return sorted(found)


def _read(
    annotations: Path, images: Path, id_: str, index: dict[str, int], problems: Problems
) -> ImageRecord:
    path = annotations / f"{id_}.xml"
    root = _parse(path)
    image = _image_of(images, id_, path)
    height, width = _size(root, path, image)
    record = ImageRecord(str(image), id_, height, width)
    for number, item in enumerate(root.findall("object"), start=1):
        name = _text(item, "name", f"{path}: object {number}")
        where = f"{path}: object {number} ({name})"
        if name not in index:
            raise UserError(
                f"{path}: class {name} of object {number} is unknown; known are "
                f"{', '.join(index)}: correct it or give detection.classes"
            )
        frame = item.find("bndbox")
        if frame is None:
            raise UserError(f"{where} has no bndbox; add it or remove the object")
        xmin, ymin, xmax, ymax = (
            _number(frame, k, where) for k in ("xmin", "ymin", "xmax", "ymax")
        )
        if xmax <= xmin or ymax <= ymin:  # in VOC's own numbers, before the -1 gives it a pixel
            shown = f"xmin={xmin:g} ymin={ymin:g} xmax={xmax:g} ymax={ymax:g}"
            problems.add(where, f"box {shown} has no area or is inverted", "skipped")
            continue
        box = usable_box((xmin - 1, ymin - 1, xmax, ymax), height, width, where, problems)
        if box is not None:
            difficult = (item.findtext("difficult") or "0").strip() == "1"
            record.boxes.append(Box(box, index[name], difficult=difficult))
    return record


def _parse(path: Path) -> Element:
    try:
        root = defusedxml.ElementTree.parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise UserError(
            f"{path} has a DTD or entities, which are refused; remove them from the file"
        ) from error
    except (ParseError, ValueError, OSError) as error:
        raise UserError(f"{path} is no readable XML ({error}); repair or remove it") from error
    assert root is not None
    return root


def _image_of(images: Path, id_: str, annotation: Path) -> Path:
    for suffix in (*SUFFIXES, *(suffix.upper() for suffix in SUFFIXES)):
        path = images / f"{id_}{suffix}"
        if path.is_file():
            return path
    raise UserError(
        f"{annotation} has no image {images / id_}.jpg (or .png ...); add it, or remove the id "
        "from the list"
    )


def _size(root: Element, path: Path, image: Path) -> tuple[int, int]:
    """(height, width) as annotated; from the image where the annotation has none."""
    texts = [root.findtext(f"size/{key}") for key in ("height", "width")]
    try:
        height, width = (round(float(text or 0)) for text in texts)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: size {texts} is no number; correct or remove it") from error
    return (height, width) if height > 0 and width > 0 else image_size(image)


def _text(item: Element, key: str, where: str) -> str:
    text = (item.findtext(key) or "").strip()
    if not text:
        raise UserError(f"{where} has no {key}; add it")
    return text


def _number(frame: Element, key: str, where: str) -> float:
    text = _text(frame, key, where)
    try:
        return float(text)
    except ValueError as error:
        raise UserError(f"{where}: {key}={text} is no number; correct it") from error
