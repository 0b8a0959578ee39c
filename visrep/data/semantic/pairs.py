"""Images paired with their label images, by id, as a data set."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from visrep.data.detection.boxes import DetectionDataset, ImageRecord, with_depth
from visrep.data.detection.voc_files import Images
from visrep.data.images import BrokenImage, image_size
from visrep.data.semantic.labels import Coding, LabelImage
from visrep.errors import UserError

_THREADS = 8


class Pair(NamedTuple):
    """An image and its label image."""

    id: str
    image: Path
    labels: Path


def dataset_of(
    pairs: Sequence[Pair], *, name: str, classes: Sequence[str], coding: Coding, depth: Any
) -> DetectionDataset:
    """The data set of `pairs`. An image that cannot be read is `broken`, for others to judge.

    Raises:
        ConfigError, UnknownRange: see `visrep.data.detection.boxes.with_depth`.
    """
    with ThreadPoolExecutor(_THREADS) as pool:
        records = list(pool.map(lambda pair: _record(pair, coding), pairs))
    return with_depth(DetectionDataset(name, list(classes), records), depth)


def _record(pair: Pair, coding: Coding) -> ImageRecord:
    labels = LabelImage(str(pair.labels), coding)
    try:
        height, width = image_size(pair.image)
    except BrokenImage as error:
        return ImageRecord(str(pair.image), pair.id, 0, 0, broken=error.reason, labels=labels)
    return ImageRecord(str(pair.image), pair.id, height, width, labels=labels)


def pairs_of(ids: Sequence[str], images: Path, labels: Path) -> list[Pair]:
    """The images and label images of `ids`, each by its name without suffix in its folder.

    Raises:
        UserError: one of them is missing; the message names both.
    """
    pictures, drawn, pairs = Images(images), Images(labels), []
    for id_ in ids:
        image, label = pictures.find(id_), drawn.find(id_)
        if image is None:
            raise UserError(
                f"{id_} has no image {images / id_}.jpg (or .png ...); add it or leave out the id"
            )
        if label is None:
            raise UserError(
                f"image {image} has no label image {labels / id_}.png; add it or remove the image"
            )
        pairs.append(Pair(id_, image, label))
    return pairs
