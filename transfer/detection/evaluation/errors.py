"""What a detector gets wrong: which kinds of errors, where, and the worst of each.

Kinds are those of Hoiem et al. (ECCV 2012) and of TIDE (Bolya et al., arXiv 2008.08115). Detections
are matched as COCO matches them at overlap 0.5: by falling score, each with the free object of its
class that it overlaps most. Of a wrong one, the object that it overlaps most decides (TIDE asks in
a fixed order instead):

* duplicate: its class, 0.5 or more, but a better detection has it;
* localisation: its class, 0.1 to 0.5;
* class: another class, 0.5 or more;
* both: another class, 0.1 to 0.5;
* background: less than 0.1 with every object.

An object is missed when no detection has it, and no localisation or class error points at it.
A detection of a difficult or crowd box is neither right nor wrong.

Errors are counted from one score on: the one at which F1 over all classes is highest, since a
detector that is read is read at some score. Everything goes by boxes.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.transfer.detection.evaluation.coco import CocoResult
from visrep.transfer.detection.evaluation.voc import pairwise_iou
from visrep.transfer.detection.prediction import Prediction

FORMAT = "visrep-errors/1"
KINDS = ("localisation", "class", "both", "duplicate", "background", "missed")
FOREGROUND, BACKGROUND = 0.5, 0.1  # overlaps
WORST = 12  # kept of each kind
IMAGES = 20  # kept of those with most errors
CONFUSIONS = 20  # kept pairs of classes
BINS = 20  # of scores, 0 to 1

_RIGHT, _WRONG, _IGNORED = 1, 0, -1


@dataclass(kw_only=True)
class _Looked:
    """The detections of one image, by falling score, and its objects.

    Attributes:
        state: of each detection, right, wrong or ignored.
        nearest: of each, the object that it overlaps most, -1 for none; `overlap` with it.
        taker: of each object, the detection that found it, -1 for none.
    """

    record: ImageRecord
    objects: list[Box]
    boxes: NDArray[np.float64]
    scores: NDArray[np.float64]
    labels: NDArray[np.int64]
    state: NDArray[np.int64]
    nearest: NDArray[np.int64]
    overlap: NDArray[np.float64]
    taker: NDArray[np.int64]


@dataclass
class _Counted:
    """What the images have had wrong so far."""

    kinds: Counter[str] = field(default_factory=Counter)
    confused: Counter[tuple[int, int]] = field(default_factory=Counter)
    images: list[dict[str, Any]] = field(default_factory=list)
    found: list[tuple[float, dict[str, Any]]] = field(default_factory=list)


def look(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction], coco: CocoResult
) -> dict[str, Any]:
    """The errors of `predictions` (by image id) on `dataset`, as plain data for `errors.json`.

    Args:
        dataset: with at least one object that is to be found.
        predictions: boxes in pixels of the images, scores, labels; masks play no part.
        coco: COCO AP of the boxes, of the same predictions.

    Returns:
        `score`, from which on errors are counted; `objects`, `right`; `kinds`, the number of each;
        `sizes` and `per_class`, COCO AP in percent; `curves`, of precision over recall; `scores`,
        a histogram of the scores of `right` and `wrong` detections; `confusions` (truth, predicted,
        count); `worst`, per kind, with file, box, class, score, and the object beside it; `images`
        with most errors.
    """
    looked = [_matched(record, predictions.get(record.id)) for record in dataset.records]
    states, scores = (
        np.concatenate([getattr(each, name) for each in looked] or [np.empty(0)])
        for name in ("state", "scores")
    )
    objects = sum(len(each.objects) for each in looked)
    score = operating_score(scores[states != _IGNORED], states[states != _IGNORED] == 1, objects)
    counted = _Counted()
    for each in looked:
        _count(each, score, dataset.classes, counted)
    shown = (states != _IGNORED) & (scores >= score)
    edges = np.linspace(0, 1, BINS + 1)
    worst: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for _, entry in sorted(counted.found, key=lambda pair: -pair[0]):
        if len(worst[entry["kind"]]) < WORST:
            worst[entry["kind"]].append(entry)
    return {
        "format": FORMAT,
        "dataset": dataset.name,
        "score": score,
        "objects": objects,
        "right": int((states[shown] == _RIGHT).sum()),
        "kinds": {kind: counted.kinds[kind] for kind in KINDS},
        "sizes": {
            name: coco.numbers[f"AP_{name}"]
            for name in ("small", "medium", "large")
            if f"AP_{name}" in coco.numbers
        },
        "per_class": coco.per_class,
        "curves": {
            of: {name: [round(v, 4) for v in curve] for name, curve in curves.items()}
            for of, curves in coco.curves.items()
        },
        "scores": {
            "edges": edges.round(6).tolist(),
            "right": np.histogram(scores[states == _RIGHT], edges)[0].tolist(),
            "wrong": np.histogram(scores[states == _WRONG], edges)[0].tolist(),
        },
        "confusions": [
            {"truth": dataset.classes[a], "predicted": dataset.classes[b], "count": count}
            for (a, b), count in counted.confused.most_common(CONFUSIONS)
        ],
        "worst": worst,
        "images": sorted(counted.images, key=lambda one: -one["wrong"] - one["missed"])[:IMAGES],
    }


def operating_score(scores: NDArray[np.float64], right: NDArray[np.bool_], objects: int) -> float:
    """The lowest score that is to be kept for the highest F1 = 2 right / (kept + objects).

    Of several the highest; 1 where nothing is right. `right` says it of each detection.
    """
    order = np.argsort(-scores, kind="stable")
    scores, hits = scores[order], np.cumsum(right[order])
    if not len(hits) or not hits[-1]:
        return 1.0
    f1 = 2 * hits / (np.arange(1, len(hits) + 1) + objects)
    # Detections of one score are kept together.
    last = np.append(scores[1:] != scores[:-1], True)
    return float(scores[np.argmax(np.where(last, f1, -1.0))])


def _matched(record: ImageRecord, found: Prediction | None) -> _Looked:
    objects = [box for box in record.boxes if not (box.difficult or box.crowd)]
    if found is None:
        boxes, scores, labels = np.empty((0, 4)), np.empty(0), np.empty(0, dtype=np.int64)
    else:
        order = np.argsort(-np.asarray(found.scores, dtype=np.float64), kind="stable")
        boxes = np.asarray(found.boxes, dtype=np.float64).reshape(-1, 4)[order]
        scores = np.asarray(found.scores, dtype=np.float64)[order]
        labels = np.asarray(found.labels, dtype=np.int64)[order]
    iou = pairwise_iou(boxes, _array(objects))
    category = np.array([box.category for box in objects], dtype=np.int64)
    state = np.full(len(boxes), _WRONG)
    taker = np.full(len(objects), -1)
    for row in range(len(boxes)):
        free = np.where((category == labels[row]) & (taker < 0), iou[row], -1.0)
        if len(free) and free.max() >= FOREGROUND:
            taker[free.argmax()], state[row] = row, _RIGHT
    state[(state == _WRONG) & _on_ignored(record, boxes, labels)] = _IGNORED
    some = len(objects) > 0
    return _Looked(
        record=record,
        objects=objects,
        boxes=boxes,
        scores=scores,
        labels=labels,
        state=state,
        nearest=iou.argmax(axis=1) if some else np.full(len(boxes), -1),
        overlap=iou.max(axis=1) if some else np.zeros(len(boxes)),
        taker=taker,
    )


def _on_ignored(
    record: ImageRecord, boxes: NDArray[np.float64], labels: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Which detections lie on a difficult box of their class, or in a crowd of it."""
    inside = np.zeros(len(boxes), dtype=bool)
    for box in (box for box in record.boxes if box.difficult or box.crowd):
        only = _array([box])
        overlap = pairwise_iou(boxes, only)[:, 0]
        if box.crowd:  # of a crowd, the share of the detection that is in it
            area = (boxes[:, 2:] - boxes[:, :2]).prod(axis=1)
            shared = overlap / (1 + overlap) * (area + (only[0, 2:] - only[0, :2]).prod())
            overlap = shared / np.maximum(area, np.finfo(np.float64).tiny)
        inside |= (labels == box.category) & (overlap >= FOREGROUND)
    return inside


def _count(one: _Looked, score: float, classes: list[str], counted: _Counted) -> None:
    """Add the errors of an image at `score` to what was counted."""
    kept = one.scores >= score
    excused = np.zeros(len(one.objects), dtype=bool)
    wrong = 0
    for row in np.flatnonzero(kept & (one.state == _WRONG)).tolist():
        kind, near = _kind(one, row), int(one.nearest[row])
        wrong += 1
        counted.kinds[kind] += 1
        if kind in ("localisation", "class"):
            excused[near] = True
        if kind == "class":
            counted.confused[one.objects[near].category, int(one.labels[row])] += 1
        entry = _entry(one.record, kind) | {
            "box": [round(v, 2) for v in one.boxes[row].tolist()],
            "class": classes[one.labels[row]],
            "score": round(float(one.scores[row]), 4),
        }
        if kind != "background":
            entry["truth"] = _truth(one.objects[near], classes)
            entry["overlap"] = round(float(one.overlap[row]), 4)
        counted.found.append((float(one.scores[row]), entry))
    unfound = [
        box
        for box, taker, has_excuse in zip(one.objects, one.taker, excused, strict=True)
        if not has_excuse and (taker < 0 or not kept[taker])
    ]
    for box in unfound:
        counted.kinds["missed"] += 1
        # The largest misses are the worst: they are the easiest to see.
        size = (box.xyxy[2] - box.xyxy[0]) * (box.xyxy[3] - box.xyxy[1])
        share = size / (one.record.height * one.record.width)
        counted.found.append(
            (share, _entry(one.record, "missed") | {"truth": _truth(box, classes)})
        )
    if wrong or unfound:
        about = {"id": one.record.id, "file": str(one.record.file)}
        counted.images.append(about | {"wrong": wrong, "missed": len(unfound)})


def _kind(one: _Looked, row: int) -> str:
    overlap = one.overlap[row]
    if overlap < BACKGROUND:
        return "background"
    same = one.objects[one.nearest[row]].category == one.labels[row]
    if same:
        return "duplicate" if overlap >= FOREGROUND else "localisation"
    return "class" if overlap >= FOREGROUND else "both"


def _entry(record: ImageRecord, kind: str) -> dict[str, Any]:
    return {
        "kind": kind,
        "id": record.id,
        "file": str(record.file),
        "height": record.height,
        "width": record.width,
        "depth": record.depth,
    }


def _truth(box: Box, classes: list[str]) -> dict[str, Any]:
    return {"box": [round(v, 2) for v in box.xyxy], "class": classes[box.category]}


def _array(boxes: list[Box]) -> NDArray[np.float64]:
    return np.array([box.xyxy for box in boxes], dtype=np.float64).reshape(-1, 4)
