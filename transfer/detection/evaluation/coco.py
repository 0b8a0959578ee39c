"""COCO average precision of boxes, masks and keypoints, from memory.

The measure is COCO's own (cocodataset.org, "detection evaluation"): 101 recall points, overlaps
0.50, 0.55 ... 0.95, at most 100 detections per image, crowd boxes neither found nor missed, classes
without ground truth left out. faster-coco-eval computes it when it is installed, pycocotools
otherwise; both give the same numbers, and the result says which one it was.

Small, medium and large go by the area that the file states, whether boxes or masks are measured;
where it states none, by that of the mask, or else of the box. An object without a mask is a crowd
when masks are measured: neither found nor missed. COCO knows no difficult boxes: those of VOC are
boxes like any other here.

Keypoints overlap by OKS in place of areas, with the sigmas of the data set, and at most 20 objects
of an image count; one without a labelled keypoint is neither found nor missed.
"""

import contextlib
import importlib.util
import io
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from pycocotools import mask as rle

from visrep.data.detection import Box, DetectionDataset
from visrep.data.detection.keypoints import MIDDLE
from visrep.data.detection.segmentation import box_mask
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.voc import check_ids
from visrep.transfer.detection.prediction import Prediction

_STATS = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
_AT = {"AP50": 0, "AP75": 5}  # places among the overlaps 0.50, 0.55 ... 0.95
_STATS_OF = {
    "bbox": _STATS,
    "segm": _STATS,
    # Small objects have no keypoints in COCO.
    "keypoints": tuple(name for name in _STATS if name != "AP_small"),
}


@dataclass(frozen=True, kw_only=True)
class CocoResult:
    """COCO AP of one set of predictions.

    Attributes:
        kind: bbox, segm or keypoints.
        numbers: AP, AP50, AP75, AP_small, AP_medium, AP_large in percent. A size that no ground
            truth has is absent.
        per_class: a row per class: class, objects (without crowds), AP, AP50, AP75 in percent, None
            without ground truth.
        curves: precision, 0 to 1, at recall 0, 0.01 ... 1: `mean`, over classes, for AP50 and
            AP75; `classes`, of each by its name that has ground truth, at overlap 0.5.
        backend: faster-coco-eval or pycocotools, with its version.
    """

    kind: str
    numbers: dict[str, float]
    per_class: list[dict[str, Any]] = field(repr=False)
    curves: dict[str, dict[str, list[float]]] = field(repr=False)
    backend: str


def evaluate_coco(
    dataset: DetectionDataset,
    predictions: Mapping[str, Prediction],
    *,
    kind: str = "bbox",
    backend: str = "auto",
) -> CocoResult:
    """COCO AP of `predictions` (image id -> what was found) on `dataset`.

    Args:
        dataset: the ground truth; with masks when `kind` is segm, and so on.
        predictions: by image id; an image that is absent has no detection.
        kind: bbox, segm for masks, or keypoints.
        backend: auto, faster-coco-eval or pycocotools.

    Raises:
        UserError: an unknown image id, no ground truth, or masks or keypoints asked for where there
            are none.
    """
    assert kind in _STATS_OF
    check_ids(dataset, predictions)
    wanted = [box for record in dataset.records for box in record.boxes if not box.crowd]
    if not wanted:
        raise UserError(f"{dataset.name}: no box to be found, so there is no AP; check its labels")
    if kind == "segm" and all(box.mask is None for box in wanted):
        raise UserError(
            f"{dataset.name}: no box has a mask, so there is no mask AP; use outputs=boxes"
        )
    points = dataset.keypoints if kind == "keypoints" else None
    if kind == "keypoints" and not (points and any(box.keypoints for box in wanted)):
        raise UserError(
            f"{dataset.name}: no object has a labelled keypoint, so there is no keypoint AP; use "
            "outputs=boxes"
        )
    coco_class, evaluator_class, name = _backend(backend)
    # Both libraries report their progress on stdout.
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_class()
        truth.dataset = _ground_truth(dataset, kind)
        truth.createIndex()
        found = coco_class()
        found.dataset = {
            "images": truth.dataset["images"],
            "categories": truth.dataset["categories"],
            "annotations": _detections(dataset, predictions, kind),
        }
        found.createIndex()
        evaluator = evaluator_class(truth, found, kind)
        if points is not None:
            evaluator.params.kpt_oks_sigmas = np.array(points.sigmas)
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    names = _STATS_OF[kind]
    stats = [float(value) for value in evaluator.stats[: len(names)]]
    # -1 stands for "no ground truth of that size".
    numbers = {key: 100 * value for key, value in zip(names, stats, strict=True) if value >= 0}
    # Overlaps x recalls x classes, over all sizes and with the most detections.
    precision = np.asarray(evaluator.eval["precision"])[:, :, :, 0, -1]
    counted = (one for one in truth.dataset["annotations"] if not one["iscrowd"])
    objects = Counter(one["category_id"] - 1 for one in counted)
    return CocoResult(
        kind=kind,
        numbers=numbers,
        per_class=_per_class(precision, dataset.classes, objects),
        curves=_curves(precision, dataset.classes),
        backend=name,
    )


def _per_class(
    precision: np.ndarray, classes: list[str], objects: Mapping[int, int]
) -> list[dict[str, Any]]:
    rows = []
    for number, name in enumerate(classes):
        own = precision[:, :, number]
        parts = {"AP": own, **{metric: own[at] for metric, at in _AT.items()}}
        values = {
            metric: None if own[0, 0] < 0 else 100 * float(part.mean())
            for metric, part in parts.items()
        }
        rows.append({"class": name, "objects": objects.get(number, 0), **values})
    return rows


def _curves(precision: np.ndarray, classes: list[str]) -> dict[str, dict[str, list[float]]]:
    known = np.flatnonzero(precision[0, 0] >= 0)
    means = {name: precision[at][:, known].mean(axis=1).tolist() for name, at in _AT.items()}
    own = {classes[number]: precision[0, :, number].tolist() for number in known}
    return {"mean": means, "classes": own}


def _backend(choice: str) -> tuple[type, type, str]:
    """The COCO and COCOeval classes, and the library's name and version."""
    assert choice in ("auto", "faster-coco-eval", "pycocotools")
    from importlib.metadata import version

    fast = importlib.util.find_spec("faster_coco_eval") is not None
    if choice == "faster-coco-eval" or (choice == "auto" and fast):
        from faster_coco_eval import COCO, COCOeval_faster

        return COCO, COCOeval_faster, f"faster-coco-eval {version('faster-coco-eval')}"
    from pycocotools.coco import COCO as PyCOCO
    from pycocotools.cocoeval import COCOeval

    return PyCOCO, COCOeval, f"pycocotools {version('pycocotools')}"


def _ground_truth(dataset: DetectionDataset, kind: str) -> dict[str, Any]:
    images = [
        {"id": number, "height": record.height, "width": record.width, "file_name": record.id}
        for number, record in enumerate(dataset.records, start=1)
    ]
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(dataset.records, start=1):
        for box in record.boxes:
            x0, y0, x1, y1 = (float(value) for value in box.stated or box.xyxy)
            annotation: dict[str, Any] = {
                # From 1 on: the evaluator takes a match with annotation 0 for no match.
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": box.category + 1,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": int(box.crowd),
            }
            if box.mask is not None:
                annotation["segmentation"] = box.mask
                annotation["area"] = float(rle.area(box.mask))
            elif kind == "segm":
                code = box_mask(box.xyxy, record.height, record.width)
                annotation |= {"segmentation": code, "iscrowd": 1}
            if kind == "keypoints":
                annotation |= _stated_points(box, dataset.keypoint_count)
            if box.area is not None:
                annotation["area"] = box.area
            annotations.append(annotation)
    categories = [
        {"id": number, "name": name} for number, name in enumerate(dataset.classes, start=1)
    ]
    return {"info": {}, "images": images, "categories": categories, "annotations": annotations}


def _stated_points(box: Box, count: int) -> dict[str, Any]:
    """As COCO's files have them: numbers of pixels, and 0, 0, 0 for what is not labelled."""
    row = list(box.keypoints or [0.0] * (3 * count))
    for place in range(0, len(row), 3):
        if row[place + 2]:
            row[place : place + 2] = [row[place] - MIDDLE, row[place + 1] - MIDDLE]
    return {"keypoints": row, "num_keypoints": sum(flag > 0 for flag in row[2::3])}


def _found_points(points: Any) -> dict[str, Any]:
    """Of one object, K x 3; its size is that of what they span."""
    rows = np.asarray(points, dtype=np.float64) - [MIDDLE, MIDDLE, 0]
    (left, top), (right, bottom) = rows[:, :2].min(axis=0), rows[:, :2].max(axis=0)
    return {
        "keypoints": rows.reshape(-1).tolist(),
        "bbox": [left, top, right - left, bottom - top],
        "area": (right - left) * (bottom - top),
    }


def _detections(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction], kind: str
) -> list[dict[str, Any]]:
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(dataset.records, start=1):
        found = predictions.get(record.id)
        if found is None or not len(found.scores):
            continue
        boxes = np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4)
        scores = np.asarray(found.scores, dtype=np.float64)
        labels = np.asarray(found.labels, dtype=np.int64)
        if kind == "segm" and found.masks is None:
            raise UserError(f"{record.file}: predictions without masks; train with outputs=masks")
        if kind == "keypoints" and found.keypoints is None:
            raise UserError(
                f"{record.file}: predictions without keypoints; train with outputs=keypoints"
            )
        for row, (box, score, label) in enumerate(zip(boxes, scores, labels, strict=True)):
            x0, y0, x1, y1 = box.tolist()
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": int(label) + 1,
                "score": float(score),
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            if kind == "segm":
                assert found.masks is not None
                annotation["segmentation"] = found.masks[row]
                annotation["area"] = float(rle.area(found.masks[row]))
            if kind == "keypoints":
                assert found.keypoints is not None
                annotation |= _found_points(found.keypoints[row])
            annotations.append(annotation)
    return annotations
