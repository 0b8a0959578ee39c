"""Exemplar-CNN's transformations and its seeds' energy, one pixel at a time."""

import colorsys
import math

import numpy as np
import torch
from torch import Tensor


def read(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """The colour at a place of 3 x H x W counted in pixels from the corner, linear in between."""
    x, y = x - 0.5, y - 0.5  # pixel centres become whole numbers
    left, top = math.floor(x), math.floor(y)
    colour = np.zeros(3)
    for i in (left, left + 1):
        for j in (top, top + 1):
            weight = (1 - abs(x - i)) * (1 - abs(y - j))
            if weight > 0:
                assert 0 <= i < image.shape[2] and 0 <= j < image.shape[1], "beyond the window"
                colour += weight * image[:, j, i]
    return colour


def sample(
    window: Tensor, size: int, drawn: dict[str, np.ndarray], mean: np.ndarray, axes: np.ndarray
) -> Tensor:
    """One sample of a window float 3 x C x C in [0, 1]; `axes` has a component in each column."""
    image = window.double().numpy()
    made = np.zeros((3, size, size))
    for row in range(size):
        for column in range(size):
            u, v = column + 0.5 - size / 2, row + 0.5 - size / 2
            cos, sin = math.cos(drawn["angle"]), math.sin(drawn["angle"])
            x = drawn["zoom"] * (cos * u - sin * v) + drawn["shift"][0] * size
            y = drawn["zoom"] * (sin * u + cos * v) + drawn["shift"][1] * size
            middle = image.shape[1] / 2
            colour = read(image, x + middle, y + middle)
            made[:, row, column] = hsv_contrast(pca_contrast(colour, drawn, mean, axes), drawn)
    return torch.from_numpy(made)


def pca_contrast(
    colour: np.ndarray, drawn: dict[str, np.ndarray], mean: np.ndarray, axes: np.ndarray
) -> np.ndarray:
    result = mean.copy()
    for i in range(3):
        along = float(axes[:, i] @ (colour - mean))
        result = result + drawn["pca"][i] * along * axes[:, i]
    return np.clip(result, 0, 1)


def hsv_contrast(colour: np.ndarray, drawn: dict[str, np.ndarray]) -> np.ndarray:
    h, *rest = colorsys.rgb_to_hsv(*colour)
    s, v = (
        min(1.0, max(0.0, value ** drawn["power"][i] * drawn["factor"][i] + drawn["offset"][i]))
        for i, value in enumerate(rest)
    )
    return np.array(colorsys.hsv_to_rgb((h + drawn["hue"]) % 1.0, s, v))


def energy(image: Tensor, size: int) -> Tensor:
    """Mean squared gradient magnitude of every size x size square of 3 x H x W."""
    x = image.double().numpy()
    height, width = x.shape[1:]

    def slope(values: np.ndarray, i: int) -> float:
        before, after = max(i - 1, 0), min(i + 1, len(values) - 1)
        return (values[after] - values[before]) / (after - before)

    squares = np.zeros((height, width))
    for row in range(height):
        for column in range(width):
            for channel in x:
                squares[row, column] += slope(channel[:, column], row) ** 2
                squares[row, column] += slope(channel[row], column) ** 2
    sums = [
        [squares[i : i + size, j : j + size].mean() for j in range(width - size + 1)]
        for i in range(height - size + 1)
    ]
    return torch.tensor(sums, dtype=torch.float64)
