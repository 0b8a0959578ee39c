"""COCO's json: boxes, masks as polygons or run-length codes."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pycocotools import mask as rle

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
from visrep.errors import ConfigError, UserError


def read_coco(
    annotations: str | Path | None,
    image_root: str | Path | None,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    on_bad: str = "report",
    depth: Any = "auto",
) -> DetectionDataset:
    """Read a json of COCO's form, whose file names are relative to `image_root`.

    Args:
        classes: names in order; None = the file's categories in the order of their ids.
        masks: also read the segmentations (seconds to a minute for all of COCO).
        on_bad: as for `visrep.data.detection.voc.read_voc`; a segmentation that cannot be read
            counts as a bad box.
        depth: what is black and white in images of more than 8 bits: `visrep.data.depth`.

    Raises:
        UserError: the file is no json of this form, names an image that is not there, or an
            annotation refers to an image or category that the file has not.
    """
    if annotations is None or image_root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    path = Path(annotations).expanduser()
    folder = existing_folder(image_root, "detection.root")
    content = _load(path)
    names = {
        _get(entry, "id", f"{path}: category {i}"): str(
            _get(entry, "name", f"{path}: category {i}")
        )
        for i, entry in enumerate(content["categories"])
    }
    try:
        known = [names[id_] for id_ in sorted(names)] if classes is None else list(classes)
    except TypeError as error:
        raise UserError(f"{path}: ids of categories are mixed; make all of them int") from error
    known = [str(name) for name in known]
    index = {name: i for i, name in enumerate(known)}
    problems = Problems(on_bad)
    records = _images(path, content["images"], folder)
    for i, entry in enumerate(content["annotations"]):
        where = f"{path}: annotation {entry.get('id', i) if isinstance(entry, dict) else i}"
        image_id, category = _get(entry, "image_id", where), _get(entry, "category_id", where)
        if image_id not in records:
            raise UserError(f"{where} is of image {image_id}, which is not in the file; remove it")
        if names.get(category) not in index:
            raise UserError(
                f"{where} has category {names.get(category, category)}, which is unknown; known "
                f"are {', '.join(known)}"
            )
        record = records[image_id]
        where = f"{where} ({names[category]} in {Path(record.file).name})"
        box = usable_box(_xyxy(entry, where), record.height, record.width, where, problems)
        if box is None:
            continue
        mask = None
        if masks and entry.get("segmentation"):
            mask = _mask(entry["segmentation"], record.height, record.width)
            if mask is None:
                problems.add(where, "its segmentation is unreadable", "skipped")
                continue
        crowd = bool(entry.get("iscrowd", 0))
        record.boxes.append(Box(box, index[names[category]], crowd=crowd, mask=mask))
    dataset = DetectionDataset(path.stem, known, list(records.values()), problems.close(path.stem))
    return with_depth(dataset, depth)


def _load(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
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


def _get(entry: Any, key: str, where: str) -> Any:
    if not isinstance(entry, dict) or entry.get(key) is None:
        raise UserError(f"{where} has no {key!r}; add it")
    if isinstance(entry[key], list | dict) and key != "bbox":
        raise UserError(f"{where}: {key!r} must be a single value; correct it")
    return entry[key]


def _images(path: Path, entries: list[Any], folder: Path) -> dict[Any, ImageRecord]:
    records: dict[Any, ImageRecord] = {}
    for i, entry in enumerate(entries):
        where = f"{path}: image {i}"
        id_, name = _get(entry, "id", where), str(_get(entry, "file_name", where))
        height, width = _get(entry, "height", where), _get(entry, "width", where)
        if id_ in records:
            raise UserError(f"{where}: id {id_} is used twice; give each image its own")
        if not all(isinstance(side, int) and side > 0 for side in (height, width)):
            raise UserError(f"{where}: size {width}x{height} is not possible; correct it")
        file = inside(folder, name, where)
        if not file.is_file():
            raise UserError(f"{where}: {file} is not there; add it or correct the image root")
        records[id_] = ImageRecord(str(file), str(id_), height, width)
    return records


def _xyxy(entry: dict[str, Any], where: str) -> tuple[float, float, float, float]:
    box = _get(entry, "bbox", where)
    try:
        x, y, width, height = (float(value) for value in box)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where}: bbox {box} is not [x, y, width, height]; correct it") from error
    return x, y, x + width, y + height


def _mask(segmentation: Any, height: int, width: int) -> dict[str, Any] | None:
    """Polygons or a run-length code as a compressed code, `counts` a str; None if unreadable."""
    size = [height, width]
    try:
        if not isinstance(segmentation, dict):
            if not all(_is_polygon(points, height, width) for points in segmentation):
                return None
            code = rle.merge(rle.frPyObjects(segmentation, height, width))
            return {"size": size, "counts": code["counts"].decode("ascii")}
        counts = segmentation["counts"]
        runs = counts if isinstance(counts, list) else _runs(counts)
        if list(segmentation["size"]) != size or sum(runs) != height * width or min(runs) < 0:
            return None
        if isinstance(counts, list):
            counts = rle.frPyObjects(segmentation, height, width)["counts"].decode("ascii")
        return {"size": size, "counts": counts}
    except (KeyError, TypeError, ValueError, IndexError, AttributeError):
        return None


def _is_polygon(points: Any, height: int, width: int) -> bool:
    """x, y, x, y, ...: pycocotools takes memory for the whole way between points, however far."""
    near = all(math.isfinite(x) and abs(x) <= 2 * max(height, width) for x in points)
    return near and len(points) >= 6 and len(points) % 2 == 0


def _runs(counts: str) -> list[int]:
    """Run lengths of a compressed code; pycocotools itself accepts codes that are too short.

    A number is a chain of characters from "0" on: 5 bits each, the lowest first, the sixth bit
    says that more follow, the highest of the last one's five bits is the sign. From the fourth
    number on it is the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(character)
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("cut short")
    return runs
