"""Cityscapes' instances (arXiv 1604.01685), from the label images of its fine annotations.

DIR/leftImg8bit/SPLIT/CITY/NAME_leftImg8bit.png
DIR/gtFine/SPLIT/CITY/NAME_gtFine_instanceIds.png

A pixel of the second is the number of its class; of an object that is told from its neighbours,
1000 times that and a running number. A group of a class that has instances is a crowd here.
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
from visrep.data.detection.classes import choose
from visrep.data.detection.places import located, present
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

# The classes that are told apart object by object and count, by their numbers.
INSTANCES = {
    24: "person",
    25: "rider",
    26: "car",
    27: "truck",
    28: "bus",
    31: "train",
    32: "motorcycle",
    33: "bicycle",
}
# Numbers of what counts for nothing: the border, what is unlabelled, parking, bridges, caravans ...
VOID = (0, 1, 2, 3, 4, 5, 6, 9, 10, 14, 15, 16, 18, 29, 30)
_IMAGE, _TRUTH = "_leftImg8bit.png", "_gtFine_instanceIds.png"
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
    if root is None:
        raise ConfigError("this data needs a folder: add detection.root=PATH")
    images = located(Path(root).expanduser() / "cityscapes" / "leftImg8bit" / split, root)
    images = present(images, root, kind="folder").resolve()
    truths = present(images.parents[1] / "gtFine" / split, root, kind="folder")
    pairs = _pairs(images, truths)
    known = choose(list(INSTANCES.values()), classes, f"{truths}")
    log.info("cityscapes/%s: reading %d label images", split, len(pairs))
    with ThreadPoolExecutor(_THREADS) as pool:
        read = list(pool.map(lambda pair: _objects(pair, known, masks=masks), pairs))
    void = {record.id: code for record, code in read}
    dataset = DetectionDataset(f"cityscapes/{split}", known, [record for record, _ in read])
    dataset.void = void if masks else None
    return with_depth(dataset, depth)


def _pairs(images: Path, truths: Path) -> list[tuple[Path, Path]]:
    """Each image with its label image, sorted by town and name."""
    pictures, labels = (
        {
            f"{path.parent.name}/{path.name.removesuffix(ending)}": path
            for path in sorted(folder.glob(f"*/*{ending}"))
            if not path.name.startswith(".")
        }
        for folder, ending in ((images, _IMAGE), (truths, _TRUTH))
    )
    for found, folder, ending in ((pictures, images, _IMAGE), (labels, truths, _TRUTH)):
        if not found:
            raise UserError(f"{folder} has no CITY/NAME{ending}; unpack Cityscapes there")
    for name, path in pictures.items():
        if name not in labels:
            raise UserError(f"{path} has no labels {truths / (name + _TRUTH)}; add them")
    for name, path in labels.items():
        if name not in pictures:
            raise UserError(f"{path} has no image {images / (name + _IMAGE)}; add it")
    return [(path, labels[name]) for name, path in pictures.items()]


def _objects(
    pair: tuple[Path, Path], classes: Sequence[str], *, masks: bool
) -> tuple[ImageRecord, dict[str, Any]]:
    """The image with its objects, and the code of the pixels that count for nothing."""
    image, truth = pair
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
    name = image.name.removesuffix(_IMAGE)
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
