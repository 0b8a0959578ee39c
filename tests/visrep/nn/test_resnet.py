import copy
import itertools
import json
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from torch import Tensor, nn

from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import ResNet, SelectiveKernel, dilate, mix_branches
from visrep.paths import config_dir

# SimCLR v2, counted: parameters, batch-norm channels, with statistics, convolutions, batch norms
COUNTS = {
    "resnet50": (23_508_032, 26_560, 23_561_152, 53, 53),
    "resnet50_sk": (35_215_584, 30_912, 35_277_408, 87, 71),
    "resnet50_2x": (93_907_072, 53_120, 94_013_312, 53, 53),
    "resnet50_2x_sk": (140_306_048, 61_408, 140_428_864, 87, 71),
    "resnet101": (42_500_160, 52_672, 42_605_504, 104, 104),
    "resnet101_sk": (64_662_304, 61_920, 64_786_144, 172, 139),
    "resnet101_2x": (169_771_136, 105_344, 169_981_824, 104, 104),
    "resnet101_2x_sk": (257_132_224, 122_880, 257_377_984, 172, 139),
    "resnet152": (58_143_808, 75_712, 58_295_232, 155, 155),
    "resnet152_sk": (88_940_896, 89_344, 89_119_584, 257, 207),
    "resnet152_2x": (232_253_568, 151_424, 232_556_416, 155, 155),
    "resnet152_2x_sk": (353_398_528, 177_184, 353_752_896, 257, 207),
    "resnet152_3x_sk": (794_704_160, 265_600, 795_235_360, 257, 207),
}
SMALL = {  # parameters, output width, strides
    "resnet18": (11_176_512, 512, (4, 8, 16, 32)),
    "resnet34": (21_284_672, 512, (4, 8, 16, 32)),
    "resnet18_cifar": (11_168_832, 512, (1, 2, 4, 8)),
    "resnet18_small": (11_168_832, 512, (2, 4, 8, 16)),
    "resnet10_small_w4": (307_536, 128, (2, 4, 8, 16)),
    "resnet18_small_w4": (700_176, 128, (2, 4, 8, 16)),
    "resnet18_small_w8": (175_752, 64, (2, 4, 8, 16)),
}


def _from_config(name: str) -> ResNet:
    arguments: dict[str, Any] = yaml.safe_load(
        (Path(config_dir()) / "backbone" / f"{name}.yaml").read_text()
    )
    module, cls = arguments.pop("_target_").rsplit(".", 1)
    with torch.device("meta"):
        return getattr(import_module(module), cls)(**arguments)


@pytest.mark.parametrize("name", COUNTS)
def test_counts_of_the_simclr_v2_nets(name: str) -> None:
    net = _from_config(name)
    parameters = sum(p.numel() for p in net.parameters())
    norms = [m for m in net.modules() if isinstance(m, BatchNorm)]
    channels = sum(m.num_features for m in norms)
    convs = sum(isinstance(m, nn.Conv2d) for m in net.modules())
    statistics = sum(b.numel() for n, b in net.named_buffers() if "running" in n)
    assert statistics == 2 * channels
    assert (parameters, channels, parameters + statistics, convs, len(norms)) == COUNTS[name]
    width = 2048 * int(net.spec["width"])
    assert net.out_dim == width and net.channels == (width // 8, width // 4, width // 2, width)
    assert net.spec["sk"] == ("_sk" in name)


@pytest.mark.parametrize("name", SMALL)
def test_counts_of_the_other_configs(name: str) -> None:
    net = _from_config(name)
    assert (sum(p.numel() for p in net.parameters()), net.out_dim, net.strides) == SMALL[name]


def test_every_config_is_counted() -> None:
    names = {path.stem for path in (Path(config_dir()) / "backbone").glob("*.yaml")}
    assert names == COUNTS.keys() | SMALL.keys()


# torchvision


def _pair(depth: int) -> tuple[ResNet, nn.Module]:
    torch.manual_seed(depth)
    theirs = getattr(torchvision.models, f"resnet{depth}")()
    theirs.fc = nn.Identity()
    with torch.no_grad():
        for name, tensor in theirs.state_dict().items():
            if tensor.dim() == 1:  # norms that do something, in every block
                tensor.copy_(0.5 + torch.rand(tensor.shape) * (0.2 if "weight" in name else 1))
    ours = ResNet(depth=depth)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(theirs.state_dict())
    return ours, theirs


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
def test_equal_to_torchvision_in_eval(depth: int) -> None:
    ours, theirs = (net.eval() for net in _pair(depth))
    x = torch.randn(2, 3, 65, 48)
    for layout in (torch.contiguous_format, torch.channels_last):
        got, expected = (
            net.to(memory_format=layout)(x.to(memory_format=layout)) for net in (ours, theirs)
        )
        assert torch.equal(got, expected) and got.std() > 0.01


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("depth", [18, 50])
def test_equal_to_torchvision_in_training(depth: int, layout: torch.memory_format) -> None:
    x = torch.randn(3, 3, 64, 64).to(memory_format=layout)
    grads, states = [], []
    for net in _pair(depth):
        net.to(memory_format=layout)
        net(x).square().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters()})
        states.append(net.state_dict())
    for got, expected in (grads, states):
        assert got.keys() == expected.keys()
        for name, tensor in expected.items():
            assert torch.equal(got[name], tensor), name
    assert grads[0]["conv1.weight"].abs().max() > 0


# shapes


@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
@pytest.mark.parametrize(
    "spec",
    [
        {"depth": 18, "width": 0.25},
        {"depth": 18, "width": 0.25, "stem": "small"},
        {"depth": 34, "width": 0.125, "stem": "cifar"},
        {"depth": 18, "width": 0.25, "stem": "d"},
        {"depth": 50, "width": 0.125, "stem": "imagenet", "padding": "tf"},
        {"depth": 50, "width": 0.125, "stem": "d", "sk": True, "padding": "tf"},
        {"depth": 50, "width": 0.125, "stem": "d", "sk": True},
        {"depth": 18, "width": 0.25, "stem": "small", "dilated": True},
        {"depth": 50, "width": 0.125, "stem": "d", "sk": True, "padding": "tf", "dilated": True},
    ],
)
def test_maps_have_the_declared_strides_and_channels(
    spec: dict[str, Any], size: tuple[int, int]
) -> None:
    net = ResNet(**spec).eval()
    x = torch.randn(2, 3, *size)
    maps = net.feature_maps(x)
    assert len(maps) == 4
    for feature, stride, channels in zip(maps, net.strides, net.channels, strict=True):
        assert feature.shape == (2, channels, -(-size[0] // stride), -(-size[1] // stride))
    features = net(x)
    assert features.shape == (2, net.out_dim)
    torch.testing.assert_close(features, maps[-1].mean((2, 3)))


def test_spec_rebuilds_the_net() -> None:
    net = ResNet(depth=50, width=0.25, sk=True, stem="d", padding="tf")
    again = ResNet(**json.loads(json.dumps(net.spec)))
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 3, 32, 32)
    assert torch.equal(again.eval()(x), net.eval()(x)) and again.spec == net.spec
    assert net.spec == {"depth": 50, "width": 0.25, "sk": True, "stem": "d", "padding": "tf"}


@pytest.mark.parametrize(
    "spec",
    [
        {"depth": 18, "width": 0.25},
        {"depth": 50, "width": 0.125},
        {"depth": 50, "width": 0.125, "stride_in_1x1": True},
        {"depth": 50, "width": 0.25, "groups": 2, "inner": 2},
        {"depth": 50, "width": 0.125, "stem": "imagenet", "padding": "haiku"},
    ],
)
def test_a_dilated_net_is_the_same_tensors_at_the_stride_of_layer3(spec: dict[str, Any]) -> None:
    """Each 3x3 of layer4, run on every second row and column by itself, is what dilation means."""
    net = ResNet(**spec, zero_init_residual=False).eval()
    wide = dilate(net).eval()
    assert wide.strides == (4, 8, 16, 16) and wide.spec == {**net.spec, "dilated": True}
    assert net.strides == (4, 8, 16, 32) and "dilated" not in net.spec
    for name, tensor in net.state_dict().items():
        assert torch.equal(wide.state_dict()[name], tensor)
    x = torch.randn(1, net.channels[2], 8, 10)
    with torch.no_grad():
        got, want = wide.layer4(x), torch.zeros(1, net.out_dim, 8, 10)
        for module in net.layer4.modules():
            if isinstance(module, nn.Conv2d):
                module.stride = (1, 1)
        for row, column in itertools.product(range(2), range(2)):
            want[..., row::2, column::2] = net.layer4(x[..., row::2, column::2])
    torch.testing.assert_close(got, want)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"depth": 20}, "depth 20 does not exist"),
        ({"stem": "vgg"}, "stem 'vgg' is unknown"),
        ({"padding": "same"}, "padding 'same' is unknown"),
        ({"width": 0.01}, "width=0.01 leaves no channels"),
        ({"sk": True}, "need stem=d"),
        ({"sk": True, "stem": "d", "depth": 34}, "depth 50 or more"),
    ],
)
def test_what_does_not_exist_is_refused(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        ResNet(**arguments)


# start, padding, selective kernels


@pytest.mark.parametrize(
    "spec",
    [
        {"depth": 18, "width": 0.25},
        {"depth": 50, "width": 0.125},
        {"depth": 50, "width": 0.125, "sk": True, "stem": "d", "padding": "tf"},
    ],
)
def test_a_fresh_block_is_the_relu_of_its_shortcut(spec: dict[str, Any]) -> None:
    net = ResNet(**spec)
    blocks = 0
    x = net.maxpool(net.relu(net.bn1(net.conv1(torch.randn(4, 3, 64, 64)))))
    for layer in (net.layer1, net.layer2, net.layer3, net.layer4):
        for block in layer:
            shortcut = x if block.downsample is None else copy.deepcopy(block.downsample)(x)
            x = block(x)
            assert torch.equal(x, F.relu(shortcut)) and x.max() > 0
            blocks += 1
    assert blocks == (8 if spec["depth"] == 18 else 16)
    gammas = [
        m.weight
        for m in ResNet(**spec, zero_init_residual=False).modules()
        if isinstance(m, BatchNorm)
    ]
    assert all((gamma == 1).all() for gamma in gammas)


def test_convolutions_start_as_he_normal_by_fan_out() -> None:
    torch.manual_seed(0)
    weight = ResNet(depth=18).layer3[1].conv1.weight
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


def test_the_tf_net_differs_in_its_pools_only() -> None:
    torch.manual_seed(0)
    spec = {"depth": 50, "width": 0.125, "sk": True, "stem": "d", "zero_init_residual": False}
    pt, tf = ResNet(**spec, padding="torch").eval(), ResNet(**spec, padding="tf").eval()
    tf.load_state_dict(pt.state_dict())
    x = torch.randn(2, 3, 64, 64)
    assert (pt(x) - tf(x)).norm() > 0.01 * pt(x).norm()
    tf.maxpool = pt.maxpool
    assert (pt(x) - tf(x)).norm() > 1e-3 * pt(x).norm()
    tf.layer1[0].downsample.pool = pt.layer1[0].downsample.pool
    assert torch.equal(pt(x), tf(x))


def test_the_shortcut_of_resnet_d() -> None:
    names = ResNet(depth=18, stem="d").state_dict().keys()
    assert "layer2.0.downsample.0.weight" in names and "layer2.0.downsample.1.weight" in names
    assert not any("downsample" in name for name in names if name.startswith("layer1"))
    block = ResNet(depth=18, stem="d").layer2[0]
    x = torch.randn(2, 64, 8, 8)
    expected = block.downsample[2](F.conv2d(F.avg_pool2d(x, 2), block.downsample[1].weight))
    assert torch.equal(block.downsample(x), expected)


def test_branches_are_mixed_by_the_softmax_of_their_logits() -> None:
    branches = torch.tensor([2.0, 4.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 5, 5)
    logits = torch.tensor([1.0, 0.0]).view(1, 2, 1, 1, 1).expand(1, 2, 3, 1, 1)
    expected = torch.full((1, 3, 5, 5), 2.537883)
    torch.testing.assert_close(mix_branches(branches, logits), expected)
    assert torch.equal(
        mix_branches(branches, torch.zeros_like(logits)), torch.full_like(expected, 3)
    )


@pytest.mark.parametrize("stride", [1, 2])
def test_selective_kernel_by_its_description(stride: int) -> None:
    torch.manual_seed(0)
    width = 6
    unit = SelectiveKernel(width, stride=stride).double()
    x = torch.randn(5, width, 8, 8, dtype=torch.float64)

    def norm(x: Tensor) -> Tensor:  # training-mode batch norm with gamma 1, beta 0
        var, mean = torch.var_mean(x, (0, 2, 3), correction=0, keepdim=True)
        return (x - mean) / (var + 1e-5).sqrt()

    both = norm(F.conv2d(x, unit.conv.weight, stride=stride, padding=1)).relu()
    one, two = both[:, :width], both[:, width:]
    pooled = (one + two).mean((2, 3), keepdim=True)
    squeezed = norm(F.conv2d(pooled, unit.squeeze.weight)).relu()
    assert squeezed.shape[1] == 32  # the floor
    logits = F.conv2d(squeezed, unit.excite.weight)
    share = torch.sigmoid(logits[:, :width] - logits[:, width:])
    torch.testing.assert_close(unit(x), share * one + (1 - share) * two)
    nn.init.zeros_(unit.excite.weight)
    torch.testing.assert_close(unit(x), (one + two) / 2)


def test_a_narrow_net_trains_on_large_maps_without_writing_past_its_memory():
    """The gradient of a strided 1x1 convolution of 8 channels did, in oneDNN."""
    script = (
        "import torch; from visrep.nn.resnet import ResNet\n"
        "torch.set_num_threads(1)\n"
        "net = ResNet(depth=18, width=0.125, stem='small').to(memory_format=torch.channels_last)\n"
        "for _ in range(3):\n"
        "    maps = net.feature_maps(torch.randn(2, 3, 128, 160))\n"
        "    sum(m.mean() for m in maps).backward()\n"
        "junk = [torch.randn(1000 + i) for i in range(3000)]\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_narrow_shortcut_is_the_strided_convolution():
    torch.manual_seed(0)
    x = torch.randn(2, 8, 9, 12)
    conv = ResNet(depth=18, width=0.125).layer2[0].downsample[0]
    torch.testing.assert_close(conv(x), F.conv2d(x, conv.weight, stride=2))


def test_a_stem_without_relu_lets_negative_values_through():
    with_relu, without = (
        ResNet(
            depth=18, width=0.0625, stem="cifar", stem_relu=relu, zero_init_residual=False
        ).eval()
        for relu in (True, False)
    )
    without.load_state_dict(with_relu.state_dict())
    assert with_relu.spec.get("stem_relu") is None
    assert without.spec["stem_relu"] is False
    images = torch.randn(1, 3, 16, 16)
    stem = without.bn1(without.conv1(images))
    assert stem.min() < 0
    expected = without.layer4(without.layer3(without.layer2(without.layer1(stem)))).mean((2, 3))
    torch.testing.assert_close(without(images), expected)
    assert not torch.allclose(with_relu(images), expected)
