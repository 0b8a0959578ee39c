"""ResNets with torchvision's names and numbers, and what published checkpoints add to them.

Deep Residual Learning (arXiv 1512.03385) with the stride in the 3x3 convolution; the tweaks of
ResNet-D (1812.01187); grouped (1611.05431) and wide (1605.07146) bottlenecks; selective kernels
(1903.06586) in the form of SimCLR v2 (2006.10029). With the `imagenet` stem and without selective
kernels the state dict is torchvision's, less `fc`.
"""

from collections import OrderedDict
from dataclasses import dataclass, replace
from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.pooling import AveragePool, MaxPool, pad_same

BLOCKS = {
    10: (1, 1, 1, 1),
    14: (1, 1, 1, 1),
    18: (2, 2, 2, 2),
    26: (2, 2, 2, 2),
    34: (3, 4, 6, 3),
    50: (3, 4, 6, 3),
    101: (3, 4, 23, 3),
    152: (3, 8, 36, 3),
    200: (3, 24, 36, 3),
}
BASIC = (10, 18, 34)  # the depths whose blocks are two 3x3 convolutions, not a bottleneck
STEM_STRIDES = {"imagenet": 4, "d": 4, "t": 4, "small": 2, "cifar": 1, "cifar_pad2": 1}
DEEP_STEMS = {"d": (0.5, 0.5), "t": (0.375, 0.5)}  # widths of their first two convolutions
SHORTCUTS = ("conv", "avg_down", "simclr")
PADDINGS = ("torch", "tf", "haiku")
SK_RATIO = 0.0625  # width of the selective kernel's bottleneck, with a floor of SK_FLOOR
SK_FLOOR = 32


class ResNet(nn.Module):
    """An encoder: N x 3 x H x W -> N x out_dim, and its four feature maps.

    depth: 10, 18, 34 (basic blocks), 14, 26, 50, 101, 152, 200 (bottlenecks). width: factor of all
    widths; layer i has int(64 * width) * 2^i channels inside its blocks, times `inner` in the 3x3
    convolutions of bottlenecks, which are in `groups` groups (ResNeXt-50 32x4d: groups=32, inner=2;
    wide_resnet50_2: inner=2). sk: selective kernels in place of the 3x3 convolutions; needs stem=d
    and bottlenecks. stride_in_1x1: a bottleneck's stride is in its first convolution (Caffe2).

    stem: `imagenet` 7x7/2 and max-pool; `d` and `t` (narrower first) three 3x3, the first of stride
    2, and max-pool; `small` 3x3/2 without max-pool; `cifar` 3x3/1 without max-pool, `cifar_pad2`
    the same padded by 2, as solo-learn has it. stem_relu: a ReLU after the stem, which lightly's
    own ResNet loses where its children are put in a row. project: the first block of layer1 has a
    convolution in its shortcut even where the shapes agree (basic blocks of SimCLR's and BYOL's own
    code).

    shortcut, where shapes differ: `conv` 1x1 with the stride; `avg_down` (ResNet-D) a 2x2 average
    over the positions inside the image, then 1x1, where the stride is 2; `simclr` a 2x2 average
    before every 1x1. None stands for `simclr` with stem=d and else for `conv`.

    dilated: layer4 stays at the stride of layer3 and all of its 3x3 convolutions, the first block's
    too, have dilation 2, as Detectron2's RES5_DILATION and the semantic segmentation of MoCo
    (1911.05722, A.4) have it. torchvision's `replace_stride_with_dilation` leaves the first block's
    at 1. The tensors are those of the net that is not dilated; see `dilate`.

    padding: `torch`, or that of the code that trained the weights. `tf` (SimCLR): the max-pool pads
    by TF's SAME rule, and the average over 2x2 positions of a stride-1 `simclr` shortcut leaves out
    those beyond the border, which `torch` counts as zeros. `haiku` (BYOL): the max-pool and every
    convolution of stride 2 pad by the SAME rule.

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
        shortcut: str | None = None,
        groups: int = 1,
        inner: float = 1,
        project: bool = False,
        stride_in_1x1: bool = False,
        stem_relu: bool = True,
        dilated: bool = False,
        zero_init_residual: bool = True,
    ) -> None:
        super().__init__()
        self.spec = {"depth": depth, "width": width, "sk": sk, "stem": stem, "padding": padding}
        usual = "simclr" if stem == "d" else "conv"
        rare: dict[str, Any] = {
            "shortcut": None if shortcut == usual else shortcut,
            "groups": groups,
            "inner": inner,
            "project": project,
            "stride_in_1x1": stride_in_1x1,
            "stem_relu": stem_relu,
            "dilated": dilated,
        }
        self.spec |= {key: value for key, value in rare.items() if value != RARE[key]}
        _check(**{**RARE, **self.spec})
        block: type[BasicBlock] | type[Bottleneck] = BasicBlock if depth in BASIC else Bottleneck
        widths = [int(64 * width) * 2**i for i in range(4)]
        first = STEM_STRIDES[stem]
        self.strides = (first, 2 * first, 4 * first, (4 if dilated else 8) * first)
        c1, c2, c3, c4 = (block.expansion * w for w in widths)
        self.channels = (c1, c2, c3, c4)
        self.out_dim = c4

        self.conv1, self.bn1 = _stem(stem, widths[0], padding)
        self.relu = nn.ReLU(inplace=True) if stem_relu else nn.Identity()
        pooled = STEM_STRIDES[stem] == 4
        self.maxpool = MaxPool(padding=padding) if pooled else nn.Identity()
        style = Style(
            sk=sk,
            padding=padding,
            shortcut=shortcut or usual,
            groups=groups,
            inner=inner,
            stride_in_1x1=stride_in_1x1,
        )
        ins, layers = widths[0], []
        for i, blocks in enumerate(BLOCKS[depth]):
            layer = []
            if dilated and i == 3:
                style = replace(style, dilation=2)
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 and style.dilation == 1 else 1
                differs = stride > 1 or ins != self.channels[i]
                first = j == 0 and (differs or (project and i == 0))
                layer.append(block(ins, widths[i], stride=stride, project=first, style=style))
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


@dataclass(frozen=True, kw_only=True)
class Style:
    """What all blocks of a net have in common; the values are `ResNet`'s arguments."""

    sk: bool
    padding: str
    shortcut: str
    groups: int
    inner: float
    stride_in_1x1: bool
    dilation: int = 1  # of the 3x3 convolutions; only a layer of stride 1 has another


class BasicBlock(nn.Module):
    """3x3 -> 3x3, joined to the shortcut: N x ins x H x W -> N x width x H/stride x W/stride."""

    expansion = 1

    def __init__(self, ins: int, width: int, *, stride: int, project: bool, style: Style) -> None:
        super().__init__()
        dilation = style.dilation
        self.conv1 = _conv(ins, width, 3, stride=stride, dilation=dilation, padding=style.padding)
        self.bn1 = BatchNorm(width)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = _conv(width, width, 3, dilation=dilation)
        self.bn2 = BatchNorm(width)
        self.downsample = _shortcut(ins, width, stride=stride, style=style) if project else None

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

    def __init__(self, ins: int, width: int, *, stride: int, project: bool, style: Style) -> None:
        super().__init__()
        inner, padding = int(width * style.inner), style.padding
        first, second = (stride, 1) if style.stride_in_1x1 else (1, stride)
        self.conv1 = _conv(ins, inner, 1, stride=first)
        self.bn1 = BatchNorm(inner)
        if style.sk:
            self.sk = SelectiveKernel(width, stride=stride, dilation=style.dilation)
        else:
            self.conv2 = _conv(
                inner,
                inner,
                3,
                stride=second,
                dilation=style.dilation,
                groups=style.groups,
                padding=padding,
            )
            self.bn2 = BatchNorm(inner)
        self.conv3 = _conv(inner, 4 * width, 1)
        self.bn3 = BatchNorm(4 * width)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = _shortcut(ins, 4 * width, stride=stride, style=style) if project else None
        self.selective = style.sk

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

    def __init__(self, width: int, *, stride: int, dilation: int = 1) -> None:
        super().__init__()
        squeezed = max(int(width * SK_RATIO), SK_FLOOR)
        # Both branches, one after the other.
        self.conv = _conv(width, 2 * width, 3, stride=stride, dilation=dilation)
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


def _conv(
    ins: int,
    outs: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    groups: int = 1,
    padding: str = "torch",
) -> nn.Conv2d:
    kind: type[nn.Conv2d] = nn.Conv2d
    if kernel == 1 and stride > 1 and ins < 16:
        kind = _NarrowShortcut
    elif kernel > 1 and stride > 1 and padding == "haiku":
        kind = _SameConv
    return kind(
        ins,
        outs,
        kernel,
        stride=stride,
        padding=dilation * (kernel // 2),
        dilation=dilation,
        groups=groups,
        bias=False,
    )


class _SameConv(nn.Conv2d):
    """A convolution that pads by TensorFlow's SAME rule, whatever its `padding` says."""

    def forward(self, x: Tensor) -> Tensor:
        padded = pad_same(x, kernel=self.kernel_size[0], stride=self.stride[0])
        return F.conv2d(padded, self.weight, stride=self.stride, groups=self.groups)


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


def _stem(stem: str, width: int, padding: str) -> tuple[nn.Module, BatchNorm]:
    if stem == "imagenet":
        return _conv(3, width, 7, stride=2, padding=padding), BatchNorm(width)
    if stem in DEEP_STEMS:
        one, two = (int(width * share) for share in DEEP_STEMS[stem])
        convs = nn.Sequential(
            *(_conv(3, one, 3, stride=2, padding=padding), BatchNorm(one), nn.ReLU(inplace=True)),
            *(_conv(one, two, 3), BatchNorm(two), nn.ReLU(inplace=True)),
            _conv(two, width, 3),
        )
        return convs, BatchNorm(width)
    conv = _conv(3, width, 3, stride=STEM_STRIDES[stem], padding=padding)
    if stem == "cifar_pad2":
        conv.padding = (2, 2)
    return conv, BatchNorm(width)


def _shortcut(ins: int, outs: int, *, stride: int, style: Style) -> nn.Sequential:
    """1x1 convolution and norm, after an average pool where the style has one."""
    parts: OrderedDict[str, nn.Module] = OrderedDict()
    if style.shortcut == "simclr":
        parts["pool"] = AveragePool(stride=stride, padding=style.padding)
    elif style.shortcut == "avg_down" and stride > 1:
        parts["pool"] = nn.AvgPool2d(2, stride, ceil_mode=True, count_include_pad=False)
    parts["0"] = _conv(ins, outs, 1, stride=1 if "pool" in parts else stride)
    parts["1"] = BatchNorm(outs)
    return nn.Sequential(parts)


# What `spec` holds only where it differs: most nets have none of it.
RARE: dict[str, Any] = {
    "shortcut": None,
    "groups": 1,
    "inner": 1,
    "project": False,
    "stride_in_1x1": False,
    "stem_relu": True,
    "dilated": False,
}


def dilate(encoder: ResNet) -> ResNet:
    """A copy of `encoder` whose layer4 is at the stride of layer3 and dilated instead.

    Same tensors, another function: `ResNet` says of `dilated` how it differs from torchvision's.
    """
    changed = ResNet(**{**encoder.spec, "dilated": True})
    changed.load_state_dict(encoder.state_dict())
    return changed.to(next(encoder.parameters()).device)


def _check(
    *,
    depth: int,
    width: float,
    sk: bool,
    stem: str,
    padding: str,
    shortcut: str | None,
    groups: int,
    inner: float,
    project: bool,
    stride_in_1x1: bool,
    stem_relu: bool,
    dilated: bool,
) -> None:
    if depth not in BLOCKS:
        raise ConfigError(f"a ResNet of depth {depth} does not exist: choose one of {list(BLOCKS)}")
    for name, value, known in (
        ("stem", stem, STEM_STRIDES),
        ("padding", padding, PADDINGS),
        ("shortcut", shortcut or "conv", SHORTCUTS),
    ):
        if value not in known:
            raise ConfigError(f"{name} '{value}' is unknown: choose one of {', '.join(known)}")
    if int(64 * width) < 2:
        raise ConfigError(f"width={width} leaves no channels: give 0.03125 or more")
    if depth in BASIC and (groups != 1 or inner != 1 or stride_in_1x1):
        raise ConfigError(
            f"a ResNet of depth {depth} has no bottlenecks: groups, inner and stride_in_1x1 are "
            f"for {', '.join(str(d) for d in BLOCKS if d not in BASIC)}"
        )
    if sk and (stem != "d" or depth in BASIC or groups != 1 or inner != 1 or stride_in_1x1):
        raise ConfigError(
            f"selective kernels (sk=true) need stem=d and depth 50 or more, not stem={stem} and "
            f"depth {depth}, and neither groups, inner nor stride_in_1x1"
        )
    inside = int(int(64 * width) * inner)
    if groups < 1 or inside < 1 or inside % groups:
        raise ConfigError(f"groups={groups} does not divide the {inside} channels of a 3x3")
