"""The short side of an image resized, and the square in the middle of the result.

A long thin image is cut before it is resized, so that it costs what its crop costs: of 6000 x 2
pixels, resized to a short side of 256, the whole would have 768,000 x 256.
"""

import math

import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from visrep.data.views.image_ops import resize_matrix

# Of images up to this ratio of their sides the whole is resized, to the bit as torchvision does.
LONG = 16

_RADIUS = {"bilinear": 1, "bicubic": 2}  # of the filter, in pixels of the coarser grid


def is_long(height: int, width: int) -> bool:
    """Whether an image is one that is cut first."""
    return max(height, width) > LONG * min(height, width)


def central_crop(images: Tensor, *, resize: int, size: int, interpolation: str) -> Tensor:
    """Resize the short side, antialiased, and cut out the centre: torchvision's two operations.

    Of long images nearly all values are those of the whole, the others one grey level away (two,
    bicubic), as torchvision's weights have 16 bits.

    Args:
        images: uint8 ... x 3 x H x W.
        resize: of the short side, in pixels, at least `size`.
        size: of the square.
        interpolation: bilinear or bicubic.

    Returns:
        uint8 ... x 3 x size x size.
    """
    height, width = images.shape[-2:]
    if not is_long(height, width):
        mode = InterpolationMode(interpolation)
        whole = tv.resize(images, [resize], interpolation=mode, antialias=True)
        return tv.center_crop(whole, [size])
    longer = int(resize * max(height, width) / min(height, width))
    full = (longer, resize) if height > width else (resize, longer)
    (top, bottom, rows), (left, right, columns) = (
        _middle(extent, resized, size=size, filter=interpolation, device=images.device)
        for extent, resized in zip((height, width), full, strict=True)
    )
    part = images[..., top:bottom, left:right].float()
    narrow = _rounded(part @ columns.T)  # torchvision rounds between columns and rows, too
    return _rounded(rows @ narrow).to(torch.uint8)


def _middle(
    extent: int, resized: int, *, size: int, filter: str, device: torch.device
) -> tuple[int, int, Tensor]:
    """The central `size` pixels of an axis of `extent` pixels that is resized to `resized`.

    Returns:
        The first pixel that is needed and the one after the last; weights, size x those pixels.
    """
    scale = extent / resized
    first = round((resized - size) / 2)
    # What the filter needs on both sides, and a pixel that the cut may halve.
    beyond = math.ceil((_RADIUS[filter] * max(scale, 1.0) + 1) / scale)
    begin, end = max(0, first - beyond), min(resized, first + size + beyond)
    low, high = math.floor(begin * scale), min(extent, math.ceil(end * scale))
    # Counted from `low`, where float32 is exact.
    start, length = torch.tensor([[begin * scale - low], [(end - begin) * scale]], device=device)
    matrix = resize_matrix(start, length, None, extent=high - low, size=end - begin, filter=filter)
    return low, high, matrix[0, first - begin : first - begin + size]


def _rounded(pixels: Tensor) -> Tensor:
    """In place: to whole grey levels, halves up."""
    return pixels.add_(0.5).floor_().clamp_(0, 255)
