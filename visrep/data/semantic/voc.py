"""PASCAL VOC's classes of pixels, and its larger training list (Hariharan et al., ICCV 2011).

ROOT/VOC2012/JPEGImages/ID.jpg  SegmentationClass/ID.png  ImageSets/Segmentation/SPLIT.txt
ROOT/VOC2012/SegmentationClassAug/ID.png, whose list train_aug is in ImageSets/Segmentation or
ImageSets/SegmentationAug, also under the name trainaug, of ids or of pairs of paths.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset, existing_folder, inside
from visrep.data.detection.voc import VOC_CLASSES
from visrep.data.detection.voc_files import read_lines
from visrep.data.semantic.labels import coding_of
from visrep.data.semantic.pairs import dataset_of, pairs_of
from visrep.errors import ConfigError, UserError

CLASSES = ("background", *VOC_CLASSES)
_LISTS = ("Segmentation", "SegmentationAug")


def read_voc(
    root: str | Path | None,
    split: str,
    *,
    labels: str = "SegmentationClass",
    classes: Sequence[str] | None = None,
    depth: Any = "auto",
) -> DetectionDataset:
    """The images that the list of `split` names, with the classes of their pixels.

    Args:
        root: the folder VOC2012, or one that holds it.
        labels: the folder of label images beside JPEGImages.
        classes: some of background and VOC's twenty; pixels of the rest are ignored. None = all.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder, list, image or label image is missing, or a list is empty or has an id
            twice.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = _folder(existing_folder(root, "detection.root"))
    drawn = inside(place, labels, f"labels={labels}")
    if not drawn.is_dir():
        plain = "" if labels == "SegmentationClass" else _plain(place)
        raise UserError(f"{place} has no folder {labels} of label images; put it there{plain}")
    ids = _ids(place, split)
    found, coding = coding_of(dict(enumerate(CLASSES)), classes, where="VOC")
    pairs = pairs_of(ids, place / "JPEGImages", drawn)
    name = f"{place.name}/{split}"
    return dataset_of(pairs, name=name, classes=found, coding=coding, depth=depth)


def _folder(root: Path) -> Path:
    for place in (root, root / "VOC2012", root / "VOCdevkit" / "VOC2012"):
        if (place / "JPEGImages").is_dir():
            return place
    raise UserError(
        f"{root} has no VOC2012/JPEGImages; give the folder that holds VOC2012 as detection.root="
    )


def _plain(place: Path) -> str:
    if not (place / "SegmentationClass").is_dir():
        return ""
    return (
        ", or train on VOC's own: detection.train.split=train "
        "detection.train.labels=SegmentationClass"
    )


def _ids(place: Path, split: str) -> list[str]:
    """The ids of a list; a line is an id, or the paths of an image and of its label image."""
    names = dict.fromkeys((split, split.replace("train_aug", "trainaug")))
    paths = [
        inside(place / "ImageSets" / folder, f"{name}.txt", f"split {split}")
        for folder in _LISTS
        for name in names
    ]
    path = next((path for path in paths if path.is_file()), None)
    if path is None:
        there = sorted(p.stem for f in _LISTS for p in (place / "ImageSets" / f).glob("[!.]*.txt"))
        choice = f"choose from {', '.join(there)}" if there else "write one, an id on each line"
        raise UserError(f"{paths[0]} is not there; {choice}")
    chosen: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        id_ = Path(line.split()[0]).stem if "/" in line else line
        if not id_:
            continue
        if id_ in chosen:
            raise UserError(f"{path}:{number}: {id_} is also on line {chosen[id_]}; remove one")
        inside(place, id_, f"{path}:{number}")
        chosen[id_] = number
    if not chosen:
        raise UserError(f"list {path} has no ids; put one on each line")
    return list(chosen)
