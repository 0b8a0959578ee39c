"""Cityscapes' fine annotations (arXiv 1604.01685) as classes of pixels.

ROOT/leftImg8bit/SPLIT/CITY/ID_leftImg8bit.png  gtFine/SPLIT/CITY/ID_gtFine_labelIds.png, or
..._labelTrainIds.png as its scripts write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset, existing_folder, inside
from visrep.data.detection.places import home
from visrep.data.semantic.labels import coding_of
from visrep.data.semantic.pairs import Pair, dataset_of
from visrep.errors import ConfigError, UserError

# Its id -> class, those nineteen that it trains and tests on.
CLASSES = {
    7: "road",
    8: "sidewalk",
    11: "building",
    12: "wall",
    13: "fence",
    17: "pole",
    19: "traffic light",
    20: "traffic sign",
    21: "vegetation",
    22: "terrain",
    23: "sky",
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
_LAST = 33  # of its ids; -1, the license plate, is 255 in a byte
_IMAGE = "_leftImg8bit.png"
_IDS, _TRAIN_IDS = "_gtFine_labelIds.png", "_gtFine_labelTrainIds.png"


def read_cityscapes(
    root: str | Path | None,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    depth: Any = "auto",
) -> DetectionDataset:
    """The images of `split` (train, val) with the classes of their pixels.

    Args:
        root: holds leftImg8bit and gtFine, or the folder cityscapes with them.
        classes: some of the nineteen; pixels of the rest are ignored. None = all.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder or the label image of an image is missing.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = existing_folder(home(root, "cityscapes"), "detection.root")
    images, labels = (_part(place, folder, split) for folder in ("leftImg8bit", "gtFine"))
    files = sorted(path for path in images.rglob(f"*{_IMAGE}") if not path.name.startswith("."))
    if not files:
        raise UserError(f"{images} has no CITY/*{_IMAGE}; put the images of the cities there")
    first = files[0].relative_to(images)
    by_id = (labels / first.parent / first.name.replace(_IMAGE, _IDS)).is_file()
    void = set(range(_LAST + 1)) - set(CLASSES)
    names = CLASSES if by_id else dict(enumerate(CLASSES.values()))
    kind = "labelIds" if by_id else "labelTrainIds"
    found, coding = coding_of(
        names, classes, void=void if by_id else (), where=f"Cityscapes' {kind}"
    )
    pairs = [_pair(path, images, labels, _IDS if by_id else _TRAIN_IDS) for path in files]
    name = f"cityscapes/{split}"
    return dataset_of(pairs, name=name, classes=found, coding=coding, depth=depth)


def _part(place: Path, folder: str, split: str) -> Path:
    if not (place / folder).is_dir():
        there = sorted(child.name for child in place.iterdir() if child.is_dir())
        raise UserError(
            f"{place} has no folder {folder}; give the one that holds leftImg8bit and gtFine "
            f"(folders there: {', '.join(there) or 'none'})"
        )
    part = inside(place / folder, split, f"split {split}")
    if not part.is_dir():
        there = sorted(child.name for child in (place / folder).iterdir() if child.is_dir())
        raise UserError(
            f"{part} is not there; choose detection.train.split and detection.test.split from "
            f"{', '.join(there) or 'none'}"
        )
    return part


def _pair(path: Path, images: Path, labels: Path, suffix: str) -> Pair:
    name = path.name.removesuffix(_IMAGE)
    city = path.parent.relative_to(images)
    drawn = labels / city / f"{name}{suffix}"
    if not drawn.is_file():
        raise UserError(
            f"image {path} has no label image {drawn}; add it or remove the image"
            + ("" if suffix == _IDS else f" (nor {_IDS})")
        )
    return Pair((city / name).as_posix(), path, drawn)
