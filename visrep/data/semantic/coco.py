"""COCO's classes of pixels: stuff with all things as one class, and masks of objects drawn.

ROOT/train2017/ID.jpg  ROOT/panoptic_stuff_train2017/ID.png: as Detectron2's own script makes them
of the panoptic annotations for semantic FPN (arXiv 1901.02446): 0 is any thing, 1 to 53 are the
kinds of stuff, 255 is no class.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset, ImageRecord, existing_folder, inside
from visrep.data.detection.coco import read_coco
from visrep.data.detection.places import home
from visrep.data.detection.voc_files import Images
from visrep.data.semantic.labels import IGNORED, DrawnLabels, coding_of
from visrep.data.semantic.pairs import dataset_of, pairs_of
from visrep.errors import ConfigError, UserError

# fmt: off
STUFF = (
    "things", "banner", "blanket", "bridge", "cardboard", "counter", "curtain", "door-stuff",
    "floor-wood", "flower", "fruit", "gravel", "house", "light", "mirror-stuff", "net", "pillow",
    "platform", "playingfield", "railroad", "river", "road", "roof", "sand", "sea", "shelf", "snow",
    "stairs", "tent", "towel", "wall-brick", "wall-stone", "wall-tile", "wall-wood", "water-other",
    "window-blind", "window-other", "tree-merged", "fence-merged", "ceiling-merged",
    "sky-other-merged", "cabinet-merged", "table-merged", "floor-other-merged", "pavement-merged",
    "mountain-merged", "grass-merged", "dirt-merged", "paper-merged", "food-other-merged",
    "building-other-merged", "rock-merged", "wall-other-merged", "rug-merged",
)
# fmt: on
BACKGROUND = "background"


def read_stuff(
    root: str | Path | None,
    split: str,
    *,
    labels: str | None = None,
    classes: Sequence[str] | None = None,
    depth: Any = "auto",
) -> DetectionDataset:
    """The images of `split` (train2017, val2017) with COCO's stuff; every label image is one.

    Args:
        root: the folder coco, or the one that holds it.
        labels: the folder of label images; None = panoptic_stuff_SPLIT.
        classes: some of `STUFF`; pixels of the rest are ignored. None = all.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder is missing or empty, or a label image has no image.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    place = existing_folder(home(root, "coco"), "detection.root")
    folder = labels or f"panoptic_stuff_{split}"
    images, drawn = (inside(place, name, f"split {split}") for name in (split, folder))
    for part in (images, drawn):
        if not part.is_dir():
            raise UserError(
                f"{part} is not there; detection.root= is the folder of COCO, whose label images "
                "Detectron2's prepare_panoptic_fpn.py makes"
            )
    ids = sorted(Images(drawn).names())
    if not ids:
        raise UserError(f"{drawn} has no label images; make them with prepare_panoptic_fpn.py")
    found, coding = coding_of(dict(enumerate(STUFF)), classes, where=folder)
    pairs = pairs_of(ids, images, drawn)
    return dataset_of(pairs, name=f"coco/{folder}", classes=found, coding=coding, depth=depth)


def read_masks(
    annotations: str | Path | None,
    image_root: str | Path | None,
    *,
    classes: Sequence[str] | None = None,
    on_bad: str = "report",
    depth: Any = "auto",
    root: str | Path | None = None,
) -> DetectionDataset:
    """The masks of a json of COCO's form as classes of pixels, see `drawn`.

    Arguments and errors are `visrep.data.detection.coco.read_coco`'s.
    """
    return drawn(
        read_coco(annotations, image_root, classes=classes, on_bad=on_bad, depth=depth, root=root)
    )


def drawn(dataset: DetectionDataset) -> DetectionDataset:
    """`dataset` with the masks of its objects as classes of pixels; class 0 is the background.

    Pixels of a crowd that are no other object's are ignored. A later object covers an earlier one.

    Raises:
        UserError: an object has no mask, or a class is called background.
    """
    if BACKGROUND in dataset.classes:
        raise UserError(
            f"{dataset.name} has a class {BACKGROUND}, which is the name of the pixels without an "
            "object; give it another, or leave it out with detection.classes"
        )
    records = [replace(record, boxes=[], labels=_drawn(record)) for record in dataset.records]
    return replace(dataset, classes=[BACKGROUND, *dataset.classes], records=records)


def _drawn(record: ImageRecord) -> DrawnLabels:
    masks = []
    for box in record.boxes:
        if box.mask is None:
            raise UserError(
                f"{record.file}: an object without a mask, so the classes of its pixels are "
                "unknown; draw it, or choose other classes"
            )
        masks.append((box.mask, IGNORED if box.crowd else box.category + 1))
    return DrawnLabels(masks)
