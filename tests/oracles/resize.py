"""TensorFlow's resizes without antialiasing, from their formulas: float64, pixel by pixel."""

import math

import numpy as np


def keys(x: float, a: float) -> float:
    """Keys' cubic (IEEE ASSP 29, 1981) at distance x."""
    x = abs(x)
    if x < 1:
        return (a + 2) * x**3 - (a + 3) * x**2 + 1
    return a * (x**3 - 5 * x**2 + 8 * x - 4) if x < 2 else 0.0


def axis(line: np.ndarray, size: int, kind: str) -> np.ndarray:
    """One axis of `line`, its first: bilinear, bicubic (TensorFlow 2) or bicubic_tf1."""
    extent, made = len(line), []
    for i in range(size):
        place = i * extent / size if kind == "bicubic_tf1" else (i + 0.5) * extent / size - 0.5
        total, weights = 0.0, 0.0
        for j in range(math.floor(place) - 1, math.floor(place) + 3):
            if kind == "bicubic_tf1":
                weight = keys(place - j, -0.75)
            elif not 0 <= j < extent:
                continue
            elif kind == "bicubic":
                weight = keys(place - j, -0.5)
            else:
                weight = max(0.0, 1 - abs(place - j))
            total = total + weight * line[min(max(j, 0), extent - 1)].astype(np.float64)
            weights += weight
        made.append(total / weights)
    return np.stack(made)


def resized(image: np.ndarray, size: int, kind: str) -> np.ndarray:
    """A whole image, 3 x H x W in 0 to 255, to 3 x size x size, clipped."""
    rows = np.moveaxis(axis(np.moveaxis(image, 1, 0), size, kind), 0, 1)
    return np.moveaxis(axis(np.moveaxis(rows, 2, 0), size, kind), 0, 2).clip(0, 255)
