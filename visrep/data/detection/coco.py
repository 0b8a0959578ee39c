"""COCO's json: boxes, masks as polygons or run-length codes, keypoints."""

import json
import logging
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

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
from visrep.data.detection.classes import choose, say_ignored
from visrep.data.detection.fields import field, flag, identity, number, side
from visrep.data.detection.keypoints import reader as keypoint_reader
from visrep.data.detection.places import located, present
from visrep.data.detection.segmentation import read_mask
from visrep.data.images import BrokenImage, image_size
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


def read_coco(
    annotations: str | Path | None,
    image_root: str | Path | None,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    keypoints: bool = False,
    keypoint_flips: Any = None,
    keypoint_sigmas: Any = None,
    on_bad: str = "report",
    depth: Any = "auto",
    root: str | Path | None = None,
) -> DetectionDataset:
    """Read a json of COCO's form, whose file names are relative to `image_root`.

    Numbers, ids and flags may be text. Two annotations with one id are two objects; pycocotools
    would take the last of them for both.

    Args:
        classes: names in order, boxes of others are ignored; None = the file's categories in the
            order of their ids.
        masks: also read the segmentations (seconds to a minute for all of COCO). One that cannot
            be read leaves its box without a mask, and is reported.
        keypoints: also read these, of the classes whose categories name some. What cannot be read
            is left out, and reported.
        keypoint_flips, keypoint_sigmas: see `visrep.data.detection.keypoints.reader`.
        on_bad, depth: as for `visrep.data.detection.voc.read_voc`.
        root: the folder of the data, which both paths may begin with (`places.located`).

    Raises:
        UserError: the file is not there, is no json of this form, names an image that is not there,
            has an id of an image or a name or id of a category twice, or an annotation refers to an
            image or category that the file has not, or has a value that says nothing.
    """
    if annotations is None or image_root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    path = present(located(annotations, root), root)
    content = load(path)
    folder = existing_folder(
        located(image_root, root), "detection.root (or image_root of the part)"
    )
    return from_content(
        path,
        content,
        folder,
        classes=classes,
        masks=masks,
        keypoints=keypoints,
        keypoint_flips=keypoint_flips,
        keypoint_sigmas=keypoint_sigmas,
        on_bad=on_bad,
        depth=depth,
    )


def from_content(
    path: Path,
    content: dict[str, Any],
    folder: Path,
    *,
    classes: Sequence[str] | None,
    masks: bool,
    keypoints: bool = False,
    keypoint_flips: Any = None,
    keypoint_sigmas: Any = None,
    on_bad: str,
    depth: Any,
) -> DetectionDataset:
    """The data set of what `load` read of the file `path`, whose images are in `folder`.

    Arguments and errors are those of `read_coco`.
    """
    names = _categories(path, content["categories"])
    known = choose(list(names.values()), classes, str(path))
    index = {name: i for i, name in enumerate(known)}
    problems = Problems(on_bad)
    points = None
    if keypoints:
        points = keypoint_reader(
            path,
            content["categories"],
            known,
            flips=keypoint_flips,
            sigmas=keypoint_sigmas,
            told=problems,
        )
    ignored: Counter[str] = Counter()
    records = _images(path, content["images"], folder)
    for i, entry in enumerate(_each_once(path, content["annotations"], problems)):
        where = _where(path, entry, i)
        image_id, category = (identity(entry, key, where) for key in ("image_id", "category_id"))
        if image_id not in records:
            raise UserError(f"{where} is of image {image_id}, which is not in the file; remove it")
        if category not in names:
            raise UserError(
                f"{where} has category {category}, which is unknown; known are "
                + ", ".join(f"{id_} {name}" for id_, name in names.items())
            )
        name, record = names[category], records[image_id]
        if name not in index:
            ignored[name] += 1
            continue
        if record.broken:
            continue
        where = f"{where} ({name} in {Path(record.file).name})"
        box = _box(entry, record, where, problems, masks=masks)
        if box is not None:
            box.category = index[name]
            if points is not None:
                size = (record.height, record.width)
                box.keypoints = points.read(entry, name, size, where, problems)
            record.boxes.append(box)
    say_ignored(ignored, str(path))
    lines = problems.close(path.stem)
    dataset = DetectionDataset(path.stem, known, list(records.values()), lines, ignored)
    if points is not None and points.places:
        dataset.keypoints = points.keypoints
    return with_depth(dataset, depth)


def load(path: Path) -> dict[str, Any]:
    """The lists of a file of COCO's form. Raises UserError where it is none."""
    try:
        content = json.loads(path.read_bytes())  # with or without a byte order mark
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}; give a json file") from error
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path} is no json ({error}); repair or replace it") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise UserError(
                f"{path} has no list {key!r}; a COCO file has images, annotations and categories"
            )
    for key in ("images", "categories"):
        if not content[key]:
            raise UserError(f"{path}: the list {key!r} is empty; add some")
    return content


def _categories(path: Path, entries: list[Any]) -> dict[int | str, str]:
    """Name of each id, in the order of the ids."""
    names: dict[int | str, str] = {}
    for i, entry in enumerate(entries):
        where = f"{path}: category {i}"
        id_, name = identity(entry, "id", where), str(field(entry, "name", where)).strip()
        if names.get(id_, name) != name:
            raise UserError(
                f"{path}: id {id_} is that of two categories, {names[id_]} and {name}; give each "
                "its own, and correct the annotations"
            )
        others = [other for other, known in names.items() if known == name and other != id_]
        if others:
            raise UserError(
                f"{path}: categories {others[0]} and {id_} are both called {name}; rename one, or "
                "give both one id"
            )
        names[id_] = name
    try:
        return {id_: names[id_] for id_ in sorted(names)}  # type: ignore[type-var]
    except TypeError as error:
        raise UserError(f"{path}: ids of categories are mixed; make all of them int") from error


def _images(path: Path, entries: list[Any], folder: Path) -> dict[int | str, ImageRecord]:
    records: dict[int | str, ImageRecord] = {}
    for i, entry in enumerate(entries):
        where = f"{path}: image {i}"
        id_, name = identity(entry, "id", where), str(field(entry, "file_name", where))
        if id_ in records:
            raise UserError(f"{where}: id {id_} is used twice; give each image its own")
        height, width = (side(entry.get(key), key, where) for key in ("height", "width"))
        file = inside(folder, name, where)
        if not file.is_file():
            raise UserError(f"{where}: {file} is not there; add it or correct the image root")
        record = ImageRecord(str(file), str(id_), height or 0, width or 0)
        if height is None or width is None:
            try:
                record.height, record.width = image_size(file)
            except BrokenImage as error:
                record.broken = error.reason
        records[id_] = record
    return records


def _each_once(path: Path, entries: list[Any], problems: Problems) -> list[Any]:
    """The annotations; one that is there twice, id and all, counts once."""
    kept: list[Any] = []
    seen: dict[Any, list[Any]] = {}
    shared = 0
    for i, entry in enumerate(entries):
        if isinstance(entry, dict) and entry.get("id") is not None:
            same = seen.setdefault(identity(entry, "id", f"{path}: annotation {i}"), [])
            if entry in same:
                problems.add(_where(path, entry, i), "the same annotation twice", "counted once")
                continue
            shared += bool(same)
            same.append(entry)
        kept.append(entry)
    if shared:
        log.warning("%s: %d annotations have the id of another; all are read", path, shared)
    return kept


def _where(path: Path, entry: Any, i: int) -> str:
    return f"{path}: annotation {entry.get('id', i) if isinstance(entry, dict) else i}"


def _box(
    entry: dict[str, Any], record: ImageRecord, where: str, problems: Problems, *, masks: bool
) -> Box | None:
    """The object, of category 0; None where its box is unusable."""
    stated = _xyxy(entry, where)
    xyxy = usable_box(stated, record.height, record.width, where, problems)
    if xyxy is None:
        return None
    area = None if entry.get("area") is None else number(entry["area"], "area", where)
    box = Box(xyxy, 0, crowd=flag(entry.get("iscrowd"), "iscrowd", where), area=area)
    box.stated = None if stated == xyxy else stated
    if masks and entry.get("segmentation"):
        box.mask, wrong = read_mask(entry["segmentation"], record.height, record.width)
        if wrong:
            problems.add(where, wrong, "left out" if box.mask else "the box has no mask")
    return box


def _xyxy(entry: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    box = entry.get("bbox")
    if box is None:
        raise UserError(f"{where} has no 'bbox'; add it")
    if not isinstance(box, list) or len(box) != 4:
        raise UserError(f"{where}: bbox {box} is not [x, y, width, height]; correct it")
    x, y, width, height = (number(value, "bbox", where) for value in box)
    return x, y, x + width, y + height
