"""The transformations of Exemplar-CNN on a batch, with parameters of its own for every sample.

n images are `n x 3 x H x W`, float, in [0, 1]. A sample's result does not depend on the samples
beside it.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class Palette:
    """The principal components of a set of colours.

    Attributes:
        mean: 3, the mean colour.
        axes: 3 x 3, a component in each column, the strongest first.
    """

    mean: Tensor
    axes: Tensor

    def to(self, device: torch.device) -> "Palette":
        """The same on `device`."""
        return Palette(self.mean.to(device), self.axes.to(device))


def palette_of(images: Tensor, *, block: int = 1024) -> Palette:
    """Mean and principal components of all pixels of uint8 N x 3 x H x W, as float32 in [0, 1]."""
    total, square, count = torch.zeros(3).double(), torch.zeros(3, 3).double(), 0
    for some in images.split(block):
        pixels = some.movedim(1, 0).reshape(3, -1).double() / 255
        total += pixels.sum(dim=1)
        square += pixels @ pixels.T
        count += pixels.shape[1]
    mean = total / count
    _, axes = torch.linalg.eigh(square / count - mean[:, None] * mean)  # ascending
    return Palette(mean.float(), axes.flip(1).float())


def place(windows: Tensor, *, zoom: Tensor, angle: Tensor, shift: Tensor, size: int) -> Tensor:
    """Squares of the windows, turned and scaled about a shifted centre: n x 3 x size x size.

    Output pixel u, counted from the middle of the output, is read at shift + zoom R(angle) u,
    counted from the middle of the window, linearly between pixels.

    Args:
        windows: n x 3 x C x C; they must hold all that is read.
        zoom: n, window pixels per output pixel.
        angle: n, radians, from the first axis of an image (x) towards the second (y, down).
        shift: n x 2, window pixels (x, y).
    """
    n, channels, extent = windows.shape[:3]
    cos, sin = zoom * angle.cos() * (size / extent), zoom * angle.sin() * (size / extent)
    middle = shift * (2 / extent)
    rows = torch.stack([cos, -sin, middle[:, 0], sin, cos, middle[:, 1]], dim=1)
    grid = F.affine_grid(rows.view(n, 2, 3), [n, channels, size, size], align_corners=False)
    return F.grid_sample(windows, grid, padding_mode="border", align_corners=False)


def contrast_pca(images: Tensor, factors: Tensor, palette: Palette) -> Tensor:
    """Stretch the colours along the palette's components about its mean; not clipped.

    Args:
        factors: n x 3, one for each component.
    """
    stretch = (palette.axes * factors[:, None]) @ palette.axes.T  # n x 3 x 3
    mean = palette.mean[:, None, None]
    moved = stretch @ (images - mean).flatten(2)
    return moved.view_as(images) + mean


def contrast_hsv(
    images: Tensor, *, power: Tensor, factor: Tensor, offset: Tensor, hue: Tensor
) -> Tensor:
    """In HSV, S and V become s ** power * factor + offset, clipped to [0, 1]; H turns by `hue`.

    A channel is v - v s (1 - ramp(h)): the ramp is 1 within 1/6 turn of the channel's own hue, 0
    beyond 1/3, linear between.

    Args:
        power, factor, offset: n x 2, of S and of V.
        hue: n, turns.
    """
    value, low = images.amax(dim=1), images.amin(dim=1)
    chroma = value - low
    saturation = chroma / value.clamp(min=1e-12)
    h = _hue(images, value, chroma) + hue[:, None, None]
    s, v = (
        (channel ** power[:, i, None, None])
        .mul(factor[:, i, None, None])
        .add(offset[:, i, None, None])
        .clamp(0.0, 1.0)
        for i, channel in enumerate((saturation, value))
    )
    own_hue = torch.tensor([0.0, 1 / 3, 2 / 3], device=images.device)[:, None, None]
    away = h[:, None] - own_hue  # n x 3 x H x W, turns
    away = (away - away.round()).abs()
    ramp = (2.0 - 6.0 * away).clamp(0.0, 1.0)
    return v[:, None] * (1.0 - s[:, None] * (1.0 - ramp))


def _hue(images: Tensor, value: Tensor, chroma: Tensor) -> Tensor:
    """H of HSV in turns, n x H x W; 0 for grey. Red is taken before green before blue."""
    red, green, blue = images.unbind(1)
    sixths = torch.where(green == value, 2.0 * chroma + blue - red, 4.0 * chroma + red - green)
    sixths = torch.where(red == value, green - blue, sixths)
    return sixths / chroma.mul(6.0).clamp(min=1e-12)
