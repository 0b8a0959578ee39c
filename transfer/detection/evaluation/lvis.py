"""LVIS average precision of boxes and masks, from memory.

The rules are LVIS' own (arXiv 1908.03195, section 2.2). They are COCO's, with what its federated
labels need:

* At most 300 detections per image, of all classes together, are looked at.
* In an image only the classes are measured that are labelled in it, or known to be absent.
  Detections of any other class are neither right nor wrong.
* Where not every object of a class is labelled, a detection of it that finds no object is neither.
* AP is a mean over classes that have objects; APr, APc and APf are means over the rare, common and
  frequent of them.

Small, medium and large go by the area that the file states of an object, and by the area of the
detection itself where it finds none.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.data.detection.segmentation import box_mask
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.voc import check_ids
from visrep.transfer.detection.prediction import Prediction

MOST = 300  # detections per image
THRESHOLDS = np.linspace(0.5, 0.95, 10)
_RECALLS = np.linspace(0, 1, 101)
_AREAS = {"": (0, 1e10), "_small": (0, 32**2), "_medium": (32**2, 96**2), "_large": (96**2, 1e10)}


@dataclass(frozen=True, kw_only=True)
class LvisResult:
    """LVIS AP of one set of predictions.

    Attributes:
        kind: bbox or segm.
        numbers: AP, AP50, AP75, AP_small, AP_medium, AP_large, APr, APc, APf in percent. A size or
            frequency that no ground truth has is absent.
        per_class: one row per class: class, frequency, truths, detections, AP50, AP, AP75 (None
            without truth).
    """

    kind: str
    numbers: dict[str, float]
    per_class: list[dict[str, str | int | float | None]]


@dataclass
class _Found:
    """The detections of one class, of images in order.

    Attributes:
        scores: n of each image.
        right, ignored: areas x thresholds x n bool of each image.
        truths: objects to be found, per area.
    """

    scores: list[NDArray[np.float64]] = field(default_factory=list)
    right: list[NDArray[np.bool_]] = field(default_factory=list)
    ignored: list[NDArray[np.bool_]] = field(default_factory=list)
    truths: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(_AREAS), np.int64))


def evaluate_lvis(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction], *, kind: str = "bbox"
) -> LvisResult:
    """LVIS AP of `predictions` (image id -> boxes, scores, labels, masks) on `dataset`.

    Args:
        dataset: the ground truth, read by `visrep.data.detection.lvis`; with masks for segm.
        predictions: by image id; an image that is absent has no detection.
        kind: bbox, or segm for masks.

    Raises:
        UserError: an unknown image id, no ground truth, or masks asked for where there are none.
    """
    assert kind in ("bbox", "segm") and dataset.federated is not None
    check_ids(dataset, predictions)
    found = [_Found() for _ in dataset.classes]
    for record in dataset.records:
        _add(found, dataset, record, predictions.get(record.id), kind)
    if not any(of_class.truths[0] for of_class in found):
        raise UserError(
            f"{dataset.name}: no object to be found, so there is no AP; check its labels"
        )
    precision = np.stack([_precision(of_class) for of_class in found])  # K x areas x T x recalls
    numbers = {f"AP{name}": precision[:, i] for i, name in enumerate(_AREAS)}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        numbers[name] = precision[:, 0, np.isclose(THRESHOLDS, threshold)]
    for frequency in ("r", "c", "f"):
        of_it = [dataset.federated.frequency.get(name) == frequency for name in dataset.classes]
        numbers[f"AP{frequency}"] = precision[np.array(of_it, dtype=bool), 0]
    order = ("AP", "AP50", "AP75", *(f"AP{name}" for name in _AREAS if name), "APr", "APc", "APf")
    means = {name: _mean(numbers[name]) for name in order}
    rows: list[dict[str, Any]] = []
    for name, of_class, values in zip(dataset.classes, found, precision[:, 0], strict=True):
        row: dict[str, Any] = {"class": name, "frequency": dataset.federated.frequency.get(name)}
        row |= {"truths": int(of_class.truths[0]), "detections": sum(map(len, of_class.scores))}
        row["AP50"] = _mean(values[np.isclose(THRESHOLDS, 0.5)])
        row["AP"] = _mean(values)
        row["AP75"] = _mean(values[np.isclose(THRESHOLDS, 0.75)])
        rows.append(row)
    return LvisResult(
        kind=kind,
        numbers={name: value for name, value in means.items() if value is not None},
        per_class=rows,
    )


def _mean(precision: NDArray[np.float64]) -> float | None:
    """Of what is known, in percent; NaN stands for a class without ground truth."""
    known = precision[~np.isnan(precision)]
    return 100 * float(known.mean()) if known.size else None


def _add(
    found: list[_Found],
    dataset: DetectionDataset,
    record: ImageRecord,
    prediction: Prediction | None,
    kind: str,
) -> None:
    """Count the objects of an image and match its detections, class by class."""
    assert dataset.federated is not None
    truths: dict[int, list[Box]] = {}
    for box in record.boxes:
        truths.setdefault(box.category, []).append(box)
    for category, boxes in truths.items():
        for i, (low, high) in enumerate(_AREAS.values()):
            outside = _outside(np.array([_area(box, kind) for box in boxes]), low, high)
            found[category].truths[i] += int((~(outside | _uncounted(boxes, kind))).sum())
    if prediction is None or not len(prediction.scores):
        return
    if kind == "segm" and prediction.masks is None:
        raise UserError(f"{record.file}: predictions without masks; train with outputs=masks")
    scores = np.asarray(prediction.scores, dtype=np.float64)
    labels = np.asarray(prediction.labels, dtype=np.int64)
    best = np.argsort(-scores, kind="stable")[:MOST]
    absent = dataset.federated.absent.get(record.id, frozenset())
    incomplete = dataset.federated.incomplete.get(record.id, frozenset())
    for category in np.unique(labels[best]).tolist():
        name = dataset.classes[category]
        if category not in truths and name not in absent:
            continue
        mine = best[labels[best] == category]
        regions: Any
        if kind == "segm":
            assert prediction.masks is not None
            regions = [prediction.masks[i] for i in mine.tolist()]
            areas = rle.area(regions).astype(np.float64)
        else:
            regions = np.asarray(prediction.boxes, dtype=np.float64)[mine]
            regions[:, 2:] -= regions[:, :2]
            areas = regions[:, 2] * regions[:, 3]
        boxes = truths.get(category, [])
        overlaps = _overlaps(regions, boxes, record, kind)
        stated = np.array([_area(box, kind) for box in boxes])
        right, ignored = [], []
        alike = match(overlaps, np.zeros(len(boxes), dtype=bool))[0]
        for low, high in _AREAS.values():
            uncounted = _uncounted(boxes, kind) | _outside(stated, low, high)
            if uncounted.all() or not uncounted.any():  # no object is preferred to another
                hit, aside = alike, alike & uncounted.any()
            else:
                hit, aside = match(overlaps, uncounted)
            aside = aside | ~hit & (_outside(areas, low, high) | (name in incomplete))
            right.append(hit)
            ignored.append(aside)
        found[category].scores.append(scores[mine])
        found[category].right.append(np.stack(right))
        found[category].ignored.append(np.stack(ignored))


def _area(box: Box, kind: str) -> float:
    if box.area is not None:
        return box.area
    if box.mask is not None:
        return float(rle.area(box.mask))
    x0, y0, x1, y1 = box.stated or box.xyxy
    return (x1 - x0) * (y1 - y0)


def _uncounted(boxes: list[Box], kind: str) -> NDArray[np.bool_]:
    """Objects that need not be found: crowds, which LVIS has not, and those without a mask."""
    return np.array([b.crowd or (kind == "segm" and b.mask is None) for b in boxes], dtype=bool)


def _outside(areas: NDArray[np.float64], low: float, high: float) -> NDArray[np.bool_]:
    return (areas < low) | (areas > high)


def _overlaps(regions: Any, boxes: list[Box], record: ImageRecord, kind: str) -> NDArray:
    """Intersection over union, detections x objects."""
    if not boxes:
        return np.zeros((len(regions), 0))
    wanted: Any
    if kind == "segm":
        wanted = [b.mask or box_mask(b.xyxy, record.height, record.width) for b in boxes]
    else:
        wanted = np.array([b.stated or b.xyxy for b in boxes], dtype=np.float64)
        wanted[:, 2:] -= wanted[:, :2]
    return np.asarray(rle.iou(regions, wanted, [0] * len(boxes)))


def match(
    overlaps: NDArray[np.float64], uncounted: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """COCO's matching at every threshold.

    Each detection, best first, takes the object that it overlaps most among those that are free and
    reach the threshold; one that counts before one that does not.

    Args:
        overlaps: n detections by falling score x m objects.
        uncounted: m, objects that need not be found.

    Returns:
        thresholds x n: whether an object is found, and whether that does not count.
    """
    count, objects = overlaps.shape
    found = np.zeros((len(THRESHOLDS), count), dtype=bool)
    aside = np.zeros((len(THRESHOLDS), count), dtype=bool)
    if not objects:
        return found, aside
    thresholds = np.minimum(THRESHOLDS, 1 - 1e-10)[:, None]
    free = np.ones((len(THRESHOLDS), objects), dtype=bool)
    rows = np.arange(len(THRESHOLDS))
    for i in np.flatnonzero(overlaps.max(axis=1) >= THRESHOLDS[0]):
        overlap = overlaps[i]
        within = free & (overlap >= thresholds)
        counted = within & ~uncounted
        has = counted.any(axis=1)
        choice = np.where(np.where(has[:, None], counted, within), overlap, -1.0)
        best = objects - 1 - choice[:, ::-1].argmax(axis=1)  # the last of equals
        found[:, i] = within.any(axis=1)
        aside[:, i] = found[:, i] & ~has
        free[rows[found[:, i]], best[found[:, i]]] = False
    return found, aside


def _precision(found: _Found) -> NDArray[np.float64]:
    """Precision at 101 recalls, areas x thresholds x recalls; NaN where there is no object."""
    values = np.full((len(_AREAS), len(THRESHOLDS), len(_RECALLS)), np.nan)
    scores = np.concatenate([np.empty(0), *found.scores])
    order = np.argsort(-scores, kind="stable")
    shape = (len(_AREAS), len(THRESHOLDS), 0)
    right = np.concatenate([np.empty(shape, bool), *found.right], axis=2)[:, :, order]
    ignored = np.concatenate([np.empty(shape, bool), *found.ignored], axis=2)[:, :, order]
    true = np.cumsum(right & ~ignored, axis=2, dtype=np.float64)
    false = np.cumsum(~right & ~ignored, axis=2, dtype=np.float64)
    precision = true / (true + false + np.spacing(1))
    best = np.maximum.accumulate(precision[:, :, ::-1], axis=2)[:, :, ::-1]
    for area, truths in enumerate(found.truths):
        for row in range(len(THRESHOLDS) if truths else 0):
            at = np.searchsorted(true[area, row] / truths, _RECALLS, side="left")
            values[area, row] = np.append(best[area, row], 0.0)[at]
    return values
