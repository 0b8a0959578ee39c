"""PASCAL VOC's annotations, with any classes; where they lie is `voc_files`' matter.

Unlike the devkit's own readers it takes float coordinates, other classes, png images, lists of one
line and lists with a second column, and says which file is wrong.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
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
from visrep.data.detection.classes import choose, nearest, say_ignored
from visrep.data.detection.fields import flag
from visrep.data.detection.places import located, present
from visrep.data.detection.voc_files import (
    Images,
    Layout,
    all_ids,
    ids_of_all_lists,
    layout,
    listed_ids,
)
from visrep.data.images import BrokenImage, image_size
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
            class: present, only difficult, absent), where those with -1 are left out. Or the name
            of a folder with annotations beside their images. None = every annotation there is.
        classes: their names in order, objects of others are ignored; None = the names in the
            annotations that any list has, sorted.
        on_bad: "report" skips boxes without area, cuts those that leave the image, and notes both
            in `.skipped`; "raise" makes each an error.
        depth: what is black and white in images of more than 8 bits: `visrep.data.depth`.

    Raises:
        UserError: a folder, list, annotation or image is missing, an annotation has no annotated
            image, is no XML, has a DTD or entities, or none of `classes` is there.
    """
    return with_depth(_read_set(root, split, classes, on_bad, only=None), depth)


def read_voc_sets(
    root: str | Path | None,
    sets: Sequence[str],
    *,
    classes: Sequence[str] | None = None,
    on_bad: str = "report",
    depth: Any = "auto",
) -> DetectionDataset:
    """Several VOC sets as one: `sets` are YEAR/SPLIT under `root`, such as "VOC2007/trainval".

    Args:
        root: the folder that holds VOC2007 and VOC2012; the one folder where only one is named.
        classes: some of VOC's twenty in order, or others; objects of the rest are ignored. None =
            the twenty, and an object of another class is an error.

    Raises as `read_voc`.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    only = VOC_CLASSES if classes is None else None
    parts = []
    alone = len({entry.rpartition("/")[0] for entry in sets}) == 1
    for entry in sets:
        year, _, split = entry.rpartition("/")
        place = Path(root).expanduser() / year
        if not place.is_dir():
            annotations = place / "Annotations"
            place = present(
                located(annotations, root) if alone else annotations, root, kind="folder"
            ).parent
        parts.append(_read_set(place, split, classes, on_bad, only=only))
    together = DetectionDataset(
        name="+".join(part.name for part in parts),
        classes=parts[0].classes,
        records=[record for part in parts for record in part.records],
        skipped=[line for part in parts for line in part.skipped],
        ignored=sum((Counter(part.ignored) for part in parts), Counter()),
    )
    return with_depth(together, depth)


@dataclass
class _Reading:
    """What is the same for all annotations of a set.

    `strict`: an object of a class that `index` has not is an error, not `ignored`.
    """

    at: Layout
    images: Images
    index: dict[str, int]
    problems: Problems
    strict: bool
    ignored: Counter[str] = field(default_factory=Counter)


def _read_set(
    root: str | Path | None,
    split: str | None,
    classes: Sequence[str] | None,
    on_bad: str,
    *,
    only: Sequence[str] | None,
) -> DetectionDataset:
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = existing_folder(root, "detection.root")
    at = layout(place, split)
    images = Images(at.images)
    by_list = split is not None and at.lists is not None
    ids = listed_ids(at, str(split)) if by_list else all_ids(at, images)
    if only is None:
        found = _found_classes(at, ids_of_all_lists(at) if by_list else ids)
        if not found:
            raise UserError(f"the annotations in {at.annotations} have no objects; annotate some")
        known = choose(found, classes, str(at.annotations))
    else:
        known = list(only)
    index = {name: i for i, name in enumerate(known)}
    reading = _Reading(at, images, index, Problems(on_bad), strict=only is not None)
    records = [_read(reading, id_) for id_ in ids]
    name = f"{place.name}/{split or 'all'}"
    say_ignored(reading.ignored, name)
    lines = reading.problems.close(name)
    return DetectionDataset(name, known, records, lines, reading.ignored)


def _found_classes(at: Layout, ids: Sequence[str]) -> list[str]:
    found = set()
    for id_ in ids:
        path = at.annotations / f"{id_}.xml"
        for number, item in enumerate(_parse(path).findall("object"), start=1):
            found.add(_text(item, "name", f"{path}: object {number}"))
    return sorted(found)


def _read(reading: _Reading, id_: str) -> ImageRecord:
    path = reading.at.annotations / f"{id_}.xml"
    root = _parse(path)
    image = _image_of(reading.images, id_, root, path)
    try:
        height, width = _size(root, path) or image_size(image)
    except BrokenImage as error:
        return ImageRecord(str(image), id_, 0, 0, broken=error.reason)
    record = ImageRecord(str(image), id_, height, width)
    for number, item in enumerate(root.findall("object"), start=1):
        name = _text(item, "name", f"{path}: object {number}")
        where = f"{path}: object {number} ({name})"
        if name not in reading.index:
            if reading.strict:
                raise UserError(
                    f"{path}: class {name} of object {number} is unknown"
                    f"{nearest(name, list(reading.index))}; known are {', '.join(reading.index)}: "
                    "correct it or give detection.classes"
                )
            reading.ignored[name] += 1
            continue
        frame = item.find("bndbox")
        if frame is None:
            raise UserError(f"{where} has no bndbox; add it or remove the object")
        xmin, ymin, xmax, ymax = (
            _number(frame, k, where) for k in ("xmin", "ymin", "xmax", "ymax")
        )
        if xmax <= xmin or ymax <= ymin:  # in VOC's own numbers, before the -1 gives it a pixel
            shown = f"xmin={xmin:g} ymin={ymin:g} xmax={xmax:g} ymax={ymax:g}"
            reading.problems.add(where, f"box {shown} has no area or is inverted", "skipped")
            continue
        corners = (xmin - 1, ymin - 1, xmax, ymax)
        box = usable_box(corners, height, width, where, reading.problems)
        if box is not None:
            difficult = flag(_difficult(item), "difficult", where)
            record.boxes.append(Box(box, reading.index[name], difficult=difficult))
    return record


def _difficult(item: Element) -> str:
    """The text of the flag; some tools write "Unspecified" where they know nothing of it."""
    text = (item.findtext("difficult") or "").strip()
    return "" if text.lower() == "unspecified" else text


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


def _image_of(images: Images, id_: str, root: Element, annotation: Path) -> Path:
    """The image of the same name, or the one that the annotation's <filename> gives."""
    image = images.find(id_)
    if image is not None:
        return image
    name = (root.findtext("filename") or "").strip().replace("\\", "/")
    for stated in dict.fromkeys((name, name.rpartition("/")[2])):
        if stated and not Path(stated).is_absolute():
            path = inside(images.folder, stated, str(annotation))
            found = path if path.is_file() else images.find(str(Path(stated).with_suffix("")))
            if found is not None:
                return found
    also = f", nor the {name} that it names" if name else ""
    raise UserError(
        f"{annotation} has no image {images.folder / id_}.jpg (or .png ...){also}; add it, or "
        "remove the id from the list"
    )


def _size(root: Element, path: Path) -> tuple[int, int] | None:
    """(height, width) as annotated; None where the annotation has none."""
    texts = [root.findtext(f"size/{key}") for key in ("height", "width")]
    try:
        height, width = (round(float(text or 0)) for text in texts)
    except (ValueError, OverflowError) as error:
        raise UserError(f"{path}: size {texts} is no number; correct or remove it") from error
    return (height, width) if height > 0 and width > 0 else None


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
