"""Cityscapes AP: by hand, and against plain loops on label images that the reader has read."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from tests.oracles.cityscapes_ap import cityscapes_numbers
from visrep.data.detection import read_cityscapes
from visrep.data.detection.cityscapes_files import INSTANCES
from visrep.errors import UserError
from visrep.transfer.detection.evaluation.cityscapes import evaluate_cityscapes
from visrep.transfer.detection.prediction import Prediction

HEIGHT, WIDTH = 48, 96
CAR, PERSON = 26, 24


def block(x, y, width, height):
    mask = np.zeros((HEIGHT, WIDTH), dtype=bool)
    mask[y : y + height, x : x + width] = True
    return mask


def written(root, label_images):
    """Label images as Cityscapes has them under `root`, read again."""
    for number, labels in enumerate(label_images):
        stem = f"val/town/town_{number:06d}_000019"
        picture = np.zeros((HEIGHT, WIDTH, 3), dtype=np.uint8)
        for file, pixels in (
            (root / "leftImg8bit" / f"{stem}_leftImg8bit.png", picture),
            (root / "gtFine" / f"{stem}_gtFine_instanceIds.png", labels.astype(np.uint16)),
        ):
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(file)
    return read_cityscapes(root, "val")


def predicted(dataset, predictions):
    """Predictions (class, score, mask) of each image as a detector gives them."""
    numbers = list(INSTANCES)
    made = {}
    for record, rows in zip(dataset.records, predictions, strict=True):
        codes = [rle.encode(np.asfortranarray(mask.astype(np.uint8))) for _, _, mask in rows]
        made[record.id] = Prediction(
            boxes=torch.zeros(len(rows), 4),
            scores=torch.tensor([score for _, score, _ in rows], dtype=torch.float32),
            labels=torch.tensor([numbers.index(label) for label, _, _ in rows], dtype=torch.int64),
            masks=[{"size": c["size"], "counts": c["counts"].decode()} for c in codes],
        )
    return made


def measured(root, label_images, predictions):
    dataset = written(root, label_images)
    return evaluate_cityscapes(dataset, predicted(dataset, predictions))


def case(seed):
    """Label images with objects, small ones, groups and void, and predictions near them."""
    rng = np.random.default_rng(seed)
    images = []
    for _ in range(4):
        labels = np.full((HEIGHT, WIDTH), 7)
        predictions = []
        for number in range(rng.integers(2, 8)):
            label = int(rng.choice([CAR, PERSON, 33]))
            x, y = int(rng.integers(0, WIDTH - 20)), int(rng.integers(0, HEIGHT - 14))
            width, height = int(rng.integers(6, 20)), int(rng.integers(6, 14))
            value = rng.choice([label * 1000 + number, label, 3, 29], p=[0.6, 0.2, 0.1, 0.1])
            labels[block(x, y, width, height)] = value
            for _ in range(rng.integers(0, 4)):
                dx, dy, dw, dh = rng.integers(-3, 4, 4).tolist()
                mask = block(max(x + dx, 0), max(y + dy, 0), width + dw, height + dh)
                guess = label if rng.random() < 0.8 else CAR
                predictions.append((guess, float(np.float32(rng.integers(1, 20) / 20)), mask))
        predictions.append((CAR, 0.9, np.zeros((HEIGHT, WIDTH), dtype=bool)))
        images.append((labels, predictions))
    return images


@pytest.mark.parametrize("seed", [0, 1, 2, 4, 5, 6, 7])
def test_random_cases_equal_plain_loops(seed, tmp_path):
    images = case(seed)
    result = measured(tmp_path, *zip(*images, strict=True))
    expected = cityscapes_numbers(images, INSTANCES)
    assert 0 < expected["AP"] < 100
    assert result.numbers == pytest.approx(expected, abs=1e-9)


def one(tmp_path, labels, predictions):
    return measured(tmp_path, [labels], [predictions])


OBJECT, ELSEWHERE = block(0, 0, 20, 20), block(50, 0, 20, 20)


def scene(*parts):
    labels = np.full((HEIGHT, WIDTH), 7)
    for value, mask in parts:
        labels[mask] = value
    return labels


CARS = (26000, OBJECT)


def test_a_found_object_and_one_that_is_missed(tmp_path):
    result = one(tmp_path, scene(CARS), [(CAR, 0.5, OBJECT)])
    assert result.numbers == {"AP": pytest.approx(100), "AP50": pytest.approx(100)}
    row = result.per_class[list(INSTANCES).index(CAR)]
    assert (row["class"], row["truths"], row["detections"]) == ("car", 1, 1)
    assert row["AP"] == row["AP50"] == row["AP75"] == pytest.approx(100)
    assert result.per_class[0]["AP"] is None  # no person is there
    assert one(tmp_path / "b", scene(CARS), []).numbers["AP"] == 0


def test_an_overlap_must_be_exceeded(tmp_path):
    half = block(0, 0, 20, 10)  # an overlap of exactly 0.5
    assert one(tmp_path, scene(CARS), [(CAR, 0.5, half)]).numbers["AP50"] == 0
    more = block(0, 0, 20, 11)
    assert one(tmp_path / "b", scene(CARS), [(CAR, 0.5, more)]).numbers["AP50"] == pytest.approx(
        100
    )


@pytest.mark.parametrize(
    ("region", "counts"),
    [
        (7, True),  # road
        (3, False),  # out of the region of interest
        (26, False),  # a group of cars
        (24, True),  # a group of persons excuses no car
    ],
)
def test_what_lies_on_ignored_pixels_is_neither_right_nor_wrong(tmp_path, region, counts):
    labels = scene(CARS, (region, ELSEWHERE))
    found = [(CAR, 0.9, ELSEWHERE), (CAR, 0.5, OBJECT)]
    # Precision is 1/2 where the object is found: the curve is 1/2 up to there.
    expected = 25 if counts else 100
    assert one(tmp_path, labels, found).numbers["AP"] == pytest.approx(expected)


def test_the_curve_ends_with_precision_1(tmp_path):
    found = [(CAR, 0.9, ELSEWHERE), (CAR, 0.9, OBJECT)]
    # The one point, of precision 1/2, stands for half of the way to recall 0, precision 1 for half.
    expected = 100 * (0.5 * 0.5 + 0.5 * 1)
    assert one(tmp_path, scene(CARS), found).numbers["AP"] == pytest.approx(expected)


def test_objects_below_100_pixels_do_not_count(tmp_path):
    small, enough = block(50, 0, 11, 9), block(50, 0, 10, 10)
    for name, mask, counts in (("a", small, False), ("b", enough, True)):
        labels = scene(CARS, (26001, mask))
        result = one(tmp_path / name, labels, [(CAR, 0.5, OBJECT), (CAR, 0.9, mask)])
        assert result.per_class[2]["truths"] == 1 + counts
        assert result.numbers["AP"] == pytest.approx(100)


def test_what_cannot_be_measured_is_one_line(tmp_path):
    with pytest.raises(UserError, match="no object to be found"):
        one(tmp_path, scene(), [(CAR, 0.5, OBJECT)])
    dataset = written(tmp_path / "b", [scene(CARS)])
    predictions = predicted(dataset, [[(CAR, 0.5, OBJECT)]])
    for found in predictions.values():
        found.masks = None
    with pytest.raises(UserError, match="predictions without masks"):
        evaluate_cityscapes(dataset, predictions)
    with pytest.raises(UserError, match="does not have"):
        evaluate_cityscapes(dataset, {"stranger": predictions[dataset.records[0].id]})
