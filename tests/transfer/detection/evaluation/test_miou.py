"""mIoU and its relatives against plain loops, and against Detectron2's evaluator."""

import math
import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from visrep.errors import UserError
from visrep.transfer.detection.evaluation.miou import Segmentation, confusion

NAMES = ["sky", "road", "car", "tree"]
K = len(NAMES)


def case(name: str) -> list[tuple[np.ndarray, np.ndarray]]:
    """(truth, found) of a few images."""
    rng = np.random.default_rng(3)
    images = []
    for height, width in ((7, 9), (5, 5), (8, 4)):
        truth = rng.integers(0, K, (height, width))
        found = np.where(rng.random((height, width)) < 0.6, truth, rng.integers(0, K, truth.shape))
        images.append((truth, found))
    if name == "only predicted":  # no pixel is a tree, some are named so
        images = [(np.where(truth == 3, 0, truth), found) for truth, found in images]
    if name == "nowhere":
        images = [(truth % 3, found % 3) for truth, found in images]
    if name == "never predicted":
        images = [(truth, np.where(found == 2, 1, found)) for truth, found in images]
    if name in ("ignored", "empty image"):
        for truth, _ in images:
            truth[rng.random(truth.shape) < 0.3] = 255
    if name == "empty image":
        images[1][0][:] = 255
    if name == "one class":
        images = [(np.zeros_like(truth), np.zeros_like(found)) for truth, found in images]
    return images


CASES = [
    *("plain", "only predicted", "nowhere", "never predicted", "ignored", "empty image"),
    "one class",
]


def measured(images):
    matrix = sum(
        confusion(torch.from_numpy(truth), torch.from_numpy(found), classes=K)
        for truth, found in images
    )
    return Segmentation(NAMES, matrix)


def by_loops(images):
    both, is_it, named = [0] * K, [0] * K, [0] * K
    for truth, found in images:
        for t, f in zip(truth.flatten().tolist(), found.flatten().tolist(), strict=True):
            if t == 255:
                continue
            is_it[t] += 1
            named[f] += 1
            both[t] += t == f
    there = [k for k in range(K) if is_it[k]]
    iou = {k: both[k] / (is_it[k] + named[k] - both[k]) for k in there}
    total = sum(is_it)
    return {
        "mIoU": 100 * sum(iou.values()) / len(there),
        "fwIoU": 100 * sum(iou[k] * is_it[k] / total for k in there),
        "mACC": 100 * sum(both[k] / is_it[k] for k in there) / len(there),
        "pACC": 100 * sum(both) / total,
    }


@pytest.mark.parametrize("name", CASES)
def test_numbers_are_those_of_plain_loops(name):
    images = case(name)
    found = measured(images)
    assert found.numbers() == pytest.approx(by_loops(images), abs=1e-9)
    absent = {"only predicted": ["tree"], "nowhere": ["tree"], "one class": NAMES[1:]}
    assert found.without_truth == absent.get(name, [])


@pytest.mark.detectron2
@pytest.mark.parametrize("name", CASES)
def test_numbers_are_detectron2s(tmp_path, name):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.evaluation import SemSegEvaluator

    images = case(name)
    entries = []
    for number, (truth, _) in enumerate(images):
        file = tmp_path / f"{number}.png"
        Image.fromarray(truth.astype(np.uint8)).save(file)
        entries.append({"file_name": f"{number}.jpg", "sem_seg_file_name": str(file)})
    data = f"visrep-test/{name}"
    DatasetCatalog.register(data, lambda: entries)
    MetadataCatalog.get(data).set(stuff_classes=NAMES, ignore_label=255)
    try:
        evaluator = SemSegEvaluator(data, distributed=False)
        evaluator._compute_boundary_iou = False  # of OpenCV's, and slow
        evaluator.reset()
        for entry, (_, found) in zip(entries, images, strict=True):
            scores = torch.nn.functional.one_hot(torch.from_numpy(found), K).permute(2, 0, 1)
            evaluator.process([entry], [{"sem_seg": scores}])
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            theirs = evaluator.evaluate()["sem_seg"]
    finally:
        DatasetCatalog.remove(data)
        MetadataCatalog.remove(data)
    ours = measured(images)
    for metric, value in ours.numbers().items():
        assert value == pytest.approx(theirs[metric], abs=1e-6)
    for row in ours.per_class():
        own = math.nan if row["IoU"] is None else row["IoU"]
        assert own == pytest.approx(theirs[f"IoU-{row['class']}"], abs=1e-6, nan_ok=True)


def test_the_matrix_has_truth_in_rows():
    truth, found = torch.tensor([[0, 0, 1, 255]]), torch.tensor([[0, 2, 1, 3]])
    assert confusion(truth, found, classes=K).tolist() == [
        [1, 0, 1, 0],
        [0, 1, 0, 0],
        [0, 0, 0, 0],
        [0, 0, 0, 0],
    ]


def test_the_table_names_classes_and_means():
    found = measured(case("only predicted"))
    text = found.table()
    assert text.splitlines()[4].split() == ["tree", "-"] and "mIoU" in text.splitlines()[-1]
    rows = found.per_class()
    assert rows[3] == {"class": "tree", "IoU": None, "accuracy": None, "pixels": 0}


def test_nothing_to_measure_is_said():
    with pytest.raises(UserError, match="no pixel of the test images has a class"):
        Segmentation(NAMES, torch.zeros(K, K, dtype=torch.int64)).numbers()
