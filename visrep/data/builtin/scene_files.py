"""Scenes of several digits with boxes and masks, on disk as PASCAL VOC and as COCO at once.

ROOT/JPEGImages/*.jpg  Annotations/*.xml  ImageSets/Main/{train,test}.txt   PASCAL VOC
ROOT/coco_train.json   coco_test.json                                       COCO, with masks
"""

import hashlib
import json
import logging
import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor

from visrep.data.builtin.digits import (
    CLASSES,
    MAX_ANGLE,
    MIN_CONTRAST,
    Stencils,
    background,
    scans,
    visible_colours,
)
from visrep.data.detection.boxes import DetectionDataset
from visrep.data.detection.coco import read_coco
from visrep.data.semantic.coco import drawn
from visrep.errors import ConfigError, UserError
from visrep.paths import cache_dir

log = logging.getLogger("visrep")

COUNTS = {"train": 400, "test": 200}
SEEDS = {"train": 21, "test": 22}
SIDES = (128, 160)  # pixels
DIGITS = (1, 6)  # per scene; fewer where no more find room
HEIGHTS = (24.0, 56.0)  # pixels
ZOOM = (0.8, 2.5)
MAX_IOU = 0.1  # of two boxes
MAX_COVERED = 0.25  # share of the smaller of two boxes that the other may cover
_EDGE = 1.0
_QUALITY = 95
_VERSION = 1
_MARKER = "scenes.json"


@dataclass(frozen=True)
class Scene:
    """`image` uint8 3 x H x W; `masks` bool n x H x W, what is seen of each digit; `labels` n;
    `scans` n, numbers in scikit-learn's set."""

    image: Tensor
    masks: Tensor
    labels: Tensor
    scans: Tensor

    def boxes(self) -> list[tuple[int, int, int, int]]:
        """Tight boxes of the masks, continuous x0, y0, x1, y1 (whole pixels)."""
        found = []
        for mask in self.masks:
            rows, columns = mask.any(dim=1).nonzero(), mask.any(dim=0).nonzero()
            x0, y0 = int(columns[0]), int(rows[0])
            found.append((x0, y0, int(columns[-1]) + 1, int(rows[-1]) + 1))
        return found


def draw_scene(rng: np.random.Generator, split: str) -> Scene:
    """One scene: 1 to 6 scans of `split`, turned by up to 25 degrees, on a photograph.

    A digit's colour is at least 0.4 from the mean of what its box covers. A later digit may cover
    a little of an earlier one, whose mask is then what is left to see.
    """
    pool = scans(split)
    height, width = (int(side) for side in rng.integers(SIDES[0], SIDES[1] + 1, size=2))
    canvas = background(rng, height, width, ZOOM)
    count = int(rng.integers(DIGITS[0], DIGITS[1] + 1))
    chosen = torch.from_numpy(rng.choice(len(pool.ids), count, replace=False))
    degrees = torch.from_numpy(rng.uniform(-MAX_ANGLE, MAX_ANGLE, count)).float()
    stencils = Stencils(pool.ink[chosen], degrees)
    boxes = _places(rng, stencils.width_per_height, height, width)

    placed = [i for i, box in enumerate(boxes) if box is not None]
    frames = torch.tensor([boxes[i] for i in placed])
    tall = torch.full((count,), HEIGHTS[0])
    centres = torch.full((count, 2), 0.0)
    tall[placed] = frames[:, 3] - frames[:, 1]
    centres[placed] = (frames[:, :2] + frames[:, 2:]) / 2
    opacity = stencils.stamp(tall, centres, (height, width))[placed]
    for frame, opaque in zip(frames, opacity, strict=True):
        x0, y0, x1, y1 = frame.round().int().tolist()
        colour = visible_colours(rng, canvas[None, :, y0:y1, x0:x1].mean(dim=(2, 3)))[0]
        canvas = torch.lerp(canvas, colour[:, None, None], opaque)
    masks = opacity >= 0.5
    for i in range(len(masks) - 1):
        masks[i] &= ~masks[i + 1 :].any(dim=0)
    image = (canvas * 255).round().to(torch.uint8)
    return Scene(image, masks, pool.labels[chosen][placed], pool.ids[chosen][placed])


def _places(
    rng: np.random.Generator, width_per_height: Tensor, height: int, width: int
) -> list[tuple[float, float, float, float] | None]:
    """A box for every digit that finds room within 50 tries; the first always does."""
    boxes: list[tuple[float, float, float, float] | None] = []
    for ratio in width_per_height.tolist():
        boxes.append(None)
        for _ in range(50):
            h = float(np.exp(rng.uniform(*np.log(HEIGHTS))))
            w = h * ratio
            x, y = rng.uniform(_EDGE, (width - w - _EDGE, height - h - _EDGE))
            box = (float(x), float(y), float(x + w), float(y + h))
            if all(_apart(box, other) for other in boxes if other is not None):
                boxes[-1] = box
                break
    return boxes


def _apart(one: tuple[float, ...], other: tuple[float, ...]) -> bool:
    both = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    both *= max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)]
    return both <= MAX_IOU * (sum(areas) - both) and both <= MAX_COVERED * min(areas)


def detection(split: str, root: str | Path | None = None) -> DetectionDataset:
    """The built-in scenes with boxes and masks: 400 of "train" or 200 of "test".

    They are written to `root` first (`write_scenes`) if they are not there yet; `root` defaults to
    a folder in `visrep.paths.cache_dir()`.

    Raises:
        ConfigError: no such split.
        UserError: as `write_scenes`.
    """
    if split not in COUNTS:
        raise ConfigError(f"scenes has no split {split!r}; choose train or test")
    place = write_scenes(cache_dir() / f"scenes-{_key()[:12]}" if root is None else root)
    data = read_coco(place / f"coco_{split}.json", place / "JPEGImages", on_bad="raise")
    data.name = f"scenes/{split}"
    return data


def semantic(split: str, root: str | Path | None = None) -> DetectionDataset:
    """The scenes with a class for each pixel: background, or a digit. Arguments and errors are
    `detection`'s."""
    return drawn(detection(split, root))


def write_scenes(root: str | Path) -> Path:
    """Draw the scenes into the folder `root`, whole or not at all; returns its absolute path.

    A folder that holds them is left as it is; one that has lost files, or holds scenes of another
    version, is drawn again.

    Raises:
        UserError: the folder holds something else, or cannot be written.
    """
    place = Path(root).expanduser().resolve()
    if _is_complete(place):
        return place
    ours = (place / _MARKER).is_file()
    if place.exists() and not ours and (not place.is_dir() or any(place.iterdir())):
        raise UserError(f"{place} holds something else; choose another or an empty folder")
    log.info("drawing the built-in scenes in %s (some seconds, once)", place)
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{place.name}.", dir=place.parent) as temporary:
            drawn = Path(temporary) / "scenes"
            _draw(drawn)
            if ours:
                log.warning("%s was incomplete or of another version: replaced", place)
                os.rename(place, Path(temporary) / "old")
            try:
                os.rename(drawn, place)
            except OSError:
                if not _is_complete(place):  # else another process was faster, with the same
                    raise
    except OSError as error:
        raise UserError(
            f"cannot write {place}: {error.strerror or error}; free some space or choose another "
            "folder"
        ) from error
    return place


def _key() -> str:
    parts = (_VERSION, COUNTS, SEEDS, SIDES, DIGITS, HEIGHTS, ZOOM, MAX_IOU, MAX_COVERED, _EDGE)
    return hashlib.sha256(repr((*parts, _QUALITY, MAX_ANGLE, MIN_CONTRAST)).encode()).hexdigest()


def _is_complete(place: Path) -> bool:
    """The marker is of this version and every file that it lists is there in its full size."""
    try:
        marker = json.loads((place / _MARKER).read_text(encoding="utf-8"))
        sizes = marker["sizes"].items()
        return marker["key"] == _key() and all(
            (place / name).stat().st_size == size for name, size in sizes
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _draw(root: Path) -> None:
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count in COUNTS.items():
        rng = np.random.default_rng(SEEDS[split])
        images: list[dict[str, Any]] = []
        annotations: list[dict[str, Any]] = []
        for number in range(count):
            name = f"{split}_{number:04d}"
            scene = draw_scene(rng, split)
            pixels = Image.fromarray(scene.image.permute(1, 2, 0).numpy())
            pixels.save(root / f"JPEGImages/{name}.jpg", quality=_QUALITY, subsampling=0)
            _write_xml(root / f"Annotations/{name}.xml", name, scene)
            height, width = scene.image.shape[1:]
            images.append(
                {"id": number + 1, "file_name": f"{name}.jpg", "height": height, "width": width}
            )
            annotations += _coco_annotations(scene, number + 1, len(annotations) + 1)
        ids = "".join(f"{split}_{number:04d}\n" for number in range(count))
        (root / f"ImageSets/Main/{split}.txt").write_text(ids, encoding="utf-8")
        content = {
            "images": images,
            "annotations": annotations,
            "categories": [{"id": i + 1, "name": name} for i, name in enumerate(CLASSES)],
        }
        (root / f"coco_{split}.json").write_text(json.dumps(content), encoding="utf-8")
    files = sorted(path for path in root.rglob("*") if path.is_file())
    sizes = {path.relative_to(root).as_posix(): path.stat().st_size for path in files}
    marker = {"key": _key(), "sizes": sizes}
    (root / _MARKER).write_text(json.dumps(marker), encoding="utf-8")


def _write_xml(path: Path, name: str, scene: Scene) -> None:
    height, width = scene.image.shape[1:]
    root = ElementTree.Element("annotation")
    ElementTree.SubElement(root, "folder").text = "JPEGImages"
    ElementTree.SubElement(root, "filename").text = f"{name}.jpg"
    size = ElementTree.SubElement(root, "size")
    for key, value in (("width", width), ("height", height), ("depth", 3)):
        ElementTree.SubElement(size, key).text = str(value)
    ElementTree.SubElement(root, "segmented").text = "0"
    for label, (x0, y0, x1, y1) in zip(scene.labels.tolist(), scene.boxes(), strict=True):
        item = ElementTree.SubElement(root, "object")
        ElementTree.SubElement(item, "name").text = CLASSES[label]
        for key, text in (("pose", "Unspecified"), ("truncated", "0"), ("difficult", "0")):
            ElementTree.SubElement(item, key).text = text
        frame = ElementTree.SubElement(item, "bndbox")
        # VOC counts pixels from 1 and includes the last one.
        for key, value in (("xmin", x0 + 1), ("ymin", y0 + 1), ("xmax", x1), ("ymax", y1)):
            ElementTree.SubElement(frame, key).text = str(value)
    ElementTree.indent(root)
    ElementTree.ElementTree(root).write(path, encoding="utf-8")


def _coco_annotations(scene: Scene, image_id: int, first_id: int) -> list[dict[str, Any]]:
    found = []
    boxes = scene.boxes()
    for i, (mask, (x0, y0, x1, y1)) in enumerate(zip(scene.masks, boxes, strict=True)):
        code = rle.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))
        found.append(
            {
                "id": first_id + i,
                "image_id": image_id,
                "category_id": int(scene.labels[i]) + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": int(mask.sum()),
                "iscrowd": 0,
                "segmentation": {
                    "size": [int(side) for side in code["size"]],
                    "counts": code["counts"].decode("ascii"),
                },
            }
        )
    return found
