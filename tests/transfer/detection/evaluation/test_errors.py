"""The kinds of errors: boxes whose kind is known, numbers that must add up."""

import json

import numpy as np
import pytest
import torch

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.transfer.detection.evaluation.coco import evaluate_coco
from visrep.transfer.detection.evaluation.errors import KINDS, WORST, look, operating_score
from visrep.transfer.detection.prediction import Prediction

CAT, DOG = 0, 1
SQUARE = (10.0, 10.0, 30.0, 30.0)


def dataset(*images):
    """A data set of 100 x 100 px images with these boxes."""
    records = [
        ImageRecord(file=f"{n}.png", id=str(n), height=100, width=100, boxes=list(boxes))
        for n, boxes in enumerate(images)
    ]
    return DetectionDataset(name="made/test", classes=["cat", "dog"], records=records)


def found(*rows):
    """Predictions of (box, score, class)."""
    return Prediction(
        boxes=torch.tensor([row[0] for row in rows]).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows]),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
    )


def errors(data, *predictions):
    named = {str(n): each for n, each in enumerate(predictions)}
    return look(data, named, evaluate_coco(data, named))


def moved(by):
    """SQUARE to the right: 20 - by of its 20 columns are shared."""
    return (SQUARE[0] + by, SQUARE[1], SQUARE[2] + by, SQUARE[3])


# A second image with one right detection keeps the operating score at 0.5, where it is.
ANCHOR = [Box((0.0, 0.0, 50.0, 50.0), CAT), Box((50.0, 50.0, 100.0, 100.0), CAT)]
RIGHT = found(((0.0, 0.0, 50.0, 50.0), 0.9, CAT), ((50.0, 50.0, 100.0, 100.0), 0.5, CAT))


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [
        ([(SQUARE, 0.8, CAT)], {}),
        ([(moved(6), 0.8, CAT)], {}),  # overlap 14 / 26
        ([(moved(8), 0.8, CAT)], {"localisation": 1}),  # 12 / 28, and so it is not missed
        ([(SQUARE, 0.8, DOG)], {"class": 1}),
        ([(moved(8), 0.8, DOG)], {"both": 1, "missed": 1}),
        ([(SQUARE, 0.8, CAT), (moved(1), 0.7, CAT)], {"duplicate": 1}),
        ([(moved(19), 0.8, CAT)], {"background": 1, "missed": 1}),  # 1 / 39
        ([], {"missed": 1}),
    ],
)
def test_each_kind(rows, kinds):
    data = dataset([Box(SQUARE, CAT)], ANCHOR, ANCHOR, ANCHOR)
    made = errors(data, found(*rows), RIGHT, RIGHT, RIGHT)
    assert made["score"] == pytest.approx(0.5)
    assert made["kinds"] == dict.fromkeys(KINDS, 0) | kinds
    assert made["objects"] == 7


def test_a_wrong_detection_says_where_and_what():
    data = dataset([Box(SQUARE, CAT)], ANCHOR, ANCHOR)
    made = errors(data, found((SQUARE, 0.8, DOG)), RIGHT, RIGHT)
    (entry,) = made["worst"]["class"]
    assert (entry["file"], entry["class"], entry["truth"]) == (
        "0.png",
        "dog",
        {"box": list(SQUARE), "class": "cat"},
    )
    assert (entry["score"], entry["overlap"]) == (0.8, 1.0) and entry["box"] == list(SQUARE)
    assert made["confusions"] == [{"truth": "cat", "predicted": "dog", "count": 1}]
    assert made["images"] == [{"id": "0", "file": "0.png", "wrong": 1, "missed": 0}]
    assert json.loads(json.dumps(made)) == made


def test_difficult_and_crowd_boxes_are_neither_right_nor_wrong():
    difficult = Box(SQUARE, CAT, difficult=True)
    crowd = Box((40.0, 40.0, 100.0, 100.0), CAT, crowd=True)
    rows = [(SQUARE, 0.8, CAT), ((50.0, 50.0, 60.0, 60.0), 0.8, CAT)]
    made = errors(dataset([difficult, crowd], ANCHOR), found(*rows), RIGHT)
    assert not any(made["kinds"].values()) and made["objects"] == 2 and made["right"] == 2
    assert sum(made["scores"]["wrong"]) == 0
    other = errors(dataset([difficult, crowd], ANCHOR), found((SQUARE, 0.8, DOG)), RIGHT)
    assert other["kinds"]["background"] == 1  # of another class they excuse nothing


def test_the_worst_are_the_surest_and_the_largest_misses():
    boxes = [Box((0.0, 0.0, 5.0 + n, 5.0 + n), DOG) for n in range(WORST + 3)]
    rows = [((90.0, 90.0, 95.0, 95.0), 0.6 + n / 100, CAT) for n in range(WORST + 3)]
    many = [ANCHOR] * 20
    made = errors(dataset(boxes, *many), found(*rows), *[RIGHT] * 20)
    sides = [entry["truth"]["box"][2] for entry in made["worst"]["missed"]]
    assert sides == [5.0 + n for n in reversed(range(3, WORST + 3))]
    scores = [entry["score"] for entry in made["worst"]["background"]]
    assert len(scores) == WORST and scores == sorted(scores, reverse=True)
    assert scores[0] == pytest.approx(0.6 + (WORST + 2) / 100)


def test_the_operating_score_has_the_highest_f1():
    rng = np.random.default_rng(0)
    for _ in range(20):
        scores = rng.integers(0, 8, 30) / 8
        right = rng.random(30) < scores
        objects = int(right.sum()) + 5
        f1 = {s: 2 * right[scores >= s].sum() / ((scores >= s).sum() + objects) for s in scores}
        chosen = operating_score(scores, right, objects)
        assert f1[chosen] == max(f1.values())
        assert all(f1[s] < f1[chosen] for s in scores if s > chosen)
    assert operating_score(np.array([0.3]), np.array([False]), 4) == 1.0
    assert operating_score(np.empty(0), np.empty(0, dtype=bool), 4) == 1.0


def test_without_detections_everything_is_missed():
    made = errors(dataset(ANCHOR, []))
    assert made["kinds"] == dict.fromkeys(KINDS, 0) | {"missed": 2}
    assert made["right"] == 0 and len(made["scores"]["right"]) == len(made["scores"]["edges"]) - 1
