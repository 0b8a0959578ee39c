"""Heads that give each position of feature maps logits of classes, and the way back to pixels."""

from collections.abc import Callable, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

Norm = Callable[[int], nn.Module]

GROUPS = 32  # of the group norms of semantic FPN


class FCNHead(nn.Module):
    """N x C x h x w -> N x K x h x w: dilated 3x3 convolutions with norm and ReLU, then a 1x1.

    MoCo's head of semantic segmentation (arXiv 1911.05722, appendix): two convolutions of 256
    channels and dilation 6.

    Args:
        ins: C. classes: K.
        norm: makes the norm of a number of channels.
    """

    def __init__(
        self, ins: int, *, classes: int, width: int, convs: int, dilation: int, norm: Norm
    ) -> None:
        super().__init__()
        self.convs = nn.ModuleList()
        for _ in range(convs):
            self.convs.append(_conv(ins, width, dilation=dilation, norm=norm))
            ins = width
        self.predictor = _predictor(ins, classes)
        nn.init.normal_(self.predictor.weight, std=0.01)

    def forward(self, x: Tensor) -> Tensor:
        for conv in self.convs:
            x = conv(x)
        return self.predictor(x)


class PyramidHead(nn.Module):
    """Maps of a pyramid, finest first, N x C x h_i x w_i -> N x K x h x w of the finest.

    Semantic FPN (arXiv 1901.02446, 4.1): each map is convolved and enlarged twofold until it has
    the finest one's size; their sum is classified. Group norm, as there.

    Args:
        ins: C. classes: K.
        steps: how many times each map is enlarged, 0 for the finest, 1, 2, ... for those after it.

    The heights and widths of the maps must halve from one to the next.
    """

    def __init__(self, ins: int, *, classes: int, width: int, steps: Sequence[int]) -> None:
        super().__init__()
        self.steps = list(steps)
        self.branches = nn.ModuleList(
            nn.ModuleList(
                _conv(ins if number == 0 else width, width, dilation=1, norm=_group_norm)
                for number in range(max(1, count))
            )
            for count in self.steps
        )
        self.predictor = _predictor(width, classes)
        nn.init.kaiming_normal_(self.predictor.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        total: Tensor | None = None
        for x, convs, count in zip(maps, self.branches, self.steps, strict=True):
            for conv in convs:  # type: ignore[attr-defined]
                x = conv(x)
                if count:
                    x = F.interpolate(x, scale_factor=2, mode="bilinear", align_corners=False)
            total = x if total is None else total + x
        return self.predictor(total)


def to_pixels(logits: Tensor, stride: int) -> Tensor:
    """N x K x h x w of a net of that stride -> N x K x (stride h) x (stride w), bilinear.

    A ResNet's convolutions are centred, so that position i of a map looks at pixel stride * i; what
    lies beyond the last position has its value. For 513 = 16 * 32 + 1 pixels this is the enlarging
    with aligned corners that crops of 513 are made for (arXiv 1606.00915).
    """
    height, width = (stride * side for side in logits.shape[-2:])
    more = F.pad(logits, (0, 1, 0, 1), mode="replicate")
    size = (height + 1, width + 1)
    return F.interpolate(more, size=size, mode="bilinear", align_corners=True)[..., :height, :width]


def pixel_loss(logits: Tensor, classes: Tensor, *, ignored: int) -> Tensor:
    """Mean cross-entropy over the pixels that have a class; 0 where none has.

    logits: N x K x H x W. classes: N x H x W, int64.
    """
    total = F.cross_entropy(logits.float(), classes, ignore_index=ignored, reduction="sum")
    return total / (classes != ignored).sum().clamp(min=1)


def _conv(ins: int, outs: int, *, dilation: int, norm: Norm) -> nn.Sequential:
    conv = nn.Conv2d(ins, outs, 3, padding=dilation, dilation=dilation, bias=False)
    nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
    return nn.Sequential(conv, norm(outs), nn.ReLU(inplace=True))


def _predictor(ins: int, classes: int) -> nn.Conv2d:
    conv = nn.Conv2d(ins, classes, 1)
    assert conv.bias is not None
    nn.init.zeros_(conv.bias)
    return conv


def _group_norm(channels: int) -> nn.Module:
    return nn.GroupNorm(GROUPS, channels)
