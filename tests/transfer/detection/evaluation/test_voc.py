"""VOC AP: by hand, against plain loops, and against Detectron2's evaluator."""

import random

import numpy as np
import pytest
import torch

from visrep.data.detection import Box, DetectionDataset, ImageRecord
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.voc import (
    THRESHOLDS,
    ap_11_point,
    ap_area,
    evaluate_voc,
    pairwise_iou,
)
from visrep.transfer.detection.prediction import Prediction


def dataset(boxes, classes=("cat",)):
    """One image per list of (xyxy, category[, difficult])."""
    records = [
        ImageRecord(
            file=f"{n}.jpg",
            id=str(n),
            height=100,
            width=100,
            boxes=[Box(xyxy=b[0], category=b[1], difficult=len(b) > 2 and b[2]) for b in image],
        )
        for n, image in enumerate(boxes)
    ]
    return DetectionDataset(name="toy", classes=list(classes), records=records, skipped=[])


def prediction(*rows):
    """Rows of (xyxy, score, label)."""
    return Prediction(
        boxes=torch.tensor([row[0] for row in rows], dtype=torch.float32).reshape(-1, 4),
        scores=torch.tensor([row[1] for row in rows]),
        labels=torch.tensor([row[2] for row in rows], dtype=torch.int64),
        masks=None,
    )


A, B = (0.0, 0.0, 10.0, 10.0), (50.0, 50.0, 60.0, 60.0)
FAR = (80.0, 80.0, 90.0, 90.0)


def test_perfect_detections_score_100_in_every_form():
    found = {"0": prediction((A, 0.9, 0), (B, 0.8, 0))}
    numbers = evaluate_voc(dataset([[(A, 0), (B, 0)]]), found).numbers()
    assert numbers == pytest.approx(
        dict.fromkeys(["AP50", "AP", "AP75", "AP50_area", "AP_area", "AP75_area"], 100.0)
    )


def test_half_found_after_a_false_alarm():
    # By score: false, true. Of two truths one is found: recall 0, 1/2; precision 0, 1/2.
    found = {"0": prediction((FAR, 0.9, 0), (A, 0.8, 0))}
    numbers = evaluate_voc(dataset([[(A, 0), (B, 0)]]), found).numbers()
    assert numbers["AP50"] == pytest.approx(100 * 6 * 0.5 / 11)  # recall 0, 0.1 ... 0.5
    assert numbers["AP50_area"] == pytest.approx(100 * 0.5 * 0.5)


def test_five_detections_by_hand():
    # true, false, true, true, false over four truths:
    # recall .25 .25 .5 .75 .75, precision 1 1/2 2/3 3/4 3/5, so the envelope is 1, 3/4, 3/4, 3/4
    truth = [[((20.0 * k, 0.0, 20.0 * k + 10, 10.0), 0) for k in range(4)]]
    rows = [
        (truth[0][0][0], 0.9, 0),
        (FAR, 0.8, 0),
        (truth[0][1][0], 0.7, 0),
        (truth[0][2][0], 0.6, 0),
        (FAR, 0.5, 0),
    ]
    numbers = evaluate_voc(dataset(truth), {"0": prediction(*rows)}).numbers()
    assert numbers["AP50_area"] == pytest.approx(100 * (0.25 + 0.5 * 0.75))
    # recall 0, .1, .2 have 1; .3 to .7 have 3/4; .8 to 1 have 0
    assert numbers["AP50"] == pytest.approx(100 * (3 * 1 + 5 * 0.75) / 11)


def test_a_second_detection_of_a_box_is_false_even_where_it_overlaps_a_free_one():
    near = (0.0, 0.0, 10.0, 12.0)  # overlaps A by 10/12, and `free` by less
    free = (0.0, 4.0, 10.0, 14.0)
    found = {"0": prediction((A, 0.9, 0), (near, 0.8, 0))}
    result = evaluate_voc(dataset([[(A, 0), (free, 0)]]), found)
    assert pairwise_iou(np.array([near]), np.array([A, free])).tolist()[0] == pytest.approx(
        [10 / 12, 80 / 140]
    )
    assert result.ap["area"][0, 0] == pytest.approx(50.0)  # one of two found, nothing after it


def test_overlap_must_be_strictly_above_the_threshold():
    half = (0.0, 0.0, 10.0, 5.0)  # IoU with A is exactly 0.5
    ap = evaluate_voc(dataset([[(A, 0)]]), {"0": prediction((half, 0.9, 0))}).ap["area"]
    assert ap[0, 0] == 0
    more = (0.0, 0.0, 10.0, 5.01)
    ap = evaluate_voc(dataset([[(A, 0)]]), {"0": prediction((more, 0.9, 0))}).ap["area"]
    assert ap[0, 0] == 100 and ap[1, 0] == 0


def test_inclusive_pixels_are_continuous_boxes_less_one():
    """VOC's (1, 1, 10, 10) and (1, 1, 10, 5), 10 x 10 and 10 x 5 pixels, overlap by 50/100."""
    first, second = np.array([[0.0, 0, 10, 10]]), np.array([[0.0, 0, 10, 5]])
    assert pairwise_iou(first, second)[0, 0] == 0.5


def test_difficult_boxes_count_neither_way():
    found = {"0": prediction((B, 0.9, 0), (B, 0.85, 0), (A, 0.8, 0))}
    result = evaluate_voc(dataset([[(A, 0), (B, 0, True)]]), found)
    assert result.truths.tolist() == [1]
    assert result.numbers()["AP50_area"] == 100.0  # both detections of the difficult box ignored


def test_classes_without_truth_are_reported_and_left_out():
    found = {"0": prediction((A, 0.9, 0), (B, 0.8, 1))}
    result = evaluate_voc(dataset([[(A, 0)]], classes=["cat", "ghost", "dog"]), found)
    assert result.without_truth == ["ghost", "dog"]
    assert result.numbers()["AP50"] == 100.0
    assert result.per_class()[1] == {
        "class": "ghost",
        "truths": 0,
        "detections": 1,
        "AP50": None,
        "AP": None,
        "AP75": None,
    }
    assert "left out, no ground truth: ghost, dog" in result.table()


def test_a_class_with_only_difficult_boxes_is_left_out():
    result = evaluate_voc(dataset([[(A, 0), (B, 1, True)]], classes=["cat", "dog"]), {})
    assert result.without_truth == ["dog"]
    assert result.numbers()["AP50"] == 0.0


def test_no_detection_at_all_is_zero_not_an_error():
    numbers = evaluate_voc(dataset([[(A, 0)], []]), {}).numbers()
    assert set(numbers.values()) == {0.0}


def test_images_are_matched_by_id_and_not_by_place():
    data = dataset([[(A, 0)], [(B, 0)]])
    found = {"1": prediction((B, 0.9, 0)), "0": prediction((A, 0.8, 0))}
    assert evaluate_voc(data, found).numbers()["AP50"] == 100.0
    swapped = {"0": prediction((B, 0.9, 0)), "1": prediction((A, 0.8, 0))}
    assert evaluate_voc(data, swapped).numbers()["AP50"] == 0.0


def test_what_cannot_be_measured_is_refused():
    with pytest.raises(UserError, match="'7', which toy does not have"):
        evaluate_voc(dataset([[(A, 0)]]), {"7": prediction((A, 0.9, 0))})
    with pytest.raises(UserError, match="no box to be found"):
        evaluate_voc(dataset([[(A, 0, True)]]), {})


def test_ap_of_empty_curves_is_zero():
    empty = np.empty(0)
    assert ap_11_point(empty, empty) == 0.0
    assert ap_area(empty, empty) == 0.0


def test_eleven_points_are_the_kits_floats():
    """0.1 * 3 is above 0.3: a recall of exactly 3/10 is not enough for the fourth point."""
    recall, precision = np.array([0.3]), np.array([1.0])
    assert ap_11_point(recall, precision) == pytest.approx(3 / 11)


def plain_loops(data, predictions, threshold):
    """The VOC rules in plain loops: class -> (recall, precision) lists."""
    curves = {}
    for category in range(len(data.classes)):
        boxes = {r.id: [b for b in r.boxes if b.category == category] for r in data.records}
        npos = sum(not b.difficult for image in boxes.values() for b in image)
        rows = [
            (float(s), image, b.tolist())
            for image, p in predictions.items()
            for b, s, k in zip(p.boxes, p.scores, p.labels, strict=True)
            if k == category
        ]
        rows.sort(key=lambda row: -row[0])
        taken, tp, fp, recall, precision = set(), 0, 0, [], []
        for _, image, box in rows:
            best, best_iou = None, -1.0
            for n, truth in enumerate(boxes[image]):
                w = min(box[2], truth.xyxy[2]) - max(box[0], truth.xyxy[0])
                h = min(box[3], truth.xyxy[3]) - max(box[1], truth.xyxy[1])
                shared = max(w, 0) * max(h, 0)
                area = (box[2] - box[0]) * (box[3] - box[1])
                other = (truth.xyxy[2] - truth.xyxy[0]) * (truth.xyxy[3] - truth.xyxy[1])
                iou = shared / (area + other - shared)
                if iou > best_iou:
                    best, best_iou = n, iou
            if best_iou > threshold:
                if boxes[image][best].difficult:
                    continue
                if (image, best) in taken:
                    fp += 1
                else:
                    tp += 1
                    taken.add((image, best))
            else:
                fp += 1
            recall.append(tp / npos)
            precision.append(tp / (tp + fp))
        curves[category] = recall, precision
    return curves


def random_task(seed, images=30, classes=4, whole=False):
    """Random truths and detections, many of which overlap; scores are distinct in 3 decimals."""
    rng = random.Random(seed)
    scores = rng.sample(range(1, 1000), 900)

    def box():
        x, y = rng.randint(0, 60), rng.randint(0, 60)
        return (float(x), float(y), float(x + rng.randint(8, 40)), float(y + rng.randint(8, 40)))

    truths, predictions = [], {}
    for n in range(images):
        boxes = [
            (box(), rng.randrange(classes), rng.random() < 0.2) for _ in range(rng.randint(0, 6))
        ]
        truths.append(boxes)
        rows = []
        for xyxy, category, _ in boxes * 2:
            if rng.random() < 0.8:
                moved = tuple(v + rng.randint(-3, 3) for v in xyxy)
                label = category if rng.random() < 0.8 else rng.randrange(classes)
                rows.append((moved, scores.pop() / 1000, label))
        rows += [(box(), scores.pop() / 1000, rng.randrange(classes)) for _ in range(4)]
        predictions[str(n)] = prediction(*rows)
    return dataset(truths, classes=[f"class{k}" for k in range(classes)]), predictions


@pytest.mark.parametrize("seed", range(3))
def test_equals_plain_loops(seed):
    data, predictions = random_task(seed)
    result = evaluate_voc(data, predictions)
    for row, threshold in enumerate(THRESHOLDS):
        for category, (recall, precision) in plain_loops(data, predictions, threshold).items():
            eleven = sum(
                max((p for r, p in zip(recall, precision, strict=True) if r >= 0.1 * k), default=0)
                for k in range(11)
            )
            assert result.ap["11-point"][row, category] == pytest.approx(100 * eleven / 11)
            area, before = 0.0, 0.0
            for n, r in enumerate(recall):
                area += (r - before) * max(precision[n:])
                before = r
            assert result.ap["area"][row, category] == pytest.approx(100 * area)


@pytest.mark.detectron2
@pytest.mark.parametrize("year", [2007, 2012])
def test_equals_detectron2_on_files(tmp_path, year):
    """Whole pixels and distinct scores survive the rounding of its files, so the numbers agree."""
    from detectron2.data import MetadataCatalog
    from detectron2.evaluation import PascalVOCDetectionEvaluator
    from detectron2.structures import Boxes, Instances

    data, predictions = random_task(5)
    (tmp_path / "Annotations").mkdir()
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    ids = [record.id for record in data.records]
    (tmp_path / "ImageSets/Main/test.txt").write_text("\n".join(ids) + "\n")
    for record in data.records:
        objects = "".join(
            f"<object><name>{data.classes[b.category]}</name><pose>Left</pose>"
            f"<truncated>0</truncated><difficult>{int(b.difficult)}</difficult><bndbox>"
            f"<xmin>{b.xyxy[0] + 1:.0f}</xmin><ymin>{b.xyxy[1] + 1:.0f}</ymin>"
            f"<xmax>{b.xyxy[2]:.0f}</xmax><ymax>{b.xyxy[3]:.0f}</ymax></bndbox></object>"
            for b in record.boxes
        )
        xml = f"<annotation>{objects}</annotation>"
        (tmp_path / f"Annotations/{record.id}.xml").write_text(xml)
    name = f"visrep_test_voc_{year}_{tmp_path.name}"
    MetadataCatalog.get(name).set(
        dirname=str(tmp_path), split="test", year=year, thing_classes=data.classes
    )
    evaluator = PascalVOCDetectionEvaluator(name)
    evaluator.reset()
    for image, found in predictions.items():
        instances = Instances((100, 100))
        instances.pred_boxes = Boxes(found.boxes.clone())
        instances.scores, instances.pred_classes = found.scores, found.labels
        evaluator.process([{"image_id": image}], [{"instances": instances}])
    theirs = evaluator.evaluate()["bbox"]
    ours = evaluate_voc(data, predictions).numbers()
    ending = "" if year == 2007 else "_area"
    for metric in ("AP50", "AP", "AP75"):
        assert ours[metric + ending] == pytest.approx(theirs[metric], abs=1e-9)
