"""What is drawn for a view of an image, and how: the random half of `visrep.data.views.batch`.

All randomness is a table of uniform numbers, one row per view of a sample. What a row means (a box,
a factor, yes or no) is worked out from it together with the `View`, and for the crop with the size
of the image.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from visrep.errors import ConfigError

OPERATIONS = ("jitter", "gray", "blur", "solarize", "invert")


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view is drawn. An operation whose probability is 0 is left out.

    Crop and flip come first, then the operations of `order`; each clips to [0, 1].

    Args:
        size: of the square result, in pixels.
        scale: share of the image's area that the crop has, drawn uniformly.
        ratio: width / height of the crop, drawn uniformly in its logarithm.
        interpolation: bilinear or bicubic, antialiased.
        flip_p: probability of a mirror image.
        jitter: strengths of brightness, contrast, saturation and hue, as torchvision's ColorJitter
            takes them; the four come in an order drawn for each sample.
        jitter_p: probability of the jitter.
        brightness_additive: add U(-b, b) (SimCLR v1, BYOL) in place of multiplying by
            U(max(0, 1 - b), 1 + b) (SimCLR v2, torchvision).
        gray_p: probability of luma in place of colour.
        blur_p: probability of a Gaussian blur with reflected borders.
        blur_sigma: its standard deviation in pixels, drawn uniformly.
        blur_kernel: its width in pixels, odd; None for SimCLR's 10 % of the size, made odd. MoCo
            and SwAV blur with Pillow, whose result is three box blurs that approximate the same
            Gaussian; here it is the Gaussian.
        solarize_p: probability of inverting all values from `solarize_threshold` on.
        solarize_threshold: in [0, 1]; Pillow's usual 128 is 128 / 255.
        invert_p: probability of the negative.
        order: the operations in the order of their application.

    Raises:
        ConfigError: a value out of its range; the message names the key.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    flip_p: float = 0.5
    jitter: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    jitter_p: float = 0.0
    brightness_additive: bool = False
    gray_p: float = 0.0
    blur_p: float = 0.0
    blur_sigma: tuple[float, float] = (0.1, 2.0)
    blur_kernel: int | None = None
    solarize_p: float = 0.0
    solarize_threshold: float = 0.5
    invert_p: float = 0.0
    order: tuple[str, ...] = OPERATIONS

    def __post_init__(self) -> None:
        for name, count in (("scale", 2), ("ratio", 2), ("jitter", 4), ("blur_sigma", 2)):
            object.__setattr__(self, name, numbers(name, getattr(self, name), count))
        whole = isinstance(self.size, int) and self.size >= 1
        require(whole, "size", self.size, "a positive number of pixels")
        for name, limit in (("scale", 1.0), ("ratio", math.inf), ("blur_sigma", math.inf)):
            low, high = getattr(self, name)
            positive = "[low, high], positive" + " up to 1" * (limit == 1.0)
            require(0 < low <= high <= limit, name, [low, high], positive)
        good = min(self.jitter) >= 0 and self.jitter[3] <= 0.5
        require(good, "jitter", self.jitter, "4 strengths, none negative, the hue up to 0.5")
        chances = ("flip_p", "jitter_p", "gray_p", "blur_p", "solarize_p", "invert_p")
        for name in (*chances, "solarize_threshold"):
            value = getattr(self, name)
            good = isinstance(value, int | float) and 0 <= value <= 1
            require(good, name, value, "a number in [0, 1]")
        good = self.interpolation in ("bilinear", "bicubic")
        require(good, "interpolation", self.interpolation, "bilinear or bicubic")
        good = isinstance(self.kernel, int) and self.kernel % 2 == 1
        good = good and 1 <= self.kernel < 2 * self.size
        require(good, "blur_kernel", self.blur_kernel, f"an odd width below {2 * self.size}")
        wanted = f"a list of {', '.join(OPERATIONS)}, each once, with all that have a probability"
        require(isinstance(self.order, list | tuple), "order", self.order, wanted)
        object.__setattr__(self, "order", tuple(self.order))
        used = {name for name in OPERATIONS if getattr(self, f"{name}_p") > 0}
        listed = set(self.order)
        good = used <= listed <= set(OPERATIONS) and len(listed) == len(self.order)
        require(good, "order", list(self.order), wanted)

    @property
    def kernel(self) -> int:
        """Width of the blur in pixels."""
        return 2 * (self.size // 10 // 2) + 1 if self.blur_kernel is None else self.blur_kernel


def require(good: bool, name: str, value: object, wanted: str) -> None:
    """Refuse the setting `name` unless `good`."""
    if not good:
        raise ConfigError(f"views: {name}={value}: give {wanted}")


def numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    """The setting `name` as a tuple of `count` numbers."""
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        found = ()
    require(len(found) == count, name, values, f"a list of {count} numbers")
    return found


# Columns of a row of uniform numbers. Some are spare, so that a new operation leaves the draws of
# the old ones as they are.
ROW = 64
ATTEMPTS = 10
_CROP = slice(0, 4 * ATTEMPTS)  # of each attempt: area, ratio, top, left
_FLIP, _JITTER, _GRAY, _BLUR, _SIGMA, _SOLARIZE, _INVERT = range(40, 47)
_FACTORS = slice(48, 52)
_ORDER = slice(52, 56)
HUE = 3  # of brightness, contrast, saturation, hue


@dataclass(frozen=True)
class Jitter:
    """Colour jitter of n samples.

    Attributes:
        applied: bool n.
        factors: float64 n x 4: brightness (a factor, or a summand where it is additive), contrast,
            saturation, hue (turns).
        order: int64 n x 4, the places 0 to 3 in that list, in order of application.
    """

    applied: np.ndarray
    factors: np.ndarray
    order: np.ndarray


@dataclass(frozen=True)
class Params:
    """What was drawn for n samples; `params[a:b]` is the part of samples a to b.

    Attributes:
        views: how each of the V views is drawn.
        uniforms: float64 in [0, 1), n x V x ROW.
    """

    views: tuple[View, ...]
    uniforms: np.ndarray

    def __len__(self) -> int:
        return len(self.uniforms)

    def __getitem__(self, samples: slice) -> "Params":
        return Params(self.views, self.uniforms[samples])

    def boxes(self, view: int, height: int, width: int) -> np.ndarray:
        """Crop boxes for images of height x width: int64 n x 4, (top, left, height, width).

        torchvision's RandomResizedCrop: the first of 10 attempts that fits into the image, else the
        largest central crop whose aspect ratio is allowed.
        """
        spec = self.views[view]
        drawn = self.uniforms[:, view, _CROP].reshape(-1, ATTEMPTS, 4)
        area = height * width * _between(drawn[..., 0], spec.scale)
        low, high = spec.ratio
        ratio = np.exp(_between(drawn[..., 1], (math.log(low), math.log(high))))
        w = np.rint(np.sqrt(area * ratio))
        h = np.rint(np.sqrt(area / ratio))
        fits = (w > 0) & (w <= width) & (h > 0) & (h <= height)  # n x ATTEMPTS
        first = fits.argmax(axis=1)
        chosen = np.arange(len(self)), first
        h, w = h[chosen], w[chosen]
        top = np.floor(drawn[..., 2][chosen] * (height - h + 1))
        left = np.floor(drawn[..., 3][chosen] * (width - w + 1))
        found = np.stack([top, left, h, w], axis=1).astype(np.int64)
        return np.where(fits.any(axis=1)[:, None], found, _central(height, width, spec.ratio))

    def crop_of(self, i: int, view: int, height: int, width: int) -> tuple[int, int, int, int]:
        """Sample i's crop box of an image of height x width: top, left, height, width."""
        top, left, h, w = self[i : i + 1].boxes(view, height, width)[0].tolist()
        return top, left, h, w

    def flip(self, view: int) -> np.ndarray:
        """Which samples are mirrored: bool n."""
        return self._chance(view, _FLIP, self.views[view].flip_p)

    def jitter(self, view: int) -> Jitter:
        """Colour jitter."""
        spec = self.views[view]
        low = np.maximum(1.0 - np.asarray(spec.jitter), 0.0)
        high = 1.0 + np.asarray(spec.jitter)
        if spec.brightness_additive:
            low[0], high[0] = -spec.jitter[0], spec.jitter[0]
        low[HUE], high[HUE] = -spec.jitter[HUE], spec.jitter[HUE]
        row = self.uniforms[:, view]
        return Jitter(
            applied=self._chance(view, _JITTER, spec.jitter_p),
            factors=_between(row[:, _FACTORS], (low, high)),
            order=row[:, _ORDER].argsort(axis=1, kind="stable"),
        )

    def gray(self, view: int) -> np.ndarray:
        """Which samples lose their colour: bool n."""
        return self._chance(view, _GRAY, self.views[view].gray_p)

    def blur(self, view: int) -> np.ndarray:
        """Standard deviation of the blur in pixels, 0 for none: float64 n."""
        spec = self.views[view]
        sigma = _between(self.uniforms[:, view, _SIGMA], spec.blur_sigma)
        return sigma * self._chance(view, _BLUR, spec.blur_p)

    def solarize(self, view: int) -> np.ndarray:
        """Which samples are solarised: bool n."""
        return self._chance(view, _SOLARIZE, self.views[view].solarize_p)

    def invert(self, view: int) -> np.ndarray:
        """Which samples are inverted: bool n."""
        return self._chance(view, _INVERT, self.views[view].invert_p)

    def _chance(self, view: int, column: int, p: float) -> np.ndarray:
        return self.uniforms[:, view, column] < p


def _between(uniform: np.ndarray, bounds: tuple) -> np.ndarray:
    low, high = bounds
    return low + uniform * (high - low)


def _central(height: int, width: int, ratio: tuple[float, float]) -> np.ndarray:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return np.array([(height - h) // 2, (width - w) // 2, h, w])
