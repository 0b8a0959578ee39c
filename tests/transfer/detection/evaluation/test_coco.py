"""COCO AP: by hand, and the same from both libraries."""

import importlib.util

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.coco import evaluate_coco
from visrep.transfer.detection.prediction import Prediction

NEEDS_FAST = pytest.mark.skipif(
    importlib.util.find_spec("faster_coco_eval") is None, reason="faster-coco-eval not installed"
)


def drawn(xyxy, height=64, width=64):
    mask = np.zeros((height, width), dtype=np.uint8)
    x0, y0, x1, y1 = (round(v) for v in xyxy)
    mask[max(y0, 0) : y1, max(x0, 0) : x1] = 1
    code = rle.encode(np.asfortranarray(mask))
    return {"size": code["size"], "counts": code["counts"].decode()}


def dataset(boxes, classes=("cat",), masks=True):
    records = [
        ImageRecord(
            file=f"{n}.jpg",
            id=f"image{n}",
            height=64,
            width=64,
            boxes=[
                Box(xyxy=b[0], category=b[1], crowd=len(b) > 2, mask=drawn(b[0]) if masks else None)
                for b in image
            ],
        )
        for n, image in enumerate(boxes)
    ]
    return DetectionDataset(name="toy", classes=list(classes), records=records, skipped=[])


def prediction(*rows, masks=True):
    return Prediction(
        boxes=torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows]),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
        masks=[drawn(row[0]) for row in rows] if masks else None,
    )


A, B, FAR = (0.0, 0.0, 10.0, 10.0), (30.0, 30.0, 40.0, 40.0), (50.0, 50.0, 60.0, 60.0)
BACKENDS = ["pycocotools", pytest.param("faster-coco-eval", marks=NEEDS_FAST)]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_perfect_detections(backend, kind):
    found = {"image0": prediction((A, 0.9, 0), (B, 0.8, 0))}
    result = evaluate_coco(dataset([[(A, 0), (B, 0)]]), found, kind=kind, backend=backend)
    assert result.numbers == pytest.approx(
        {"AP": 100.0, "AP50": 100.0, "AP75": 100.0, "AP_small": 100.0}
    )
    assert result.backend.startswith(backend)


@pytest.mark.parametrize("backend", BACKENDS)
def test_half_of_the_thresholds(backend):
    """IoU 0.7: found at 0.50, 0.55, 0.60, 0.65, 0.70, which here is not strict."""
    found = {"image0": prediction(((0.0, 0.0, 10.0, 7.0), 0.9, 0))}
    numbers = evaluate_coco(dataset([[(A, 0)]]), found, backend=backend).numbers
    assert numbers["AP"] == pytest.approx(50.0)
    assert numbers["AP50"] == pytest.approx(100.0)
    assert numbers["AP75"] == 0.0


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_false_alarm_first(backend):
    """Precision 1/2 at every recall point."""
    found = {"image0": prediction((FAR, 0.9, 0), (A, 0.8, 0))}
    numbers = evaluate_coco(dataset([[(A, 0)]]), found, backend=backend).numbers
    assert numbers["AP"] == pytest.approx(50.0)


@pytest.mark.parametrize("backend", BACKENDS)
def test_crowds_and_absent_classes_are_left_out(backend):
    data = dataset([[(A, 0), (B, 0, "crowd")], []], classes=["cat", "ghost"])
    found = {"image0": prediction((B, 0.95, 0), (A, 0.9, 0)), "image1": prediction()}
    assert evaluate_coco(data, found, backend=backend).numbers["AP"] == pytest.approx(100.0)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_no_detection_is_zero(backend, kind):
    assert evaluate_coco(dataset([[(A, 0)]]), {}, kind=kind, backend=backend).numbers["AP"] == 0


@NEEDS_FAST
@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_both_libraries_give_the_same_numbers(kind):
    rng = np.random.default_rng(0)

    def box():
        x, y, w, h = rng.integers(0, 40), rng.integers(0, 40), *rng.integers(4, 24, 2)
        return (float(x), float(y), float(x + w), float(y + h))

    truths, predictions = [], {}
    for n in range(25):
        image = [
            (box(), int(rng.integers(3)), *(["crowd"] if rng.random() < 0.1 else []))
            for _ in range(rng.integers(1, 6))
        ]
        truths.append(image)
        rows = []
        for xyxy, category, *_ in image:
            moved = tuple(v + int(rng.integers(-2, 3)) for v in xyxy)
            # Few distinct scores, so that ties occur.
            rows.append((moved, int(rng.integers(1, 9)) / 10, category))
        rows += [(box(), int(rng.integers(1, 9)) / 10, int(rng.integers(3))) for _ in range(3)]
        predictions[f"image{n}"] = prediction(*rows)
    data = dataset(truths, classes=["a", "b", "c"])
    slow = evaluate_coco(data, predictions, kind=kind, backend="pycocotools")
    fast = evaluate_coco(data, predictions, kind=kind, backend="faster-coco-eval")
    assert slow.numbers.keys() == fast.numbers.keys()
    assert slow.numbers == pytest.approx(fast.numbers, abs=1e-9)
    assert 0 < slow.numbers["AP"] < 100
    assert evaluate_coco(data, predictions, kind=kind).backend == fast.backend


def test_what_cannot_be_measured_is_refused(capsys):
    with pytest.raises(UserError, match="no box to be found"):
        evaluate_coco(dataset([[(A, 0, "crowd")]]), {})
    with pytest.raises(UserError, match="a box without a mask"):
        evaluate_coco(dataset([[(A, 0)]], masks=False), {}, kind="segm")
    with pytest.raises(UserError, match="predictions without masks"):
        found = {"image0": prediction((A, 0.9, 0), masks=False)}
        evaluate_coco(dataset([[(A, 0)]]), found, kind="segm")
    with pytest.raises(UserError, match="'other', which toy does not have"):
        evaluate_coco(dataset([[(A, 0)]]), {"other": prediction((A, 0.9, 0))})
    assert capsys.readouterr().out == ""
