"""The operations of the papers; each clips to [0, 1]. The arithmetic is in `image_ops`.

Their numbers stand in fixed columns of the row that a view draws, so that a run that is resumed
with a later version sees the same views.
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from visrep.data.views import image_ops
from visrep.data.views.operation import Operation, between, on, tuple_of

HUE = 3  # of brightness, contrast, saturation, hue


@dataclass(frozen=True, kw_only=True)
class Jitter(Operation):
    """Brightness, contrast, saturation and hue, in an order drawn for each sample.

    Args:
        p: probability.
        strength: of the four, as torchvision's ColorJitter takes them; the yaml's `jitter`.
        additive: add U(-b, b) to the brightness (SimCLR v1, BYOL) in place of multiplying by
            U(max(0, 1 - b), 1 + b) (SimCLR v2, torchvision); the yaml's `brightness_additive`.
    """

    name = "jitter"
    numbers = 8
    columns = (41, *range(48, 56))

    p: float = 0.0
    strength: tuple[float, float, float, float] = (0.0, 0.0, 0.0, 0.0)
    additive: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "strength", tuple_of("jitter", self.strength, 4))
        good = min(self.strength) >= 0 and self.strength[HUE] <= 0.5
        self.require(good, "strength", "4 strengths, none negative, the hue up to 0.5")

    @classmethod
    def key(cls, setting: str) -> str:
        """The yaml keys are older than the rule."""
        older = {"strength": "jitter", "additive": "brightness_additive"}
        return older.get(setting) or super().key(setting)

    def factors(self, numbers: np.ndarray) -> np.ndarray:
        """n x 4: brightness (a summand where it is additive), contrast, saturation, hue (turns)."""
        strength = np.asarray(self.strength)
        low, high = np.maximum(1.0 - strength, 0.0), 1.0 + strength
        for symmetric in [0, HUE] if self.additive else [HUE]:
            low[symmetric], high[symmetric] = -strength[symmetric], strength[symmetric]
        return between(numbers[:, :4], low, high)

    def order(self, numbers: np.ndarray) -> np.ndarray:
        """int64 n x 4, the places 0 to 3 in the list of factors, in order of application."""
        return numbers[:, 4:].argsort(axis=1, kind="stable")

    def chosen(self, uniforms: np.ndarray) -> np.ndarray:
        """Sorted by the place of hue, as `image_ops.jitter_` wants them."""
        index = super().chosen(uniforms)
        return index[_place_of_hue(self.order(uniforms[index, 1:])).argsort(kind="stable")]

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        factors, order = self.factors(numbers), self.order(numbers)
        bounds = _place_of_hue(order).searchsorted(np.arange(5)).tolist()
        weights = np.zeros((len(factors), 3, 4))  # as `image_ops.blend_` wants them
        weights[:, :, 0] = factors[:, :HUE]
        if self.additive:
            weights[:, 0, 0] = 1.0
            weights[:, 0, 3] = factors[:, 0]
        weights[:, 1, 2] = 1.0 - factors[:, 1]
        weights[:, 2, 1] = 1.0 - factors[:, 2]
        others = order[order != HUE].reshape(-1, 3, 1)
        blends = on(images.device, np.take_along_axis(weights, others, axis=1))
        turns = on(images.device, factors[:, HUE]) if self.strength[HUE] > 0 else None
        return image_ops.jitter_(images, blends, turns, bounds)


def _place_of_hue(order: np.ndarray) -> np.ndarray:
    return (order == HUE).argmax(axis=1)


@dataclass(frozen=True, kw_only=True)
class Gray(Operation):
    """Luma in place of colour, with probability `p`."""

    name = "gray"
    columns = (42,)

    p: float = 0.0

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        return image_ops.grayscale(images).expand_as(images)


@dataclass(frozen=True, kw_only=True)
class Blur(Operation):
    """A Gaussian blur with reflected borders.

    MoCo and SwAV blur with Pillow, whose result is three box blurs that approximate the same
    Gaussian; here it is the Gaussian.

    Args:
        p: probability.
        sigma: its standard deviation in pixels, drawn uniformly.
        kernel: its width in pixels, odd; None for SimCLR's 10 % of the view's size, made odd.
    """

    name = "blur"
    numbers = 1
    columns = (43, 44)

    p: float = 0.0
    sigma: tuple[float, float] = (0.1, 2.0)
    kernel: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "sigma", tuple_of("blur_sigma", self.sigma, 2))
        self.require(0 < self.sigma[0] <= self.sigma[1], "sigma", "[low, high], positive")

    def check(self, size: int) -> None:
        """A kernel reflects once at most."""
        width = self.width(size)
        good = isinstance(width, int) and width % 2 == 1 and 1 <= width < 2 * size
        self.require(good, "kernel", f"an odd width below {2 * size}")

    def width(self, size: int) -> int:
        """Of the kernel, in pixels, for views of `size`."""
        return 2 * (size // 10 // 2) + 1 if self.kernel is None else self.kernel

    def drawn_sigma(self, numbers: np.ndarray) -> np.ndarray:
        """n, in pixels."""
        return between(numbers[:, 0], *self.sigma)

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        distance = np.arange(self.width(images.shape[-1]) // 2 + 1)
        weights = np.exp(-0.5 * (distance / self.drawn_sigma(numbers)[:, None]) ** 2)
        weights /= weights[:, :1] + 2 * weights[:, 1:].sum(axis=1, keepdims=True)
        return image_ops.gaussian_blur(images, on(images.device, weights))


@dataclass(frozen=True, kw_only=True)
class Solarize(Operation):
    """All values from `threshold` on are inverted, with probability `p`.

    Pillow's usual threshold of 128 is 128 / 255.
    """

    name = "solarize"
    columns = (45,)

    p: float = 0.0
    threshold: float = 0.5

    def __post_init__(self) -> None:
        self.require_share("threshold")

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        return image_ops.solarize(images, self.threshold)


@dataclass(frozen=True, kw_only=True)
class Invert(Operation):
    """The negative, with probability `p`."""

    name = "invert"
    columns = (46,)

    p: float = 0.0

    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        return torch.rsub(images, 1.0)


# The papers' operations, in the order they come in where a yaml does not say.
OURS: dict[str, type[Operation]] = {
    kind.name: kind for kind in (Jitter, Gray, Blur, Solarize, Invert)
}
