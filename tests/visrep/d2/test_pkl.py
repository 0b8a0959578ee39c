"""Names, files and configs for Detectron2, without Detectron2."""

import pickle
import random

import numpy as np
import pytest
import torch

from tests.oracles.encoders import PREPROCESS, encoder_file, head, net
from tests.oracles.small_disk import small_disk
from visrep.d2 import pkl as d2
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.weights import read_weights, save_encoder
from visrep.weights.encoder_file import build, shapes_of


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.weight", "stem.conv1.weight"),
        ("bn1.running_mean", "stem.conv1.norm.running_mean"),
        ("layer1.0.conv1.weight", "res2.0.conv1.weight"),
        ("layer4.22.bn3.bias", "res5.22.conv3.norm.bias"),
        ("layer3.0.downsample.0.weight", "res4.0.shortcut.weight"),
        ("layer3.0.downsample.1.weight", "res4.0.shortcut.norm.weight"),
    ],
)
def test_names_are_detectron2s(name, expected):
    assert d2.detectron2_name(name, stem="imagenet") == expected
    assert d2.detectron2_name(name, stem="small") == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("conv1.0.weight", "stem.conv1.weight"),
        ("conv1.1.bias", "stem.conv1.norm.bias"),
        ("conv1.3.weight", "stem.conv2.weight"),
        ("conv1.4.bias", "stem.conv2.norm.bias"),
        ("conv1.6.weight", "stem.conv3.weight"),
        ("bn1.bias", "stem.conv3.norm.bias"),
        ("layer1.0.sk.bn.weight", "res2.0.sk.conv.norm.weight"),
        ("layer1.0.sk.squeeze_bn.weight", "res2.0.sk.squeeze.norm.weight"),
    ],
)
def test_names_of_the_deep_stem_and_of_selective_kernels(name, expected):
    assert d2.detectron2_name(name, stem="d") == expected


@pytest.mark.parametrize(
    "name", ["fc.weight", "head.layers.0.linear.weight", "layer5.0.conv1.weight", "conv1.0.weight"]
)
def test_a_name_of_no_resnet_is_not_translated(name):
    with pytest.raises(KeyError):
        d2.detectron2_name(name, stem="imagenet")


SPECS = [
    {"depth": 18, "width": 1, "sk": False, "stem": "imagenet", "padding": "torch"},
    {"depth": 34, "width": 0.5, "sk": False, "stem": "cifar", "padding": "torch"},
    {"depth": 152, "width": 3, "sk": True, "stem": "d", "padding": "tf"},
    {"depth": 101, "width": 1, "sk": False, "stem": "d", "padding": "torch"},
    {"depth": 14, "width": 1, "sk": False, "stem": "t", "padding": "haiku", "shortcut": "avg_down"},
    {"depth": 10, "width": 1, "sk": False, "stem": "imagenet", "padding": "tf", "project": True},
]


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: f"r{spec['depth']}-{spec['stem']}")
def test_no_two_tensors_share_a_name(spec):
    names = shapes_of(build(spec))
    translated = {d2.detectron2_name(name, stem=spec["stem"]) for name in names}
    assert len(translated) == len(names)
    assert all(
        name.startswith(("stem.", "res2.", "res3.", "res4.", "res5.")) for name in translated
    )


@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"depth": 50, "stem": "imagenet"},
        {"depth": 50, "stem": "d", "sk": True},
        {"depth": 26, "stem": "t", "groups": 2, "inner": 2, "padding": "haiku"},
        {"depth": 10, "stem": "imagenet", "project": True},
    ],
    ids=["r18", "r50", "sk", "r26", "r10"],
)
def test_the_way_back_is_exact(tmp_path, spec):
    file = encoder_file(tmp_path / "encoder.safetensors", **spec)
    d2.write_pkl(tmp_path / "x.pkl", file)
    back = d2.read_pkl(tmp_path / "x.pkl")
    assert back.sha256 == file.sha256
    assert back.tensors.keys() == file.tensors.keys()
    assert all(torch.equal(back.tensors[name], file.tensors[name]) for name in file.tensors)
    assert (back.backbone, back.preprocess, back.source) == (
        *(file.backbone, file.preprocess, file.source),
    )


def test_the_pkl_is_what_detectron2_expects(tmp_path):
    encoder = net()
    save_encoder(
        tmp_path / "e.safetensors",
        encoder=encoder,
        preprocess=PREPROCESS,
        head=head(encoder),
        source={"method": "x"},
    )
    file = read_weights(tmp_path / "e.safetensors")
    d2.write_pkl(tmp_path / "x.pkl", file)
    with open(tmp_path / "x.pkl", "rb") as stream:
        content = pickle.load(stream, encoding="latin1")  # as Detectron2 does
    assert content["__author__"] == "visrep"
    assert content["matching_heuristics"] is True
    assert content["visrep"]["sha256"] == file.sha256
    assert content["visrep"]["preprocess"] == PREPROCESS.to_dict()
    model = content["model"]
    assert all(type(array) is np.ndarray and array.dtype == np.float32 for array in model.values())
    assert len(model) == len(file.part("")) == 100
    assert np.array_equal(model["res3.1.conv2.weight"], encoder.layer2[1].conv2.weight.detach())


def test_a_damaged_or_foreign_pkl_is_refused(tmp_path):
    path = tmp_path / "x.pkl"
    file = encoder_file(tmp_path / "encoder.safetensors")
    d2.write_pkl(path, file)
    whole = path.read_bytes()
    rng = random.Random(0)
    for size in [0, 1, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(10))]:
        path.write_bytes(whole[:size])
        with pytest.raises(UserError, match=r"x\.pkl"):
            d2.read_pkl(path)
    content = pickle.loads(whole)
    stranger = {key: value for key, value in content.items() if key != "visrep"}
    lacking = {**content, "model": {k: v for k, v in content["model"].items() if "res5" not in k}}
    more = {**content, "model": {**content["model"], "res9.weight": np.zeros(1)}}
    for changed, word in (
        (stranger, "no Detectron2 file that visrep wrote"),
        ([1, 2], "no Detectron2 file that visrep wrote"),
        (lacking, "it lacks layer4.0.bn1.bias and"),
        (more, "unknown res9.weight"),
        ({**content, "visrep": {**content["visrep"], "backbone": {"stem": 1}}}, "inconsistent"),
        ({**content, "visrep": {"format": d2.FORMAT}}, "inconsistent"),
        ({**content, "model": {"stem.conv1.weight": "text"}}, "inconsistent"),
    ):
        path.write_bytes(pickle.dumps(changed))
        with pytest.raises(UserError, match=word):
            d2.read_pkl(path)


def test_a_full_disk_leaves_nothing(tmp_path):
    file = encoder_file(tmp_path / "encoder.safetensors")
    with small_disk(50_000), pytest.raises(UserError, match="cannot write"):
        d2.write_pkl(tmp_path / "out" / "x.pkl", file)
    assert not list((tmp_path / "out").iterdir())


@pytest.mark.parametrize(
    ("spec", "native"),
    [
        ({"depth": 18}, True),
        ({"depth": 34}, True),
        ({"depth": 18, "width": 0.5}, False),
        ({"depth": 34, "width": 2}, False),
        ({"depth": 50, "width": 0.25}, True),
        ({"depth": 152, "width": 3}, True),
        ({"depth": 50, "padding": "tf"}, False),
        ({"depth": 50, "stem": "d"}, False),
        ({"depth": 50, "stem": "d", "sk": True}, False),
        ({"depth": 18, "stem": "small"}, False),
        ({"depth": 50, "groups": 32, "inner": 2}, True),
        ({"depth": 101, "inner": 2, "stride_in_1x1": True}, True),
        ({"depth": 50, "width": 0.0625, "inner": 0.3}, False),  # 1.2 channels of 3x3
        ({"depth": 50, "shortcut": "avg_down"}, False),
        ({"depth": 50, "padding": "haiku"}, False),
        ({"depth": 18, "project": True}, False),
        ({"depth": 26}, False),
        ({"depth": 200}, False),
    ],
)
def test_which_nets_detectron2_holds_itself(spec, native):
    with torch.device("meta"):
        assert d2.native(ResNet(**spec).spec) is native


def test_the_cifar_stem_needs_a_word():
    cifar = build({"depth": 18, "width": 1, "sk": False, "stem": "cifar", "padding": "torch"}).spec
    with pytest.raises(ConfigError, match="give stem_stride=2"):
        d2.with_stem_stride(cifar, None)
    with pytest.raises(ConfigError, match="not 4"):
        d2.with_stem_stride(cifar, 4)
    changed = d2.with_stem_stride(cifar, 2)
    assert build(changed).strides == (2, 4, 8, 16)
    assert shapes_of(build(changed)) == shapes_of(build(cifar))
    padded = {**cifar, "stem": "cifar_pad2"}
    with pytest.raises(ConfigError, match="give stem_stride=2"):
        d2.with_stem_stride(padded, None)
    assert d2.with_stem_stride(padded, 2) == changed
    small = {**cifar, "stem": "small"}
    assert d2.with_stem_stride(small, None) == small
    with pytest.raises(ConfigError, match="leave it out"):
        d2.with_stem_stride(small, 2)


def test_the_settings_of_a_net_that_detectron2_holds(tmp_path):
    file = encoder_file(tmp_path / "e.safetensors", depth=50, stem="imagenet")
    config = d2.settings(file)
    model = config["MODEL"]
    assert model["BACKBONE"] == {"NAME": "build_resnet_backbone", "FREEZE_AT": 0}
    assert model["PIXEL_MEAN"] == [123.675, 116.28, 103.53]
    assert model["PIXEL_STD"] == [58.395, 57.12, 57.375]
    assert config["INPUT"]["FORMAT"] == "RGB"
    assert model["RESNETS"] == {
        "DEPTH": 50,
        "STEM_OUT_CHANNELS": 4,
        "NUM_GROUPS": 1,
        "WIDTH_PER_GROUP": 4,
        "RES2_OUT_CHANNELS": 16,
        "STRIDE_IN_1X1": False,
        "NORM": "SyncBN",
    }
    assert "VISREP" not in model
    assert "VISREP" in d2.settings(file, own=False)["MODEL"]


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"groups": 32, "inner": 2}, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4}),  # 32x4d
        ({"depth": 101, "groups": 32, "inner": 4}, {"NUM_GROUPS": 32, "WIDTH_PER_GROUP": 8}),
        ({"inner": 2}, {"WIDTH_PER_GROUP": 128, "STEM_OUT_CHANNELS": 64}),  # wide_resnet50_2
        ({"width": 3}, {"WIDTH_PER_GROUP": 192, "RES2_OUT_CHANNELS": 768}),
        ({"stride_in_1x1": True}, {"STRIDE_IN_1X1": True}),
        ({"depth": 34}, {"RES2_OUT_CHANNELS": 64, "DEPTH": 34}),
    ],
)
def test_shapes_in_detectron2s_words(spec, expected):
    with torch.device("meta"):
        words = d2.resnets(ResNet(**spec).spec)
    assert words | expected == words


def test_the_node_of_a_net_that_detectron2_cannot_hold(tmp_path):
    file = encoder_file(tmp_path / "e.safetensors")
    model = d2.settings(file, norm="BN")["MODEL"]
    assert model["BACKBONE"]["NAME"] == "build_visrep_resnet_backbone"
    assert model["VISREP"] == {
        "DEPTH": 18,
        "WIDTH": 0.0625,
        "SK": False,
        "STEM": "small",
        "PADDING": "torch",
    }
    with torch.device("meta"):
        rare = ResNet(stem="t", shortcut="avg_down", groups=2, inner=2, padding="haiku").spec
    node = d2.visrep_node(rare)
    assert (node["SHORTCUT"], node["GROUPS"], node["INNER"]) == ("avg_down", 2, 2.0)
    assert isinstance(node["INNER"], float) and isinstance(node["WIDTH"], float)


def test_pixels_follow_the_encoders_convention(tmp_path):
    plain = Preprocess(size=224, resize=256, mean=(0, 0, 0), std=(1, 1, 1))
    assert d2.pixel_statistics(plain) == ([0, 0, 0], [255, 255, 255])
    signed = Preprocess(size=224, resize=256, mean=(0, 0, 0), std=(1, 1, 1), range=(-1, 1))
    assert d2.pixel_statistics(signed) == ([127.5] * 3, [127.5] * 3)
    caffe = Preprocess(
        size=224,
        resize=256,
        mean=(103.53, 116.28, 123.675),
        std=(1, 1, 1),
        range=(0, 255),
        channel_order="BGR",
    )
    assert d2.pixel_statistics(caffe) == ([103.53, 116.28, 123.675], [1, 1, 1])
    file = encoder_file(tmp_path / "e.safetensors", preprocess=caffe)
    assert d2.settings(file)["INPUT"]["FORMAT"] == "BGR"


def test_norms(tmp_path):
    file = encoder_file(tmp_path / "e.safetensors")
    with pytest.raises(ConfigError, match="norm=GN: choose one of SyncBN"):
        d2.settings(file, norm="GN")


def test_nets_in_words():
    assert d2.describe(SPECS[0]) == "ResNet-18"
    assert d2.describe(SPECS[1]) == "ResNet-34 of width 0.5 with the cifar stem"
    assert d2.describe(SPECS[2]) == (
        "ResNet-152 of width 3 with selective kernels and the d stem and TF padding"
    )
    with torch.device("meta"):
        resnext = ResNet(groups=32, inner=2, stem="t", shortcut="avg_down", padding="haiku").spec
        wide = ResNet(depth=101, inner=2, stride_in_1x1=True).spec
        projected = ResNet(depth=18, project=True).spec
    assert d2.describe(resnext) == (
        "ResNeXt-50 32x4d with the t stem and avg_down shortcuts and haiku padding"
    )
    assert d2.describe(wide) == (
        "ResNet-101 with 3x3 convolutions 2 times as wide and the stride in the 1x1"
    )
    assert d2.describe(projected) == "ResNet-18 with a projection in every stage"
