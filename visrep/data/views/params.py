"""What is drawn for a view of an image, and how: the random half of `visrep.data.views.batch`.

All randomness is a table of uniform numbers, one row per view of a sample. What a row means (a box,
a factor, yes or no) is worked out from it together with the `View`, and for the crop with the size
of the image.
"""

import math
from dataclasses import dataclass, field

import numpy as np

from visrep.data.views.image_ops import FILTERS
from visrep.data.views.operation import Operation, between, is_share, require, tuple_of

# Columns of a row; 41 to 56 are those of `visrep.data.views.operations`, the rest is spare. An
# operation without columns has a table of its own, so this one stays what it is for ever.
ROW = 64
ATTEMPTS = 10
_CROP = slice(0, 4 * ATTEMPTS)  # of each attempt: area, ratio, top, left
_FLIP = 40


@dataclass(frozen=True, kw_only=True)
class View:
    """How one view is drawn: a crop, a flip, then `operations`.

    Args:
        size: of the square result, in pixels.
        scale: share of the image's area that the crop has, drawn uniformly.
        ratio: width / height of the crop, drawn uniformly in its logarithm.
        interpolation: bilinear, bicubic or, without antialiasing, bicubic_tf1.
        antialias: whether a crop that shrinks is filtered first; false is TensorFlow's resize, see
            `image_ops.taps`.
        flip_p: probability of a mirror image.
        operations: in the order of their application, each once; those whose probability is 0 are
            left out.

    Raises:
        ConfigError: a value out of its range, or something that is no `Operation`; the message
            names the key.
    """

    size: int
    scale: tuple[float, float] = (0.08, 1.0)
    ratio: tuple[float, float] = (3 / 4, 4 / 3)
    interpolation: str = "bilinear"
    antialias: bool = True
    flip_p: float = 0.5
    operations: tuple[Operation, ...] = ()

    def __post_init__(self) -> None:
        whole = isinstance(self.size, int) and self.size >= 1
        require(whole, "size", self.size, "a positive number of pixels")
        for name, limit in (("scale", 1.0), ("ratio", math.inf)):
            low, high = tuple_of(name, getattr(self, name), 2)
            object.__setattr__(self, name, (low, high))
            positive = "[low, high], positive" + " up to 1" * (limit == 1.0)
            require(0 < low <= high <= limit, name, [low, high], positive)
        require(is_share(self.flip_p), "flip_p", self.flip_p, "a number in [0, 1]")
        good = self.interpolation in FILTERS
        require(good, "interpolation", self.interpolation, " or ".join(FILTERS))
        require(isinstance(self.antialias, bool), "antialias", self.antialias, "true or false")
        never = self.interpolation == "bicubic_tf1"
        require(not (never and self.antialias), "interpolation", "bicubic_tf1", "antialias=false")
        for operation in self.operations:
            require(isinstance(operation, Operation), "order", operation, "names and Operations")
            kind = type(operation).__name__
            for member in ("name", "p"):
                require(hasattr(operation, member), f"{kind}.{member}", None, "the class a value")
            operation.require_share("p")
            operation.check(self.size)
        names = [operation.name for operation in self.operations]
        require(len(set(names)) == len(names), "order", names, "each operation once")
        used = tuple(operation for operation in self.operations if operation.p > 0)
        object.__setattr__(self, "operations", used)


@dataclass(frozen=True)
class Params:
    """What was drawn for n samples; `params[a:b]` is the part of samples a to b.

    Attributes:
        views: how each of the V views is drawn.
        uniforms: float64 in [0, 1), n x V x ROW.
        own: by name, those of each operation without columns there: n x V x (1 + numbers).
    """

    views: tuple[View, ...]
    uniforms: np.ndarray
    own: dict[str, np.ndarray] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.uniforms)

    def __getitem__(self, samples: slice) -> "Params":
        own = {name: table[samples] for name, table in self.own.items()}
        return Params(self.views, self.uniforms[samples], own)

    def of(self, view: int, operation: Operation) -> np.ndarray:
        """The numbers of an operation: float64 n x (1 + numbers)."""
        if operation.columns:
            return self.uniforms[:, view, operation.columns]
        return self.own[operation.name][:, view]

    def boxes(self, view: int, height: int, width: int) -> np.ndarray:
        """Crop boxes for images of height x width: int64 n x 4, (top, left, height, width).

        torchvision's RandomResizedCrop: the first of 10 attempts that fits into the image, else the
        largest central crop whose aspect ratio is allowed.
        """
        spec = self.views[view]
        drawn = self.uniforms[:, view, _CROP].reshape(-1, ATTEMPTS, 4)
        area = height * width * between(drawn[..., 0], *spec.scale)
        low, high = spec.ratio
        ratio = np.exp(between(drawn[..., 1], math.log(low), math.log(high)))
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

    def flip(self, view: int) -> np.ndarray:
        """Which samples are mirrored: bool n."""
        return self.uniforms[:, view, _FLIP] < self.views[view].flip_p


def _central(height: int, width: int, ratio: tuple[float, float]) -> np.ndarray:
    h, w = height, width
    if width / height < ratio[0]:
        h = round(width / ratio[0])
    elif width / height > ratio[1]:
        w = round(height * ratio[1])
    return np.array([(height - h) // 2, (width - w) // 2, h, w])
