"""Cityscapes' fine annotations (arXiv 1604.01685) as classes of pixels.

They are in NAME_gtFine_labelIds.png, or in NAME_gtFine_labelTrainIds.png as its scripts write them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset
from visrep.data.detection.cityscapes_files import CLASSES, VOID, folders, pairs
from visrep.data.semantic.labels import coding_of
from visrep.data.semantic.pairs import Pair, dataset_of

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
        root: holds the folder cityscapes, or is that folder.
        classes: some of the nineteen; pixels of the rest are ignored. None = all.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder is missing or empty, an image has no labels or labels have no image.
    """
    images, labels = folders(root, split)
    by_id = any(labels.glob(f"*/*{_IDS}"))
    names = CLASSES if by_id else dict(enumerate(CLASSES.values()))
    kind = "labelIds" if by_id else "labelTrainIds"
    found, coding = coding_of(
        names, classes, void=VOID if by_id else (), where=f"Cityscapes' {kind}"
    )
    files = pairs(images, labels, _IDS if by_id else _TRAIN_IDS)
    name = f"cityscapes/{split}"
    return dataset_of(
        [Pair(*each) for each in files], name=name, classes=found, coding=coding, depth=depth
    )
