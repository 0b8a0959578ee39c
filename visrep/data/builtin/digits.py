"""Scanned digits on photographs: what the built-in data is drawn with.

scikit-learn ships 1,797 scans of hand-written digits (8 x 8 pixels) and two photographs, so this
needs no download. A scan is enlarged smoothly, rotated and laid over a crop of a photograph in a
random colour that stands out from it.
"""

from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.datasets import load_digits, load_sample_images
from torch import Tensor

CLASSES = [str(digit) for digit in range(10)]
CREDITS = (
    'The photographs "china.jpg" by danielbuechele (https://www.flickr.com/photos/danielbuechele/'
    '6061409035) and "flower.jpg" by vultilion (https://www.flickr.com/photos/vultilion/'
    "6056698931) are licensed CC BY 2.0 (https://creativecommons.org/licenses/by/2.0/); both, and "
    "the scanned digits (E. Alpaydin and C. Kaynak, UCI repository), come with scikit-learn. They "
    "are cropped, resized and overlaid with digits here."
)

MIN_CONTRAST = 0.4
MAX_ANGLE = 25.0  # degrees
_TEST_SHARE = 0.25
_MARGIN = 2  # empty scan pixels around a scan, so that its smooth edge is not cut
_FINE = 8  # samples per scan pixel of the enlarged scan


@dataclass(frozen=True)
class Scans:
    """Digit scans: `ink` n x 8 x 8 in 0..1, `labels` n, `ids` n (numbers in scikit-learn's set)."""

    ink: Tensor
    labels: Tensor
    ids: Tensor


@cache
def scans(split: str) -> Scans:
    """The scans of "train" (three quarters of every class) or "test" (the rest), always alike."""
    digits = load_digits()
    rng = np.random.default_rng(1797)
    chosen = []
    for label in range(10):
        ids = rng.permutation(np.flatnonzero(digits.target == label))
        tests = round(len(ids) * _TEST_SHARE)
        chosen.append(ids[:tests] if split == "test" else ids[tests:])
    ids = np.sort(np.concatenate(chosen))
    ink = torch.from_numpy(digits.images[ids]).float() / 16
    return Scans(ink, torch.from_numpy(digits.target[ids]).long(), torch.from_numpy(ids))


@cache
def _photographs() -> list[Image.Image]:
    return [Image.fromarray(photograph) for photograph in load_sample_images().images]


def background(
    rng: np.random.Generator, height: int, width: int, zoom: tuple[float, float]
) -> Tensor:
    """A random photograph's random crop, `zoom` times as large as asked for, brought to size.

    Returns:
        float 3 x height x width in 0..1.
    """
    photograph = _photographs()[rng.integers(2)]
    largest = min(zoom[1], photograph.width / width, photograph.height / height)
    factor = float(np.exp(rng.uniform(np.log(zoom[0]), np.log(largest))))
    left = rng.uniform(0, photograph.width - factor * width)
    top = rng.uniform(0, photograph.height - factor * height)
    box = (left, top, left + factor * width, top + factor * height)
    crop = photograph.resize((width, height), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        crop = crop.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    return torch.from_numpy(np.array(crop)).permute(2, 0, 1).float() / 255


def contrast(one: Tensor, other: Tensor) -> Tensor:
    """Distance of colours in 0..1: the absolute difference, averaged over R, G, B (dim -1).

    Black and white are 1 apart, two colours that differ in a single channel at most 1/3: at 0.4 a
    digit is plain to see, also when the picture is turned to grey.
    """
    return (one - other).abs().mean(dim=-1)


def visible_colours(rng: np.random.Generator, behind: Tensor) -> Tensor:
    """Random colours at least `MIN_CONTRAST` from the colours `behind` (n x 3): n x 3 in 0..1.

    Drawn uniformly from the cube of colours, less what is too near. Every colour has a corner of
    the cube at 0.5 or more, so that there is always something to draw from.
    """
    drawn = torch.from_numpy(rng.random((len(behind), 64, 3))).float()
    corners = (behind < 0.5).float()  # the farthest corner of each, should all 64 be too near
    drawn = torch.cat([drawn, corners[:, None]], dim=1)
    first = (contrast(drawn, behind[:, None]) >= MIN_CONTRAST).float().argmax(dim=1)
    return drawn[torch.arange(len(drawn)), first]


class Stencils:
    """Scans, enlarged smoothly and rotated; each is ready to be stamped at a size and place.

    Attributes:
        width_per_height: n; width of the rotated digit's tight box over its height.
    """

    def __init__(self, ink: Tensor, degrees: Tensor) -> None:
        """`ink` n x 8 x 8 in 0..1; `degrees` n, positive turns counter-clockwise."""
        side = (ink.shape[-1] + 2 * _MARGIN) * _FINE
        padded = F.pad(ink[:, None], [_MARGIN] * 4)
        self._fine = F.interpolate(padded, (side, side), mode="bicubic", align_corners=False)
        self._half = side / _FINE / 2  # of the padded scan, in scan pixels
        radians = torch.deg2rad(degrees)
        self._cos, self._sin = radians.cos(), radians.sin()

        # Tight box of the rotated digit, in scan pixels from the scan's centre.
        axis = (torch.arange(side) + 0.5) / _FINE - self._half
        v, u = torch.meshgrid(axis, axis, indexing="ij")
        inked = self._fine[:, 0] >= 0.5  # n x side x side
        x, y = self._turn(u, v)
        self._left, self._right = _extent(x, inked)
        self._top, self._bottom = _extent(y, inked)
        self.width_per_height = (self._right - self._left) / (self._bottom - self._top)

    def _turn(self, u: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Scan coordinates (h x w) -> upright coordinates of every digit (n x h x w)."""
        cos, sin = self._cos[:, None, None], self._sin[:, None, None]
        return cos * u + sin * v, cos * v - sin * u

    def stamp(self, heights: Tensor, centres: Tensor, canvas: tuple[int, int]) -> Tensor:
        """Opacity of every digit on its canvas: n x H x W in 0..1; 0.5 is the digit's outline.

        Args:
            heights: n; height of the rotated digit's tight box, in pixels.
            centres: n x 2; (x, y) of that box's centre, in pixels.
            canvas: (H, W).
        """
        scale = (self._bottom - self._top) / heights  # scan pixels per pixel
        rows = torch.arange(canvas[0]) + 0.5
        columns = torch.arange(canvas[1]) + 0.5
        y = (rows - centres[:, 1:]) * scale[:, None] + ((self._top + self._bottom) / 2)[:, None]
        x = (columns - centres[:, :1]) * scale[:, None] + ((self._left + self._right) / 2)[:, None]
        y, x = y[:, :, None], x[:, None, :]
        cos, sin = self._cos[:, None, None], self._sin[:, None, None]
        u, v = cos * x - sin * y, sin * x + cos * y  # the inverse of _turn
        grid = torch.stack([u, v], dim=-1) / self._half
        ink = F.grid_sample(self._fine, grid, mode="bilinear", align_corners=False)[:, 0]
        return _smooth_step((ink - 0.3) / 0.4)


def _extent(values: Tensor, inked: Tensor) -> tuple[Tensor, Tensor]:
    """Least and greatest of `values` (n x h x w) where `inked`, with half a fine sample around."""
    low = values.masked_fill(~inked, torch.inf).flatten(1).amin(dim=1)
    high = values.masked_fill(~inked, -torch.inf).flatten(1).amax(dim=1)
    return low - 0.5 / _FINE, high + 0.5 / _FINE


def _smooth_step(x: Tensor) -> Tensor:
    x = x.clamp(0, 1)
    return x * x * (3 - 2 * x)
