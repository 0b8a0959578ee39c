"""ResNets with torchvision's names and numbers, and what SimCLR v2 and small images add to them.

Deep Residual Learning (arXiv 1512.03385) with the stride in the 3x3 convolution; the tweaks of
ResNet-D (1812.01187); selective kernels (1903.06586) in the form of SimCLR v2 (2006.10029).
With the `imagenet` stem and without selective kernels the state dict is torchvision's, less `fc`.
"""

from collections import OrderedDict
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.pooling import AveragePool, MaxPool

BLOCKS = {
    18: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
}
STEM_STRIDES = {"imagenet": 4, "d": 4, "small": 2, "cifar": 1}
PADDINGS = ("torch", "tf")
SK_RATIO = 0.0625  # width of the selective kernel's bottleneck, with a floor of SK_FLOOR
SK_FLOOR = 32


class ResNet(nn.Module):
    """An encoder: N x 3 x H x W -> N x out_dim, and its four feature maps.

    depth: 18, 34 (basic blocks), 50, 101, 152 (bottlenecks). width: factor of all widths; layer i
    has int(64 * width) * 2^i channels inside its blocks. stem: `imagenet` 7x7/2 and max-pool; `d`
    three 3x3, the first of stride 2, and max-pool, with average-pooled shortcuts (ResNet-D);
    `small` 3x3/2 without max-pool; `cifar` 3x3/1 without max-pool. sk: selective kernels in place
    of the 3x3 convolutions; needs stem=d and depth >= 50.

    padding: `torch`, or `tf` for weights that were trained by SimCLR's TensorFlow code. It concerns
    pooling only (their convolutions pad symmetrically): the max-pool pads by TF's SAME rule, and
    the average over 2x2 positions of a stride-1 shortcut leaves out those beyond the border, which
    `torch` counts as zeros.

    Convolutions start as He normal (fan-out), as torchvision's. zero_init_residual starts the last
    gamma of every block at 0, so that a fresh block is the ReLU of its shortcut (1706.02677).

    Raises ConfigError on a combination that does not exist.
    """

    spec: dict[str, Any]  # ResNet(**spec) rebuilds the net; JSON-able
    out_dim: int
    strides: tuple[int, int, int, int]  # of the outputs of layer1..layer4
    channels: tuple[int, int, int, int]

    def __init__(
        self,
        *,
        depth: int = 50,
        width: float = 1.0,
        sk: bool = False,
        stem: str = "imagenet",
        padding: str = "torch",
        zero_init_residual: bool = True,
    ) -> None:
        super().__init__()
        _check(depth=depth, width=width, sk=sk, stem=stem, padding=padding)
        self.spec = {"depth": depth, "width": width, "sk": sk, "stem": stem, "padding": padding}
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth < 50 else Bottleneck
        widths = [int(64 * width) * 2**i for i in range(4)]
        first = STEM_STRIDES[stem]
        self.strides = (first, 2 * first, 4 * first, 8 * first)
        c1, c2, c3, c4 = (block.expansion * w for w in widths)
        self.channels = (c1, c2, c3, c4)
        self.out_dim = c4

        self.conv1, self.bn1 = _stem(stem, widths[0])
        self.relu = nn.ReLU(inplace=True)
        pooled = stem in ("imagenet", "d")
        self.maxpool = MaxPool(padding=padding) if pooled else nn.Identity()
        shortcut = padding if stem == "d" else None
        ins, layers = widths[0], []
        for i, blocks in enumerate(BLOCKS[depth]):
            layer = []
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                layer.append(block(ins, widths[i], stride=stride, sk=sk, pool=shortcut))
                ins = self.channels[i]
            layers.append(nn.Sequential(*layer))
        self.layer1, self.layer2, self.layer3, self.layer4 = layers
        self._initialise(zero_init_residual)

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> N x out_dim, the mean over the positions of layer4."""
        return F.adaptive_avg_pool2d(self.feature_maps(x)[-1], 1).flatten(1)

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Outputs of layer1..layer4: N x channels[i] x H/strides[i] x W/strides[i] (rounded up)."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        maps = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            maps.append(x)
        return maps

    def _initialise(self, zero_init_residual: bool) -> None:
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            elif zero_init_residual and isinstance(module, BasicBlock | Bottleneck):
                assert module.last_norm.weight is not None
                nn.init.zeros_(module.last_norm.weight)


class BasicBlock(nn.Module):
    """3x3 -> 3x3, joined to the shortcut: N x ins x H x W -> N x width x H/stride x W/stride."""

    expansion = 1

    def __init__(self, ins: int, width: int, *, stride: int, sk: bool, pool: str | None) -> None:
        super().__init__()
        assert not sk, "selective kernels exist in bottlenecks only"
        self.conv1 = _conv(ins, width, 3, stride=stride)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3)
        self.bn2 = BatchNorm(width)
        self.downsample = _shortcut(ins, width, stride=stride, pool=pool)

    @property
    def last_norm(self) -> BatchNorm:
        return self.bn2

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.bn2(self.conv2(x))
        x += shortcut
        return self.relu(x)


class Bottleneck(nn.Module):
    """1x1 -> 3x3 or selective kernel -> 1x1, joined to the shortcut:
    N x ins x H x W -> N x 4 width x H/stride x W/stride."""

    expansion = 4

    def __init__(self, ins: int, width: int, *, stride: int, sk: bool, pool: str | None) -> None:
        super().__init__()
        self.conv1 = _conv(ins, width, 1)
        self.bn1 = BatchNorm(width)
        if sk:
            self.sk = SelectiveKernel(width, stride=stride)
        else:
            self.conv2 = _conv(width, width, 3, stride=stride)
            self.bn2 = BatchNorm(width)
        self.conv3 = _conv(width, 4 * width, 1)
        self.bn3 = BatchNorm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(ins, 4 * width, stride=stride, pool=pool)
        self.selective = sk

    @property
    def last_norm(self) -> BatchNorm:
        return self.bn3

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.downsample is None else self.downsample(x)
        x = self.relu(self.bn1(self.conv1(x)))
        x = self.sk(x) if self.selective else self.relu(self.bn2(self.conv2(x)))
        x = self.bn3(self.conv3(x))
        x += shortcut
        return self.relu(x)


class SelectiveKernel(nn.Module):
    """Two 3x3 branches, mixed per channel by attention: N x C x H x W -> N x C x H/s x W/s.

    SimCLR v2's form: both branches are 3x3, normalised and rectified before they are summed for the
    squeeze; no norm and no ReLU after the mixing.
    """

    def __init__(self, width: int, *, stride: int) -> None:
        super().__init__()
        squeezed = max(int(width * SK_RATIO), SK_FLOOR)
        self.conv = _conv(width, 2 * width, 3, stride=stride)  # both branches, one after the other
        self.bn = BatchNorm(2 * width)
        self.squeeze = _conv(width, squeezed, 1)
        self.squeeze_bn = BatchNorm(squeezed)
        self.excite = _conv(squeezed, 2 * width, 1)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        branches = self.relu(self.bn(self.conv(x))).unflatten(1, (2, -1))  # N x 2 x C x H x W
        pooled = branches.sum(1).mean((2, 3), keepdim=True)  # N x C x 1 x 1
        logits = self.excite(self.relu(self.squeeze_bn(self.squeeze(pooled))))
        return mix_branches(branches, logits.unflatten(1, (2, -1)))


def mix_branches(branches: Tensor, logits: Tensor) -> Tensor:
    """Sum over the branches, weighted by the softmax of their logits, each channel by itself.

    branches: N x 2 x C x H x W, logits: N x 2 x C x 1 x 1 -> N x C x H x W.
    """
    return (logits.softmax(1) * branches).sum(1)


def _conv(ins: int, outs: int, kernel: int, *, stride: int = 1) -> nn.Conv2d:
    kind = _NarrowShortcut if kernel == 1 and stride > 1 and ins < 16 else nn.Conv2d
    return kind(ins, outs, kernel, stride=stride, padding=kernel // 2, bias=False)


class _NarrowShortcut(nn.Conv2d):
    """A strided 1x1 convolution of fewer than 16 channels.

    On a CPU with AVX-512, oneDNN's weight gradient of such a convolution writes past its memory
    (torch 2.15: 8 channels of 64 x 80 crash). Leaving out the skipped pixels first is the same map.
    """

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return super().forward(x)
        rows, columns = self.stride
        return F.conv2d(x[..., ::rows, ::columns], self.weight)


def _stem(stem: str, width: int) -> tuple[nn.Module, BatchNorm]:
    if stem == "imagenet":
        return _conv(3, width, 7, stride=2), BatchNorm(width)
    if stem == "d":
        half = width // 2
        convs = nn.Sequential(
            *(_conv(3, half, 3, stride=2), BatchNorm(half), nn.ReLU(inplace=True)),
            *(_conv(half, half, 3), BatchNorm(half), nn.ReLU(inplace=True)),
            _conv(half, width, 3),
        )
        return convs, BatchNorm(width)
    return _conv(3, width, 3, stride=2 if stem == "small" else 1), BatchNorm(width)


def _shortcut(ins: int, outs: int, *, stride: int, pool: str | None) -> nn.Sequential | None:
    """1x1 convolution and norm where the shapes differ; `pool` is its average pool's padding."""
    if stride == 1 and ins == outs:
        return None
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if pool is not None:
        parts["pool"] = AveragePool(stride=stride, padding=pool)
    parts["0"] = _conv(ins, outs, 1, stride=stride if pool is None else 1)
    parts["1"] = BatchNorm(outs)
    return nn.Sequential(parts)


def _check(*, depth: int, width: float, sk: bool, stem: str, padding: str) -> None:
    if depth not in BLOCKS:
        raise ConfigError(f"a ResNet of depth {depth} does not exist: choose one of {list(BLOCKS)}")
    if stem not in STEM_STRIDES:
        raise ConfigError(f"stem '{stem}' is unknown: choose one of {', '.join(STEM_STRIDES)}")
    if padding not in PADDINGS:
        raise ConfigError(f"padding '{padding}' is unknown: choose one of {', '.join(PADDINGS)}")
    if int(64 * width) < 2:
        raise ConfigError(f"width={width} leaves no channels: give 0.03125 or more")
    if sk and (stem != "d" or depth < 50):
        raise ConfigError(
            f"selective kernels (sk=true) need stem=d and depth 50 or more, not stem={stem} and "
            f"depth {depth}"
        )
