"""Grey levels that are not 0 to 255: what becomes black and what white.

Cameras, scanners, microscopes and CT write 12 or 16 bits, signed numbers or floats. `depth` says
how they become the 8 bits that everything here is trained on:

* `auto`: the full range of unsigned numbers, so the high byte of 16 bits; others are refused;
* `per_image`: the smallest value of an image is black, its largest is white;
* `[low, high]`: `low` and below is black, `high` and above is white, in every image.
"""

import math
from typing import Any

import numpy as np

from visrep.errors import ConfigError

Depth = str | tuple[float, float]


def parse_depth(value: Any) -> Depth:
    """What a user gave as `depth`, checked.

    Raises:
        ConfigError: it is not auto, per_image or two finite numbers, the first one lower.
    """
    if value in ("auto", "per_image"):
        return str(value)
    if isinstance(value, list | tuple) and len(value) == 2:
        try:
            low, high = (float(each) for each in value)
        except (TypeError, ValueError):
            low = high = math.nan
        if math.isfinite(low) and math.isfinite(high) and low < high:
            return low, high
    raise ConfigError(
        f"depth={value}: give auto, per_image or [LOW,HIGH], the values that become black and white"
    )


def to_bytes(values: np.ndarray, full: int | None, depth: Depth) -> np.ndarray | None:
    """`values` as uint8 under `depth`; None where auto cannot tell their range.

    Args:
        values: of any shape and numeric type.
        full: the largest number that the file's pixels can hold, 255 or more and one less than a
            power of 2; None for signed numbers, 32 bits and floats.
    """
    if depth == "auto":
        if full is None:
            return None
        more = full.bit_length() - 8
        return (values >> more).astype(np.uint8) if more else values
    low, high = depth if isinstance(depth, tuple) else (float(values.min()), float(values.max()))
    if high == low:  # one value everywhere: there is no picture to show
        return np.zeros(values.shape, dtype=np.uint8)
    share = (values.astype(np.float64) - low) / (high - low)
    return np.floor(share * 255 + 0.5).clip(0, 255).astype(np.uint8)
