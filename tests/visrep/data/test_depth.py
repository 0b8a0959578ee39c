"""What becomes black and white."""

import numpy as np
import pytest

from visrep.data.depth import parse_depth, to_bytes
from visrep.errors import ConfigError


def test_auto_keeps_8_bits_and_the_high_byte_of_more():
    grey = np.array([[0, 7, 255]], dtype=np.uint8)
    assert to_bytes(grey, 255, "auto") is grey
    deep = np.array([[0, 255, 256, 65535]], dtype=np.uint16)
    assert to_bytes(deep, 65535, "auto").tolist() == [[0, 0, 1, 255]]
    assert to_bytes(np.array([[15, 16, 4095]], dtype=np.uint16), 4095, "auto").tolist() == [
        [0, 1, 255]
    ]


@pytest.mark.parametrize("kind", [np.int32, np.float32])
def test_auto_knows_no_range_of_other_numbers(kind):
    assert to_bytes(np.zeros((2, 2), dtype=kind), None, "auto") is None


def test_a_range_is_stretched_and_clipped_at_its_ends():
    hounsfield = np.array([[-2000, -1000, 0, 1000, 3000]], dtype=np.int32)
    assert to_bytes(hounsfield, None, (-1000.0, 1000.0)).tolist() == [[0, 0, 128, 255, 255]]
    assert to_bytes(hounsfield.astype(np.float32), None, (-1000, 1000)).tolist() == [
        [0, 0, 128, 255, 255]
    ]
    eight = np.arange(256, dtype=np.uint8)
    assert np.array_equal(to_bytes(eight, 255, (0.0, 255.0)), eight)
    assert to_bytes(np.array([15], dtype=np.uint8), 255, (0.0, 15.0)).tolist() == [255]


def test_each_image_by_its_own_ends():
    assert to_bytes(np.array([[100, 110, 120]], dtype=np.int32), None, "per_image").tolist() == [
        [0, 128, 255]
    ]
    assert to_bytes(np.full((2, 2), 7.0), None, "per_image").tolist() == [[0, 0], [0, 0]]


def test_what_is_given():
    assert parse_depth("auto") == "auto" and parse_depth("per_image") == "per_image"
    assert parse_depth([0, 4095]) == (0.0, 4095.0) and parse_depth((-1.5, "2")) == (-1.5, 2.0)


@pytest.mark.parametrize(
    "value", ["12", None, 12, [0], [0, 1, 2], [5, 5], [2, 1], [0, "x"], [0, float("inf")], {}]
)
def test_what_is_no_depth_is_one_line(value):
    with pytest.raises(ConfigError, match=r"depth=.*: give auto, per_image or \[LOW,HIGH\]"):
        parse_depth(value)
