"""PASCAL VOC average precision of boxes, from memory.

The rules are those of the VOC development kit (Everingham et al., IJCV 2010, section 4.2):

* The detections of a class, over all images, are taken by falling score. Each looks at the one
  ground-truth box of its image and class that it overlaps most. It is a true positive when that
  overlap is strictly above the threshold and no earlier detection took the box; a second detection
  of a taken box is a false positive, even where it also overlaps a free one.
* A detection whose best box is marked difficult (or crowd) counts as neither, and such boxes are
  not among those to be found.
* Overlap is intersection over union of inclusive pixels. A VOC box (xmin, ymin, xmax, ymax) covers
  xmax - xmin + 1 pixels; our boxes hold (xmin - 1, ymin - 1, xmax, ymax), so plain differences give
  the same number.

AP has two forms. `11-point` (VOC 2007) is the mean, over recall 0, 0.1 ... 1, of the best precision
at that recall or more; Detectron2 uses it on VOC 2007 for AP, AP50 and AP75 alike, and so do the
published tables of self-supervised methods. `area` (VOC 2010 on) is the area under the precision
curve made monotone. The two are not comparable.

AP50 and AP75 are means over classes; AP is the mean of these over overlaps 0.50, 0.55 ... 0.95. A
class without ground truth has no AP: it is reported and left out. (Detectron2 counts it as 0.)
"""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from visrep.data.detection import DetectionDataset
from visrep.errors import UserError
from visrep.transfer.detection.prediction import Prediction

THRESHOLDS = tuple(percent / 100 for percent in range(50, 100, 5))
FORMS = {"11-point": "", "area": "_area"}  # form -> what a metric's name ends with

# As the kits compute them, rounding included: the fourth is just above 0.3, and a recall of
# exactly 3/10 does not reach it.
_RECALLS = np.arange(11) * 0.1


@dataclass(frozen=True, kw_only=True)
class VocResult:
    """VOC AP of one set of predictions.

    Attributes:
        classes: class names, C.
        truths: boxes to be found per class, int C (difficult ones not counted).
        detections: predicted boxes per class, int C.
        ap: for each form, AP in percent, thresholds x C; NaN for a class without ground truth.
    """

    classes: list[str]
    truths: NDArray[np.int64]
    detections: NDArray[np.int64]
    ap: dict[str, NDArray[np.float64]]

    @property
    def without_truth(self) -> list[str]:
        """Names of the classes that were left out."""
        return [name for name, count in zip(self.classes, self.truths, strict=True) if count == 0]

    def numbers(self) -> dict[str, float]:
        """AP50, AP, AP75 (11-point) and AP50_area, AP_area, AP75_area, in percent."""
        kept = self.truths > 0
        numbers = {}
        for form, ending in FORMS.items():
            means = self.ap[form][:, kept].mean(axis=1)
            numbers[f"AP50{ending}"] = float(means[THRESHOLDS.index(0.5)])
            numbers[f"AP{ending}"] = float(means.mean())
            numbers[f"AP75{ending}"] = float(means[THRESHOLDS.index(0.75)])
        return numbers

    def per_class(self, form: str = "11-point") -> list[dict[str, str | int | float | None]]:
        """One row per class: name, truths, detections, AP50, AP, AP75 (None without truth)."""
        rows: list[dict[str, str | int | float | None]] = []
        for column, name in enumerate(self.classes):
            ap = self.ap[form][:, column]
            values = (ap[THRESHOLDS.index(0.5)], ap.mean(), ap[THRESHOLDS.index(0.75)])
            known = self.truths[column] > 0
            rows.append(
                {
                    "class": name,
                    "truths": int(self.truths[column]),
                    "detections": int(self.detections[column]),
                    **{
                        metric: float(value) if known else None
                        for metric, value in zip(("AP50", "AP", "AP75"), values, strict=True)
                    },
                }
            )
        return rows

    def table(self, form: str = "11-point") -> str:
        """`per_class` as text, with the means below and the classes left out named."""
        width = max(12, *(len(name) for name in self.classes))
        lines = [f"{'VOC ' + form:<{width}} {'truths':>7} {'found':>7} {'AP50':>6} {'AP':>6} AP75"]
        for row in self.per_class(form):
            shown = [
                "   -  " if row[metric] is None else f"{row[metric]:6.2f}"
                for metric in ("AP50", "AP", "AP75")
            ]
            lines.append(
                f"{row['class']:<{width}} {row['truths']:>7} {row['detections']:>7} "
                + " ".join(shown)
            )
        numbers, ending = self.numbers(), FORMS[form]
        means = " ".join(f"{numbers[name + ending]:6.2f}" for name in ("AP50", "AP", "AP75"))
        lines.append(f"{'mean':<{width}} {self.truths.sum():>7} {self.detections.sum():>7} {means}")
        if self.without_truth:
            lines.append(f"left out, no ground truth: {', '.join(self.without_truth)}")
        return "\n".join(lines)


def evaluate_voc(dataset: DetectionDataset, predictions: Mapping[str, Prediction]) -> VocResult:
    """VOC AP of `predictions` (image id -> boxes, scores, labels) on `dataset`.

    Images without an entry in `predictions` count as images with no detection.

    Raises:
        UserError: an id that `dataset` does not have, or no box to be found at all.
    """
    classes = len(dataset.classes)
    check_ids(dataset, predictions)
    truths = np.zeros(classes, dtype=np.int64)
    # Of every detection: class, score, its best truth (numbered through all images), the overlap
    # with it, and whether that truth is to be ignored.
    labels, scores, best, overlap, ignored = [], [], [], [], []
    first = 0
    for record in dataset.records:
        boxes = np.array([box.xyxy for box in record.boxes], dtype=np.float64).reshape(-1, 4)
        category = np.array([box.category for box in record.boxes], dtype=np.int64)
        skip = np.array([box.difficult or box.crowd for box in record.boxes], dtype=bool)
        truths += np.bincount(category[~skip], minlength=classes)
        found = predictions.get(record.id)
        if found is not None and len(found.scores):
            found_labels = np.asarray(found.labels, dtype=np.int64)
            labels.append(found_labels)
            scores.append(np.asarray(found.scores, dtype=np.float64))
            if len(boxes):
                iou = pairwise_iou(np.asarray(found.boxes, dtype=np.float64), boxes)
                iou[found_labels[:, None] != category] = -1.0
                column = iou.argmax(axis=1)
                best.append(first + column)
                overlap.append(iou[np.arange(len(iou)), column])
                ignored.append(skip[column])
            else:
                best.append(np.full(len(found_labels), -1))
                overlap.append(np.full(len(found_labels), -1.0))
                ignored.append(np.zeros(len(found_labels), dtype=bool))
        first += len(boxes)
    if not truths.any():
        raise UserError(f"{dataset.name}: no box to be found, so there is no AP; check its labels")

    label = _joined(labels, np.int64)
    order = np.argsort(-_joined(scores, np.float64), kind="stable")
    label, best_truth = label[order], _joined(best, np.int64)[order]
    iou_best, ignore = _joined(overlap, np.float64)[order], _joined(ignored, bool)[order]
    ap = {form: np.full((len(THRESHOLDS), classes), np.nan) for form in FORMS}
    for category_id in np.flatnonzero(truths):
        mine = label == category_id
        for row, threshold in enumerate(THRESHOLDS):
            hit = iou_best[mine] > threshold
            counted = ~(hit & ignore[mine])
            true = np.zeros(len(hit), dtype=bool)
            candidates = np.flatnonzero(hit & counted)
            # The first detection of each truth: np.unique returns first positions.
            true[candidates[np.unique(best_truth[mine][candidates], return_index=True)[1]]] = True
            recall, precision = _curve(true[counted], int(truths[category_id]))
            ap["11-point"][row, category_id] = 100 * ap_11_point(recall, precision)
            ap["area"][row, category_id] = 100 * ap_area(recall, precision)
    return VocResult(
        classes=list(dataset.classes),
        truths=truths,
        detections=np.bincount(label, minlength=classes),
        ap=ap,
    )


def check_ids(dataset: DetectionDataset, predictions: Mapping[str, Prediction]) -> None:
    """Raise UserError when `predictions` names an image that `dataset` does not have."""
    unknown = set(predictions) - {record.id for record in dataset.records}
    if unknown:
        raise UserError(
            f"predictions for image {min(unknown)!r}, which {dataset.name} does not have; "
            "predict on the data that is evaluated"
        )


def pairwise_iou(first: NDArray[np.float64], second: NDArray[np.float64]) -> NDArray[np.float64]:
    """Intersection over union of n x 4 and m x 4 continuous boxes, n x m."""
    low = np.maximum(first[:, None, :2], second[:, :2])
    high = np.minimum(first[:, None, 2:], second[:, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    area_first = (first[:, 2:] - first[:, :2]).prod(axis=1)
    area_second = (second[:, 2:] - second[:, :2]).prod(axis=1)
    union = area_first[:, None] + area_second - shared
    return shared / np.maximum(union, np.finfo(np.float64).tiny)


def ap_11_point(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Mean over recall 0, 0.1 ... 1 of the best precision at that recall or more (VOC 2007).

    `recall` and `precision` are after each detection, by falling score; both may be empty.
    """
    best = np.append(np.maximum.accumulate(precision[::-1])[::-1], 0.0)
    return float(best[np.searchsorted(recall, _RECALLS, side="left")].mean())


def ap_area(recall: NDArray[np.float64], precision: NDArray[np.float64]) -> float:
    """Area under the precision curve made monotone from the right (VOC 2010 on)."""
    best = np.maximum.accumulate(precision[::-1])[::-1]
    return float((np.diff(recall, prepend=0.0) * best).sum())


def _curve(true: NDArray[np.bool_], truths: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Recall and precision after each counted detection."""
    hits = np.cumsum(true, dtype=np.float64)
    return hits / truths, hits / np.arange(1, len(true) + 1)


def _joined(parts: list[NDArray], dtype: type) -> NDArray:
    return np.concatenate(parts) if parts else np.empty(0, dtype=dtype)
