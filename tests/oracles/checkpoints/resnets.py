"""The ResNets inside published checkpoints, sixteen times narrower: plain torch, their names."""

from itertools import pairwise
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.resnet import BasicBlock, Bottleneck, ResNet

BASIC, BOTTLENECK = (BasicBlock, (2, 2, 2, 2)), (Bottleneck, (3, 4, 6, 3))  # ResNet-18, ResNet-50
NARROW = 16


class Torchvision(ResNet):
    """torchvision's own class and forward, `widen` times as wide as a sixteenth; no pooling of
    what `fc` gives. stem: `imagenet`, or `cifar` with a 3x3 convolution padded by `pad`."""

    def __init__(
        self, *, kind: Any = BASIC, widen: int = 1, stem: str = "imagenet", pad: int = 1
    ) -> None:
        self.widen = widen
        super().__init__(*kind)
        first = 64 * widen // NARROW
        kernel = (7, 2, 3) if stem == "imagenet" else (3, 1, pad)
        self.conv1 = nn.Conv2d(3, first, *kernel, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        if stem == "cifar":
            self.maxpool = nn.Identity()
        self.out_dim = self.inplanes
        self.fc = nn.Identity()

    def _make_layer(self, block: Any, planes: int, *args: Any, **kwargs: Any) -> nn.Sequential:
        if planes == 64:
            self.inplanes = 64 * self.widen // NARROW
        return super()._make_layer(block, planes * self.widen // NARROW, *args, **kwargs)


class CifarBlock(nn.Module):
    """A block with `shortcut` for `downsample`; with `bottleneck` the one of 1x1, 3x3, 1x1."""

    def __init__(self, ins: int, width: int, *, stride: int, bottleneck: bool, norm: Any) -> None:
        super().__init__()
        outs = 4 * width if bottleneck else width
        shapes = [(ins, width, 3, stride), (width, width, 3, 1)]
        if bottleneck:
            shapes = [(ins, width, 1, 1), (width, width, 3, stride), (width, outs, 1, 1)]
        self.depth = len(shapes)
        for i, (a, b, kernel, step) in enumerate(shapes, 1):
            self.add_module(f"conv{i}", nn.Conv2d(a, b, kernel, step, kernel // 2, bias=False))
            self.add_module(f"bn{i}", norm(b))
        self.shortcut = nn.Sequential()
        if stride > 1 or ins != outs:
            conv = nn.Conv2d(ins, outs, 1, stride, bias=False)
            self.shortcut = nn.Sequential(conv, norm(outs))

    def forward(self, x: Tensor) -> Tensor:
        y = x
        for i in range(1, self.depth + 1):
            y = getattr(self, f"bn{i}")(getattr(self, f"conv{i}")(y))
            y = F.relu(y + self.shortcut(x) if i == self.depth else y)
        return y


class Cifar(nn.Module):
    """The ResNet for CIFAR of lemniscate and lightly: 3x3 stem without max-pool, `linear`.

    Its ReLU after the stem is a function, which is lost when its children are put in a row.
    """

    def __init__(self, *, kind: Any = BASIC, outs: int = 16, norm: Any = nn.BatchNorm2d) -> None:
        super().__init__()
        block, counts = kind
        width, bottleneck = 64 // NARROW, block is Bottleneck
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = norm(width)
        ins = width
        for i, count in enumerate(counts):
            blocks = []
            for j in range(count):
                stride = 2 if i and not j else 1
                w = width * 2**i
                blocks.append(CifarBlock(ins, w, stride=stride, bottleneck=bottleneck, norm=norm))
                ins = 4 * w if bottleneck else w
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.out_dim = ins
        self.linear = nn.Linear(ins, outs)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> N x out_dim, what `linear` would be given."""
        x = F.relu(self.bn1(self.conv1(x)))
        for i in (1, 2, 3, 4):
            x = getattr(self, f"layer{i}")(x)
        return x.mean((2, 3))


class SplitNorm(nn.BatchNorm2d):
    """Running statistics of each of `splits` parts of the batch, one after the other."""

    def __init__(self, width: int, splits: int = 3) -> None:
        super().__init__(width)
        self.splits = splits
        self.register_buffer("running_mean", torch.zeros(width * splits))
        self.register_buffer("running_var", torch.ones(width * splits))

    def forward(self, x: Tensor) -> Tensor:
        """As in evaluation: with the mean over the parts."""
        mean, var = (
            part.view(self.splits, -1).mean(0) for part in (self.running_mean, self.running_var)
        )
        return F.batch_norm(x, mean, var, self.weight, self.bias, eps=self.eps)


def mlp(*widths: int, norms: str = "", bias: bool | None = None) -> nn.Sequential:
    """Linear layers with ReLUs between. norms: per layer `b` batch norm, `p` without gamma and
    beta, `-` none. bias: of the linears; None for those without batch norm."""
    layers: list[nn.Module] = []
    last = len(widths) - 2
    for i, (a, b) in enumerate(pairwise(widths)):
        norm = norms[i] if norms else "-"
        layers.append(nn.Linear(a, b, bias=norm == "-" if bias is None else bias))
        if norm != "-":
            layers.append(nn.BatchNorm1d(b, affine=norm == "b"))
        if i < last:
            layers.append(nn.ReLU())
    return nn.Sequential(*layers)
