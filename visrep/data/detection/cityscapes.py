"""Cityscapes' instances (arXiv 1604.01685), from the label images of its fine annotations.

A pixel of NAME_gtFine_instanceIds.png is the number of its class; of an object that is told from
its neighbours, 1000 times that and a running number. A group of a class that has instances is a
crowd here.
"""

import logging
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from pycocotools import mask as rle

from visrep.data.detection.boxes import Box, DetectionDataset, ImageRecord, with_depth
from visrep.data.detection.cityscapes_files import IMAGE, INSTANCES, VOID, folders, pairs
from visrep.data.detection.classes import choose
from visrep.errors import UserError

log = logging.getLogger("visrep")

_TRUTH = "_gtFine_instanceIds.png"
_THREADS = 8


def read_cityscapes(
    root: str | Path | None,
    split: str,
    *,
    classes: Sequence[str] | None = None,
    masks: bool = True,
    depth: Any = "auto",
) -> DetectionDataset:
    """Read the part `split`, train or val, of Cityscapes, which `root` holds or is.

    Each label image is read whole (about 0.2 s of 2048 x 1024 pixels, on several threads).

    Args:
        classes: some of the eight in order, others are ignored; None = all.
        masks: keep the masks, and the pixels that count for nothing.
        depth: as for `visrep.data.detection.voc.read_voc`.

    Raises:
        UserError: a folder is missing or empty, an image has no labels or labels have no image, a
            label image cannot be read or has numbers that are none of Cityscapes', or none of
            `classes` is one of the eight.
    """
    images, truths = folders(root, split)
    found = pairs(images, truths, _TRUTH)
    known = choose(list(INSTANCES.values()), classes, f"{truths}")
    log.info("cityscapes/%s: reading %d label images", split, len(found))
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(lambda pair: _objects(pair, known, masks=masks), found))
    void = {record.id: code for record, code in read}
    dataset = DetectionDataset(f"cityscapes/{split}", known, [record for record, _ in read])
    dataset.void = void if masks else None
    return with_depth(dataset, depth)


def _objects(
    pair: tuple[str, Path, Path], classes: Sequence[str], *, masks: bool
) -> tuple[ImageRecord, dict[str, Any]]:
    """The image with its objects, and the code of the pixels that count for nothing."""
    _, image, truth = pair
    try:
        with Image.open(truth) as picture:
            numbers = np.array(picture)
    except (OSError, ValueError, SyntaxError) as error:
        raise UserError(f"{truth}: cannot be read ({error}); unpack it again") from error
    if numbers.ndim != 2 or numbers.dtype.kind not in "iu":
        raise UserError(f"{truth} is no image of numbers; take Cityscapes' own")
    numbers = np.asfortranarray(numbers.astype(np.int32))
    height, width = numbers.shape
    found = np.flatnonzero(np.bincount(numbers.clip(min=0).ravel(order="K")))
    of_class = np.where(found < 1000, found, found // 1000)
    if of_class.max() > max(INSTANCES):
        raise UserError(
            f"{truth}: {found[of_class.argmax()]} is no number of Cityscapes' (0 to 33, and 24000 "
            "to 33999 of objects); take its gtFine_instanceIds"
        )
    name = image.name.removesuffix(IMAGE)
    record = ImageRecord(str(image), name, height, width)
    for number, label in zip(found.tolist(), of_class.tolist(), strict=True):
        if label not in INSTANCES or INSTANCES[label] not in classes:
            continue
        code = _code(numbers == number)
        x, y, w, h = rle.toBbox(code).tolist()
        box = Box((x, y, x + w, y + h), classes.index(INSTANCES[label]), crowd=number < 1000)
        box.mask = code if masks else None
        record.boxes.append(box)
    return record, _code(np.isin(numbers, VOID))


def _code(pixels: np.ndarray) -> dict[str, Any]:
    code = rle.encode(np.asfortranarray(pixels.astype(np.uint8)))
    return {"size": [int(side) for side in code["size"]], "counts": code["counts"].decode("ascii")}
