"""COCO's segmentations: what is read, what is not, and what pycocotools makes of it."""

import numpy as np
import pytest
from pycocotools import mask as rle

from visrep.data.detection.segmentation import box_mask, read_mask, run_lengths


@pytest.mark.parametrize(
    "segmentation",
    [
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3]],
        [[1, 1, 9, 1, 9]],
        [["a"] * 6],
        [[1e30, 1, 2, 2, 3, 3]],
        [[float("nan"), 1, 2, 2, 3, 3]],
        "abc",
        5,
        {"size": [40, 50]},
        {"size": [50, 40], "counts": [2000]},
        {"size": [40, 50], "counts": [1999]},
        {"size": [40, 50], "counts": [2001, -1]},
        {"size": [40, 50], "counts": "0"},
        {"size": [40, 50], "counts": "\u00e9"},
        {"size": [40, 50], "counts": "ooo"},
        {"size": [40, 50], "counts": "1" * 500},
        {"size": [40, 50], "counts": 7},
    ],
)
def test_what_cannot_be_read(segmentation):
    """pycocotools takes some of these, and returns foreign memory or uses all there is."""
    mask, wrong = read_mask(segmentation, 40, 50)
    assert mask is None and wrong


def test_a_bad_polygon_takes_only_itself_away():
    good = [[10, 5, 30, 5, 30, 15, 10, 15]]
    mask, wrong = read_mask([*good, [1, 1, 2, 2], ["10", "5", "30", "5", "30", "9"]], 40, 50)
    assert mask == read_mask(good, 40, 50)[0] and wrong == "1 of its 3 polygons cannot be read"


def test_sizes_and_runs_may_be_text():
    plain = {"size": [4, 5], "counts": [3, 9, 8]}
    texts = {"size": ["4", 5.0], "counts": ["3", "9", 8.0]}
    assert read_mask(texts, 4, 5) == read_mask(plain, 4, 5) and read_mask(plain, 4, 5)[0]


def test_a_box_as_a_mask():
    drawn = rle.decode(box_mask((10, 5, 30, 15), 40, 50))
    wanted = np.zeros((40, 50))
    wanted[5:15, 10:30] = 1
    assert np.array_equal(drawn, wanted)


def test_run_lengths_are_pycocotools_own():
    rng = np.random.default_rng(0)
    for _ in range(50):
        height, width = rng.integers(1, 60, 2)
        mask = np.asfortranarray(rng.random((height, width)) < rng.random(), dtype=np.uint8)
        code = rle.encode(mask)["counts"].decode()
        runs, value = [0], 0
        for pixel in mask.flatten(order="F"):
            if pixel != value:
                runs.append(0)
                value = pixel
            runs[-1] += 1
        assert run_lengths(code) == runs
