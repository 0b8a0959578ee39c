"""Pooling of a ResNet, padded as torch does it or as TensorFlow does.

The two sample other positions of the same image: with the other one's padding, weights give
features that are several per cent off.
"""

import torch.nn.functional as F
from torch import Tensor, nn


class MaxPool(nn.Module):
    """3x3/2 max-pool of the stem: N x C x H x W -> N x C x ceil(H/2) x ceil(W/2)."""

    def __init__(self, *, padding: str) -> None:
        super().__init__()
        self.padding = padding

    def forward(self, x: Tensor) -> Tensor:
        if self.padding != "torch":  # tf and haiku alike
            return F.max_pool2d(pad_same(x, kernel=3, stride=2, value=float("-inf")), 3, 2)
        return F.max_pool2d(x, 3, 2, padding=1)

    def extra_repr(self) -> str:
        return f"padding={self.padding}"


class AveragePool(nn.Module):
    """2x2 average pool of a ResNet-D shortcut: N x C x H x W -> N x C x ceil(H/s) x ceil(W/s).

    A position beyond the border is a zero, except with padding `tf` at stride 1, where the mean is
    over the positions inside.
    """

    def __init__(self, *, stride: int, padding: str) -> None:
        super().__init__()
        self.stride, self.padding = stride, padding

    def forward(self, x: Tensor) -> Tensor:
        total = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, self.stride)
        if self.padding == "tf" and self.stride == 1:
            inside = F.pad(x.new_ones(1, 1, *x.shape[2:]), (0, 1, 0, 1))
            return total / F.avg_pool2d(inside, 2, 1)
        return total

    def extra_repr(self) -> str:
        return f"stride={self.stride}, padding={self.padding}"


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME rule for one axis: (before, after) such that ceil(size/stride) remain.

    The odd one goes to the end, and the rule depends on the size: 3/2 pads (0, 1) when the size is
    even and (1, 1) when it is odd.
    """
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def pad_same(x: Tensor, *, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Pad N x C x H x W by the SAME rule on both axes."""
    top, bottom = same_padding(x.shape[2], kernel, stride)
    left, right = same_padding(x.shape[3], kernel, stride)
    return F.pad(x, (left, right, top, bottom), value=value)
