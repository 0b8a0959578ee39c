"""Cityscapes average precision of masks, from memory.

The rules are those of Cityscapes' own script (arXiv 1604.01685, section 4.1; "instance-level
semantic labeling" of its benchmark):

* Overlaps are 0.50, 0.55 ... 0.95, and must be exceeded.
* An object of less than 100 pixels and a group of objects need not be found. A prediction that
  overlaps one enough is neither right nor wrong.
* Of several predictions that overlap an object enough, the best scored is right, the others wrong.
* A prediction that overlaps nothing enough is wrong, unless a greater share of it than the overlap
  asks for lies on pixels that count for nothing, on groups, or on objects that are too small.
* AP is the area under precision over recall, between points by the mean of their recalls, of each
  class and overlap; then the mean over both. A class without an object is left out; one without a
  prediction has 0.

Masks of different predictions may overlap, and all of them count, not only the first hundred.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.voc import check_ids
from visrep.transfer.detection.prediction import Prediction

SMALLEST = 100  # pixels of an object that must be found
OVERLAPS = np.arange(0.5, 1.0, 0.05)


@dataclass(frozen=True, kw_only=True)
class CityscapesResult:
    """Cityscapes AP of one set of predictions.

    Attributes:
        numbers: AP and AP50, in percent.
        per_class: one row per class: class, truths, detections, AP50, AP, AP75 (None without
            truth).
    """

    numbers: dict[str, float]
    per_class: list[dict[str, str | int | float | None]]


@dataclass(frozen=True, kw_only=True)
class _Image:
    """One class in one image: n predictions, m objects and groups.

    Attributes:
        scores: n.
        pixels: n, of each prediction.
        void: n, those of them that count for nothing.
        counted: m, whether the object must be found.
        shared: n x m, pixels that both have.
        reached: n x m, overlaps.
        excuses: m, how many times the pixels shared with it excuse a prediction: once for a group
            and once for a small object.
    """

    scores: NDArray[np.float64]
    pixels: NDArray[np.float64]
    void: NDArray[np.float64]
    counted: NDArray[np.bool_]
    shared: NDArray[np.float64]
    reached: NDArray[np.float64]
    excuses: NDArray[np.float64]


def evaluate_cityscapes(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction]
) -> CityscapesResult:
    """Cityscapes AP of the masks of `predictions` (by image id) on `dataset`.

    Args:
        dataset: the ground truth, read by `visrep.data.detection.cityscapes` with masks.
        predictions: by image id; an image that is absent has no prediction.

    Raises:
        UserError: an unknown image id, no object to be found, or predictions without masks.
    """
    assert dataset.void is not None
    check_ids(dataset, predictions)
    images = [_images(dataset, record, predictions.get(record.id)) for record in dataset.records]
    by_class = [[of_image[i] for of_image in images] for i in range(len(dataset.classes))]
    truths = [sum(int(image.counted.sum()) for image in of_class) for of_class in by_class]
    if not any(truths):
        raise UserError(
            f"{dataset.name}: no object to be found, so there is no AP; check its labels"
        )
    ap = np.array([[average_precision(of, overlap) for overlap in OVERLAPS] for of in by_class])
    rows: list[dict[str, str | int | float | None]] = []
    for name, of_class, count, values in zip(dataset.classes, by_class, truths, ap, strict=True):
        shown = (values[0], values.mean(), values[5])
        rows.append(
            {
                "class": name,
                "truths": count,
                "detections": sum(len(image.scores) for image in of_class),
                **{
                    metric: 100 * float(value) if count else None
                    for metric, value in zip(("AP50", "AP", "AP75"), shown, strict=True)
                },
            }
        )
    numbers = {"AP": 100 * float(np.nanmean(ap)), "AP50": 100 * float(np.nanmean(ap[:, 0]))}
    return CityscapesResult(numbers=numbers, per_class=rows)


def _images(
    dataset: DetectionDataset, record: ImageRecord, prediction: Prediction | None
) -> list[_Image]:
    """An image, class by class; predictions without a pixel are none."""
    masks, kept = [], np.empty(0, dtype=np.int64)
    if prediction is not None and len(prediction.scores):
        if prediction.masks is None:
            raise UserError(f"{record.file}: predictions without masks; train with outputs=masks")
        masks = prediction.masks
        kept = np.flatnonzero(rle.area(masks))
    assert dataset.void is not None
    void = dataset.void[record.id]
    images = []
    for category in range(len(dataset.classes)):
        mine = [i for i in kept.tolist() if int(prediction.labels[i]) == category]  # type: ignore[union-attr]
        scores = np.array([float(prediction.scores[i]) for i in mine])  # type: ignore[union-attr]
        truths = [b for b in record.boxes if b.category == category and b.mask is not None]
        images.append(_image(scores, [masks[i] for i in mine], truths, void))
    return images


def _image(
    scores: NDArray[np.float64], masks: Sequence[dict], truths: Sequence[Box], void: dict
) -> _Image:
    pixels = rle.area(masks).astype(np.float64) if masks else np.empty(0)
    wanted = [box.mask for box in truths]
    sizes = rle.area(wanted).astype(np.float64) if wanted else np.empty(0)
    shared = _shared(masks, wanted, pixels)
    groups = np.array([box.crowd for box in truths], dtype=bool)
    small = sizes < SMALLEST
    return _Image(
        scores=scores,
        pixels=pixels,
        void=_shared(masks, [void], pixels)[:, 0],
        counted=~groups & ~small,
        shared=shared,
        reached=shared / (pixels[:, None] + sizes - shared) if wanted else shared,
        excuses=groups.astype(np.float64) + small,
    )


def _shared(
    masks: Sequence[dict], others: Sequence[dict | None], pixels: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Pixels that a mask of the first and one of the second have in common, n x m."""
    if not masks or not others:
        return np.zeros((len(masks), len(others)))
    # As with crowds: intersection over the pixels of the first.
    share = np.asarray(rle.iou(list(masks), list(others), [1] * len(others)))
    return np.rint(share * pixels[:, None])


def average_precision(images: Sequence[_Image], overlap: float) -> float:
    """Of one class at one overlap, 0 to 1; NaN where no object must be found."""
    right: list[float] = []  # scores
    wrong: list[float] = []
    missed = 0
    for image in images:
        enough = image.reached > overlap
        for column in np.flatnonzero(image.counted):
            scores = sorted(image.scores[enough[:, column]].tolist())
            missed += not scores
            right += scores[-1:]
            wrong += scores[:-1]
        excused = image.void + image.shared @ image.excuses
        alone = ~enough.any(axis=1) & (excused / image.pixels <= overlap)
        wrong += image.scores[alone].tolist()
    if not any(image.counted.any() for image in images):
        return float("nan")
    if not right:
        return 0.0
    return _area(np.array(right), np.array(wrong), missed)


def _area(right: NDArray[np.float64], wrong: NDArray[np.float64], missed: int) -> float:
    """Area under precision over recall, whose points are at every score from the lowest on."""
    levels = np.unique(np.concatenate([right, wrong]))
    true = len(right) - np.searchsorted(np.sort(right), levels).astype(np.float64)
    false = len(wrong) - np.searchsorted(np.sort(wrong), levels)
    precision = true / (true + false)
    recall = true / (len(right) + missed)
    # The curve ends at recall 0 with precision 1. A point stands for half the way to either
    # neighbour.
    precision, recall = np.append(precision, 1.0), np.append(recall, 0.0)
    around = np.concatenate([recall[:1], recall, [0.0]])
    return float((precision * (around[:-2] - around[2:]) / 2).sum())
