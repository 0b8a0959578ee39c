"""How an image is shown to a finished encoder; part of every encoder file."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import torch
from torch import Tensor

from visrep.data.central_crop import central_crop
from visrep.data.views.image_ops import FILTERS, resized
from visrep.errors import UserError


@dataclass(frozen=True, kw_only=True)
class Preprocess:
    """Resize, crop the centre, normalise; the same for every image.

    Args:
        size: side of the square input, in pixels.
        resize: length the short side is resized to before the central crop; None for images that
            are size x size already.
        mean, std: of the normalisation, per channel in the order of `channel_order`, in units of
            `range`.
        interpolation: bilinear, bicubic or, without antialiasing, bicubic_tf1.
        antialias: true: the short side is resized, antialiased, rounded to whole grey levels, and
            the centre is cropped. false, as SimCLR's and BYOL's code has it: the central square of
            size / resize of the short side is cropped and resized, see `image_ops.taps`.
        channel_order: RGB or BGR.
        range: what black (0) and white (255) become before the normalisation.

    Raises:
        UserError: a value out of its range; the message names it.
    """

    size: int
    resize: int | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    interpolation: str = "bilinear"
    antialias: bool = True
    channel_order: str = "RGB"
    range: tuple[float, float] = (0.0, 1.0)

    def __post_init__(self) -> None:
        for name, count in (("mean", 3), ("std", 3), ("range", 2)):
            object.__setattr__(self, name, _numbers(name, getattr(self, name), count))
        for name in ("size", "resize"):
            value = getattr(self, name)
            if name == "resize" and value is None:
                continue
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise UserError(f"preprocess: {name}={value}: give a positive number of pixels")
        if self.resize is not None and self.resize < self.size:
            raise UserError(
                f"preprocess: resize={self.resize} is below size={self.size}: the central crop "
                "would not fit"
            )
        if min(self.std) <= 0:
            raise UserError(f"preprocess: std={self.std}: give three positive numbers")
        if self.range[0] >= self.range[1]:
            raise UserError(f"preprocess: range={self.range}: give (low, high)")
        for name, known in (("interpolation", FILTERS), ("channel_order", ("RGB", "BGR"))):
            if getattr(self, name) not in known:
                raise UserError(
                    f"preprocess: {name}={getattr(self, name)}: choose {' or '.join(known)}"
                )
        if not isinstance(self.antialias, bool):
            raise UserError(f"preprocess: antialias={self.antialias}: give true or false")
        if self.antialias and self.interpolation == "bicubic_tf1":
            raise UserError("preprocess: interpolation=bicubic_tf1: it needs antialias=false")

    def to_dict(self) -> dict[str, Any]:
        """Plain types, for JSON; `from_dict` is the inverse."""
        return {
            name: list(value) if isinstance(value, tuple) else value
            for name, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Preprocess":
        """The inverse of `to_dict`.

        Raises:
            UserError: not a mapping, a missing or unknown key, or a value out of its range.
        """
        if not isinstance(values, Mapping):
            raise UserError(f"preprocess: a mapping is needed, not {values!r}")
        known = {field.name for field in fields(cls)}
        missing = {"size", "resize", "mean", "std"} - set(values)
        if missing or set(values) - known:
            wrong = ", ".join(sorted(missing or {str(key) for key in set(values) - known}))
            raise UserError(f"preprocess: {'missing' if missing else 'unknown'} key {wrong}")
        return cls(**values)

    def __call__(self, images: Tensor) -> Tensor:
        """uint8 3 x H x W or N x 3 x H x W, RGB -> float32 of the same rank, size x size.

        Raises:
            UserError: `resize` is None and the images are not size x size.
        """
        height, width = images.shape[-2:]
        if self.resize is not None and not self.antialias:
            side = max(1, round(self.size / self.resize * min(height, width)))
            box = (height - side + 1) // 2, (width - side + 1) // 2, side, side
            images = resized(images, box, size=self.size, filter=self.interpolation)
        elif self.resize is not None:
            images = central_crop(
                images, resize=self.resize, size=self.size, interpolation=self.interpolation
            )
        elif (height, width) != (self.size, self.size):
            raise UserError(
                f"the images are {height} x {width} pixels and the encoder takes {self.size} x "
                f"{self.size} as they are: use images of that size"
            )
        if self.channel_order == "BGR":
            images = images.flip(-3)
        low, high = self.range
        pixels = images.float().div_(255.0).mul_(high - low).add_(low)
        mean, std = torch.tensor([self.mean, self.std], device=images.device)[..., None, None]
        return pixels.sub_(mean).div_(std)


def _numbers(name: str, values: Any, count: int) -> tuple[float, ...]:
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        numbers = ()
    if len(numbers) != count or not all(math.isfinite(number) for number in numbers):
        raise UserError(f"preprocess: {name}={values}: give {count} numbers")
    return numbers
