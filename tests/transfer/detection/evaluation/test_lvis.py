"""LVIS AP: by hand, against plain loops, and against faster-coco-eval's form of it."""

import contextlib
import importlib.util
import io

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.oracles.federated import lvis_numbers
from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.data.detection.boxes import Federated
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.lvis import MOST, evaluate_lvis
from visrep.transfer.detection.prediction import Prediction

SIDE = 160  # pixels of an image
FREQUENCY = ["f", "c", "r", "r", "c"]


def code(mask):
    made = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return {"size": made["size"], "counts": made["counts"].decode()}


def drawn(box, *, round_one=False):
    x0, y0, x1, y1 = box
    v, u = np.mgrid[:SIDE, :SIDE] + 0.5
    if round_one:
        width, height = (x1 - x0) / 2, (y1 - y0) / 2
        return ((u - x0 - width) / width) ** 2 + ((v - y0 - height) / height) ** 2 <= 1
    return (u > x0) & (u < x1) & (v > y0) & (v < y1)


def random_box(rng):
    size = rng.choice([12, 50, 120]) * rng.uniform(0.7, 1.2, 2)
    corner = rng.uniform(0, SIDE - size)
    return np.round(np.concatenate([corner, corner + size]), 1).tolist()


def case(seed, kind):
    """Random objects and detections as plain dicts, and the same as a data set and predictions.

    Overlaps are of all sizes, scores have ties, and class 4 is never labelled.
    """
    rng = np.random.default_rng(seed)
    images = [f"{n}" for n in range(6)]
    truths, found = [], []
    absent, incomplete = {}, {}
    for image in images:
        for _ in range(rng.integers(0, 5)):
            box = random_box(rng)
            # The area that a file states is that of the polygon, not of its pixels.
            truths.append({"image": image, "label": int(rng.integers(4)), "box": box})
        present = {t["label"] for t in truths if t["image"] == image}
        absent[image] = {c for c in range(5) if c not in present and rng.random() < 0.4}
        incomplete[image] = {c for c in present if rng.random() < 0.4}
        for _ in range(rng.integers(0, 15)):
            mine = [t for t in truths if t["image"] == image]
            near = mine[rng.integers(len(mine))] if mine and rng.random() < 0.7 else None
            box = random_box(rng)
            if near:
                box = np.clip(np.array(near["box"]) + rng.normal(0, 3, 4), 0, SIDE).round(1)
                box = [*np.minimum(box[:2], box[2:] - 3).tolist(), *box[2:].tolist()]
            label = near["label"] if near and rng.random() < 0.8 else int(rng.integers(5))
            score = float(np.float32(rng.integers(1, 30) / 30))
            box = [float(np.float32(value)) for value in box]
            found.append({"image": image, "label": label, "score": score, "box": box})
    for entry in [*truths, *found]:
        entry["shape"] = drawn(entry["box"], round_one=entry["label"] % 2 == 1)
        x0, y0, x1, y1 = entry["box"]
        entry["area"] = (x1 - x0) * (y1 - y0)
        if kind == "segm":
            entry["mask"] = entry["shape"]
            entry["area"] = float(entry["shape"].sum())
    for truth in truths:  # of both kinds; a detection has its own
        truth["area"] = float(truth["shape"].sum()) + 0.25
    return images, truths, found, absent, incomplete


def as_data(images, truths, found, absent, incomplete):
    classes = [f"class {n}" for n in range(len(FREQUENCY))]
    records = [
        ImageRecord(
            f"{image}.jpg",
            image,
            SIDE,
            SIDE,
            [
                Box(tuple(t["box"]), t["label"], mask=code(t["shape"]), area=t["area"])
                for t in truths
                if t["image"] == image
            ],
        )
        for image in images
    ]
    names = [
        {image: frozenset(classes[c] for c in sets[image]) for image in images}
        for sets in (absent, incomplete)
    ]
    known = Federated(
        frequency=dict(zip(classes, FREQUENCY, strict=True)), absent=names[0], incomplete=names[1]
    )
    dataset = DetectionDataset("toy", classes, records, federated=known)
    predictions = {}
    for image in images:
        mine = [d for d in found if d["image"] == image]
        if mine:
            predictions[image] = Prediction(
                boxes=torch.tensor([d["box"] for d in mine]),
                scores=torch.tensor([d["score"] for d in mine]),
                labels=torch.tensor([d["label"] for d in mine]),
                masks=[code(d["shape"]) for d in mine],
            )
    return dataset, predictions


@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(5))
def test_random_cases_equal_plain_loops(seed, kind):
    images, truths, found, absent, incomplete = case(seed, kind)
    dataset, predictions = as_data(images, truths, found, absent, incomplete)
    result = evaluate_lvis(dataset, predictions, kind=kind)
    expected = lvis_numbers(
        truths, found, images, absent=absent, incomplete=incomplete, frequency=FREQUENCY
    )
    assert result.kind == kind and set(result.numbers) == set(expected)
    assert 0 < result.numbers["AP"] < 100
    for name, value in expected.items():
        assert result.numbers[name] == pytest.approx(value, abs=1e-9), name


@pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval not installed"
)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
@pytest.mark.parametrize("seed", range(4))
def test_random_cases_equal_faster_coco_eval(seed, kind):
    from faster_coco_eval import COCO, COCOeval_faster

    images, truths, found, absent, incomplete = case(seed, kind)
    dataset, predictions = as_data(images, truths, found, absent, incomplete)
    # A file has what was not said of a class as no entry of either list.
    content = {
        "info": {},
        "images": [
            {
                "id": int(image) + 1,
                "height": SIDE,
                "width": SIDE,
                "neg_category_ids": [c + 1 for c in absent[image]],
                "not_exhaustive_category_ids": [c + 1 for c in incomplete[image]],
            }
            for image in images
        ],
        "categories": [
            {"id": c + 1, "name": f"class {c}", "frequency": f} for c, f in enumerate(FREQUENCY)
        ],
        "annotations": [
            entry(t, i) | {"area": t["area"], "iscrowd": 0} for i, t in enumerate(truths, start=1)
        ],
    }
    detections = [
        entry(d, i) | {"area": d["area"], "score": d["score"]} for i, d in enumerate(found, start=1)
    ]
    with contextlib.redirect_stdout(io.StringIO()):
        truth, other = COCO(), COCO()
        truth.dataset = content
        truth.createIndex()
        other.dataset = {**content, "annotations": detections}
        other.createIndex()
        evaluator = COCOeval_faster(truth, other, kind, lvis_style=True)
        evaluator.params.maxDets = [MOST]
        evaluator.evaluate()
        evaluator.accumulate()
        evaluator.summarize()
    stats = evaluator.stats_as_dict
    numbers = evaluate_lvis(dataset, predictions, kind=kind).numbers
    names = {"AP": "AP_all", "AP50": "AP_50", "AP75": "AP_75"}
    for name, value in numbers.items():
        assert value == pytest.approx(100 * stats[names.get(name, name)], abs=1e-6), name


def entry(row, number):
    x0, y0, x1, y1 = row["box"]
    return {
        "id": number,
        "image_id": int(row["image"]) + 1,
        "category_id": row["label"] + 1,
        "bbox": [x0, y0, x1 - x0, y1 - y0],
        "segmentation": code(row["shape"]),
    }


# By hand

A, B = [10.0, 10.0, 50.0, 50.0], [100.0, 100.0, 140.0, 140.0]


def one_image(truths, found, *, absent=(), incomplete=()):
    images = ["0"]
    shaped = [
        {"image": "0", "label": label, "box": box, "shape": drawn(box), "area": 1600.0}
        for box, label in truths
    ]
    detections = [
        {"image": "0", "label": label, "score": score, "box": box, "shape": drawn(box)}
        for box, label, score in found
    ]
    made = as_data(images, shaped, detections, {"0": set(absent)}, {"0": set(incomplete)})
    return evaluate_lvis(*made)


def test_a_class_of_which_nothing_is_known_is_not_measured():
    found = [(A, 0, 0.5), (B, 1, 0.9)]
    assert one_image([(A, 0)], found).per_class[1]["detections"] == 0
    assert one_image([(A, 0)], found, absent=[1]).per_class[1]["detections"] == 1
    assert one_image([(A, 0)], found).numbers["AP"] == pytest.approx(100)


def test_what_finds_nothing_is_wrong_unless_the_labels_are_incomplete():
    found = [(B, 0, 0.9), (A, 0, 0.5)]
    assert one_image([(A, 0)], found).numbers["AP"] == pytest.approx(50)
    assert one_image([(A, 0)], found, incomplete=[0]).numbers["AP"] == pytest.approx(100)


def test_only_the_best_300_of_an_image_are_looked_at():
    others = [(B, 1, 0.9)] * MOST
    result = one_image([(A, 0)], [(A, 0, 0.5), *others])
    assert result.numbers["AP"] == 0
    assert one_image([(A, 0)], [(A, 0, 0.5), *others[1:]]).numbers["AP"] == pytest.approx(100)


def test_rows_name_frequency_and_what_is_unknown():
    result = one_image([(A, 0)], [(A, 0, 0.5)])
    first, second = result.per_class[:2]
    assert first == {
        "class": "class 0",
        "frequency": "f",
        "truths": 1,
        "detections": 1,
        "AP50": pytest.approx(100),
        "AP": pytest.approx(100),
        "AP75": pytest.approx(100),
    }
    assert second["AP"] is None and second["truths"] == 0
    assert set(result.numbers) == {"AP", "AP50", "AP75", "AP_medium", "APf"}


def test_what_cannot_be_measured_is_one_line():
    with pytest.raises(UserError, match="no object to be found"):
        one_image([], [(A, 0, 0.5)], absent=[0])
    dataset, predictions = as_data(*case(0, "segm"))
    with pytest.raises(UserError, match="which toy does not have"):
        evaluate_lvis(dataset, {"stranger": next(iter(predictions.values()))})
    for prediction in predictions.values():
        prediction.masks = None
    with pytest.raises(UserError, match="predictions without masks"):
        evaluate_lvis(dataset, predictions, kind="segm")
