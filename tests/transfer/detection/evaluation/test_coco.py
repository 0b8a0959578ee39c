"""COCO AP: by hand, and the same from both libraries."""

import contextlib
import copy
import importlib.util
import io
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.transfer.detection.shapes import CORNERS
from visrep.data.detection import Box, DetectionDataset, ImageRecord, read_coco
from visrep.data.detection.segmentation import box_mask
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
    result = evaluate_coco(data, found, backend=backend)
    assert result.numbers["AP"] == pytest.approx(100.0)
    assert result.per_class[1] == dict.fromkeys(("AP", "AP50", "AP75")) | {
        "class": "ghost",
        "objects": 0,
    }
    assert list(result.curves["classes"]) == ["cat"]


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
    for of in ("mean", "classes"):
        for name, curve in slow.curves[of].items():
            assert curve == pytest.approx(fast.curves[of][name], abs=1e-9)
    for mine, other in zip(slow.per_class, fast.per_class, strict=True):
        assert mine == pytest.approx(other, abs=1e-9)
    for metric in ("AP", "AP50", "AP75"):
        mean = np.mean([row[metric] for row in slow.per_class])
        assert mean == pytest.approx(slow.numbers[metric], abs=1e-9)
    for row in slow.per_class:
        assert 100 * np.mean(slow.curves["classes"][row["class"]]) == pytest.approx(row["AP50"])
        wanted = [box for image in truths for box in image if len(box) == 2]
        assert row["objects"] == sum("abc"[box[1]] == row["class"] for box in wanted)
    assert evaluate_coco(data, predictions, kind=kind).backend == fast.backend


def random_json(rng):
    """Images, objects (crowds, boxes over the edge, areas of their own), and detections."""
    content = {"images": [], "annotations": [], "categories": []}
    content["categories"] = [{"id": id_, "name": f"c{id_}"} for id_ in (3, 8, 11)]
    found = []
    for image in range(1, 13):
        height, width = (int(side) for side in rng.integers(120, 260, 2))
        content["images"].append(
            {"id": image, "file_name": f"{image}.png", "height": height, "width": width}
        )
        for _ in range(rng.integers(1, 9)):
            w, h = rng.uniform(4, 110, 2).tolist()
            x, y = (float(rng.uniform(-3, side)) for side in (width - w / 2, height - h / 2))
            category = int(rng.choice([3, 8, 11]))
            corners = [x, y, x + w, y, x + w, y + h, x, y + h]
            content["annotations"].append(
                {
                    "id": len(content["annotations"]) + 1,
                    "image_id": image,
                    "category_id": category,
                    "bbox": [x, y, w, h],
                    "area": float(rng.uniform(0.2, 1.5) * w * h),
                    "iscrowd": int(rng.random() < 0.15),
                    "ignore": int(rng.random() < 0.2),
                    "segmentation": [corners],
                }
            )
            for _ in range(rng.integers(0, 4)):
                moved = [v + float(rng.normal(0, 0.1 * min(w, h))) for v in (x, y, w, h)]
                score = int(rng.integers(1, 9)) / 8  # few values, so that ties occur
                found.append((image, int(rng.choice([category, category, 3])), moved, score))
    return content, found


def reference(path, found, kind):
    """The six numbers, as the authors' evaluation computes them from the same json."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        evaluation = COCOeval(truth, truth.loadRes(found), kind)
        evaluation.evaluate(), evaluation.accumulate(), evaluation.summarize()
    names = ("AP", "AP50", "AP75", "AP_small", "AP_medium", "AP_large")
    return {name: 100 * v for name, v in zip(names, evaluation.stats, strict=False) if v >= 0}


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("seed", range(3))
def test_the_numbers_of_a_json_are_pycocotools_own(tmp_path, seed, backend):
    """Even where ours was written with text for numbers."""
    content, found = random_json(np.random.default_rng(seed))
    for image in content["images"]:
        (tmp_path / image["file_name"]).touch()
    path, texts = tmp_path / "truth.json", tmp_path / "texts.json"
    path.write_text(json.dumps(content))
    for entry in content["annotations"]:
        entry.update({k: str(entry[k]) for k in ("image_id", "iscrowd", "area")})
        entry["bbox"] = [repr(v) for v in entry["bbox"]]
    for entry in content["images"]:
        entry.update({k: float(entry[k]) for k in ("id", "height", "width")})
    texts.write_text(json.dumps(content))
    data = read_coco(texts, tmp_path)
    sizes = {record.id: (record.height, record.width) for record in data.records}
    index = {3: 0, 8: 1, 11: 2}
    predictions, results = {}, []
    for id_ in sizes:
        rows = [row for row in found if str(row[0]) == id_]
        xyxy = np.array([(x, y, x + max(w, 1), y + max(h, 1)) for _, _, (x, y, w, h), _ in rows])
        xyxy = xyxy.reshape(-1, 4)
        masks = [box_mask(box, *sizes[id_]) for box in xyxy.tolist()]
        predictions[id_] = Prediction(
            boxes=torch.from_numpy(xyxy),
            scores=torch.tensor([row[3] for row in rows], dtype=torch.float64),
            labels=torch.tensor([index[row[1]] for row in rows], dtype=torch.int64),
            masks=masks,
        )
        for (image, category, _, score), (x0, y0, x1, y1), mask in zip(
            rows, xyxy.tolist(), masks, strict=True
        ):
            result = {"image_id": image, "category_id": category, "score": score}
            results.append((result, {"bbox": [x0, y0, x1 - x0, y1 - y0]}, {"segmentation": mask}))
    for kind, column in (("bbox", 1), ("segm", 2)):
        wanted = reference(path, [{**row[0], **row[column]} for row in results], kind)
        got = evaluate_coco(data, predictions, kind=kind, backend=backend).numbers
        assert {"AP_small", "AP_medium", "AP_large"} <= wanted.keys()
        assert got == pytest.approx(wanted, abs=1e-9), kind
        assert 5 < got["AP"] < 95


def test_an_object_without_a_mask_is_no_miss_where_masks_are_measured():
    data = dataset([[(A, 0), (B, 0)]])
    data.records[0].boxes[1].mask = None
    for found in ([(A, 0.9, 0)], [(B, 0.95, 0), (A, 0.9, 0)]):
        numbers = evaluate_coco(data, {"image0": prediction(*found)}, kind="segm").numbers
        assert numbers["AP"] == pytest.approx(100.0)
    boxes = evaluate_coco(data, {"image0": prediction((A, 0.9, 0))}).numbers
    assert boxes["AP"] == pytest.approx(100 * 51 / 101), "a box like any other"


def random_keypoints(rng, count):
    """As `random_json`, with keypoints: some hidden, some not labelled, some objects without."""
    content, _ = random_json(rng)
    for category in content["categories"]:
        category["keypoints"] = [f"p{number}" for number in range(count)]
    for entry in content["annotations"]:
        x, y, w, h = entry["bbox"]
        flags = rng.integers(0, 3, count) * int(rng.random() < 0.8)
        rows = [
            [round(float(x + w * u), 2), round(float(y + h * v), 2), int(flag)] if flag else [0] * 3
            for (u, v), flag in zip(rng.random((count, 2)), flags, strict=True)
        ]
        entry["keypoints"] = [value for row in rows for value in row]
        entry["num_keypoints"] = int((flags > 0).sum())
        del entry["segmentation"], entry["ignore"]
    results = []
    for entry in content["annotations"]:
        for _ in range(rng.integers(0, 4)):
            rows = np.array(entry["keypoints"], dtype=float).reshape(-1, 3)
            spread = 0.12 * min(entry["bbox"][2:])
            rows[:, :2] = (rows[:, :2] + rng.normal(0, spread, (count, 2))).astype(np.float32)
            rows[:, 2] = 1
            results.append(
                {
                    "image_id": entry["image_id"],
                    "category_id": int(rng.choice([entry["category_id"]] * 2 + [3])),
                    "score": int(rng.integers(1, 9)) / 8,
                    "keypoints": rows.reshape(-1).tolist(),
                }
            )
    return content, results


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("count", [17, 5])
def test_the_numbers_of_keypoints_are_pycocotools_own(tmp_path, count, backend):
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    content, results = random_keypoints(np.random.default_rng(count), count)
    for image in content["images"]:
        (tmp_path / image["file_name"]).touch()
    path = tmp_path / "truth.json"
    path.write_text(json.dumps(content))
    sigmas = np.linspace(0.3, 1.1, count) / 3
    data = read_coco(path, tmp_path, keypoints=True, keypoint_sigmas=sigmas.tolist())
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO(str(path))
        wanted = COCOeval(truth, truth.loadRes(copy.deepcopy(results)), "keypoints")
        wanted.params.kpt_oks_sigmas = sigmas
        wanted.evaluate(), wanted.accumulate(), wanted.summarize()
    found = {}
    for record in data.records:
        rows = [row for row in results if str(row["image_id"]) == record.id]
        points = np.array([row["keypoints"] for row in rows]).reshape(-1, count, 3)
        points[..., :2] += 0.5
        found[record.id] = Prediction(
            boxes=torch.zeros(len(rows), 4),
            scores=torch.tensor([row["score"] for row in rows]),
            labels=torch.tensor([[3, 8, 11].index(row["category_id"]) for row in rows]).long(),
            keypoints=torch.from_numpy(points),
        )
    got = evaluate_coco(data, found, kind="keypoints", backend=backend).numbers
    names = ("AP", "AP50", "AP75", "AP_medium", "AP_large")
    assert got == pytest.approx(
        {name: 100 * value for name, value in zip(names, wanted.stats, strict=False)}, abs=1e-9
    )
    assert 5 < got["AP"] < 95 and got["AP_large"] >= 0


def test_keypoints_that_are_not_there_are_refused():
    data = dataset([[(A, 0)]])
    with pytest.raises(UserError, match="no object has a labelled keypoint, so there is no keyp"):
        evaluate_coco(data, {}, kind="keypoints")
    data.keypoints = CORNERS
    data.records[0].boxes[0].keypoints = (1.5, 1.5, 2, *[0.0] * 9)
    assert evaluate_coco(data, {}, kind="keypoints").numbers == {"AP": 0, "AP50": 0, "AP75": 0}
    with pytest.raises(UserError, match="predictions without keypoints; train with outputs=keyp"):
        evaluate_coco(data, {"image0": prediction((A, 0.9, 0))}, kind="keypoints")


def test_what_cannot_be_measured_is_refused(capsys):
    with pytest.raises(UserError, match="no box to be found"):
        evaluate_coco(dataset([[(A, 0, "crowd")]]), {})
    with pytest.raises(UserError, match="no box has a mask"):
        evaluate_coco(dataset([[(A, 0)]], masks=False), {}, kind="segm")
    with pytest.raises(UserError, match="predictions without masks"):
        found = {"image0": prediction((A, 0.9, 0), masks=False)}
        evaluate_coco(dataset([[(A, 0)]]), found, kind="segm")
    with pytest.raises(UserError, match="'other', which toy does not have"):
        evaluate_coco(dataset([[(A, 0)]]), {"other": prediction((A, 0.9, 0))})
    assert capsys.readouterr().out == ""
