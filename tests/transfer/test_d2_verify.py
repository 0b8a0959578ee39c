"""Converted weights in Detectron2's real backbones."""

import pickle
import sys

import pytest
import torch

from tests.oracles.detectron2_files import converted
from tests.oracles.encoders import PREPROCESS, encoder_file
from transfer.d2_verify import unavailable, verify
from visrep.errors import CheckFailed

pytestmark = pytest.mark.detectron2


NATIVE = {
    "r18": ({"depth": 18, "width": 1, "stem": "imagenet"}, 100),
    "r50": ({"depth": 50, "width": 1, "stem": "imagenet"}, 265),
    "r50 narrow": ({"depth": 50, "width": 0.25, "stem": "imagenet"}, 265),
    "r101 narrow": ({"depth": 101, "width": 0.0625, "stem": "imagenet"}, 520),
    "r152 narrow": ({"depth": 152, "width": 0.0625, "stem": "imagenet"}, 775),
}
LARGE = {
    "r34": ({"depth": 34, "width": 1, "stem": "imagenet"}, 180),
    "r50 2x": ({"depth": 50, "width": 2, "stem": "imagenet"}, 265),
    "r101": ({"depth": 101, "width": 1, "stem": "imagenet"}, 520),
    "r152": ({"depth": 152, "width": 1, "stem": "imagenet"}, 775),
}
OURS = {
    "r18 narrow": ({"depth": 18, "width": 0.25, "stem": "imagenet"}, 100),
    "r18 small": ({"depth": 18, "width": 0.25, "stem": "small"}, 100),
    "r34 small": ({"depth": 34, "width": 0.375, "stem": "small"}, 180),
    "r50 tf": ({"depth": 50, "width": 0.25, "stem": "imagenet", "padding": "tf"}, 265),
    "r50 d": ({"depth": 50, "width": 0.25, "stem": "d"}, 275),
    "r50 sk": ({"depth": 50, "width": 0.25, "stem": "d", "sk": True, "padding": "tf"}, 371),
    "r18 d": ({"depth": 18, "width": 0.25, "stem": "d"}, 110),
}


@pytest.mark.parametrize(
    "name", [*NATIVE, *(pytest.param(name, marks=pytest.mark.slow) for name in LARGE)]
)
def test_detectron2s_own_backbone_takes_every_tensor(tmp_path, name):
    spec, count = (NATIVE | LARGE)[name]
    report = verify(tmp_path / "x.pkl", converted(tmp_path, **spec))
    assert report.backbone == "ResNet"
    assert report.tensors == count
    assert list(report.differences) == ["res2", "res3", "res4", "res5"]
    assert max(report.differences.values()) <= 1e-5
    assert f"{count} of {count} tensors set" in str(report)


@pytest.mark.parametrize("name", OURS)
def test_our_backbone_takes_every_tensor(tmp_path, name):
    spec, count = OURS[name]
    report = verify(tmp_path / "x.pkl", converted(tmp_path, **spec))
    assert report.backbone == "VisrepResNet"
    assert report.tensors == count
    assert max(report.differences.values()) <= 1e-5


@pytest.mark.parametrize("norm", ["BN", "naiveSyncBN", "FrozenBN"])
@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_every_norm_keeps_the_statistics(tmp_path, norm, stem):
    file = converted(tmp_path, norm=norm, depth=50, width=0.0625, stem=stem)
    report = verify(tmp_path / "x.pkl", file)
    assert report.tensors == 265
    assert max(report.differences.values()) <= 1e-5


def edit(path, before: str, after: str) -> None:
    text = path.read_text()
    assert before in text
    path.write_text(text.replace(before, after))


@pytest.mark.parametrize(
    ("before", "after", "message"),
    [
        ("STRIDE_IN_1X1: false", "STRIDE_IN_1X1: true", r"res\d differs by 0\.\d"),
        ("FORMAT: RGB", "FORMAT: BGR", "pixels are not those"),
        ("PIXEL_STD: [58.395, 57.12, 57.375]", "PIXEL_STD: [1.0, 1.0, 1.0]", "pixels are not"),
        ("PIXEL_MEAN: [123.675, 116.28, 103.53]", "PIXEL_MEAN: [103.53, 116.28, 123.675]", "pix"),
        ("DEPTH: 50", "DEPTH: 101", "265 of 520 tensors set"),
        (
            "WIDTH_PER_GROUP: 4",
            "WIDTH_PER_GROUP: 8",
            "res2.0.conv1.norm.bias is|res2.0.conv1.weight is",
        ),
        ("DEPTH: 50", "DEPTH: 18", "Detectron2 does not take it: Must set"),
        ("DEPTH: 50", "DEPHT: 50", "Detectron2 does not take it"),
        ("build_resnet_fpn_backbone", "build_other_backbone", "Detectron2 does not take it"),
        ("NORM: SyncBN\n    OUT", "NORM: GN\n    OUT", "of 159 tensors set"),
    ],
)
def test_a_wrong_config_is_refused(tmp_path, before, after, message):
    # 32 channels divide into GN's groups; everything else needs no width.
    width = 0.5 if "GN" in after else 0.0625
    file = converted(tmp_path, depth=50, width=width, stem="imagenet")
    edit(tmp_path / "x.yaml", before, after)
    with pytest.raises(CheckFailed, match=message) as caught:
        verify(tmp_path / "x.pkl", file)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_wrong_weights_are_refused(tmp_path, stem):
    file = converted(tmp_path, depth=50, stem=stem)
    path = tmp_path / "x.pkl"
    with open(path, "rb") as stream:
        content = pickle.load(stream)

    def check(model: dict, message: str) -> None:
        path.write_bytes(pickle.dumps({**content, "model": model}))
        with pytest.raises(CheckFailed, match=message):
            verify(path, file)

    model = content["model"]
    without = {k: v for k, v in model.items() if k != "res4.2.conv1.weight"}
    check(without, r"264 of 265 tensors set.*res4.2.conv1.weight is not set")
    check({**model, "head.weight": model["stem.conv1.weight"]}, "head.weight has no place")
    check({**model, "stem.conv1.weight": model["stem.conv1.weight"] * 1.001}, r"res\d differs by")
    check(
        {**model, "stem.conv1.weight": model["stem.conv1.weight"][:2]}, r"stem.conv1.weight is \(2,"
    )


def test_the_check_leaves_random_numbers_and_logs_alone(tmp_path, caplog, capsys):
    converted(tmp_path, norm="BN")
    encoder_file(tmp_path / "e.safetensors")
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    verify(tmp_path / "x.pkl", tmp_path / "e.safetensors")
    assert torch.equal(torch.rand(3), expected)
    assert not [record for record in caplog.records if record.levelname == "WARNING"]
    assert capsys.readouterr().out == ""


def test_bgr_encoders_are_converted_as_such(tmp_path):
    from dataclasses import replace

    preprocess = replace(
        PREPROCESS,
        channel_order="BGR",
        range=(0, 255),
        mean=(103.53, 116.28, 123.675),
        std=(1,) * 3,
    )
    file = converted(tmp_path, preprocess=preprocess)
    assert verify(tmp_path / "x.pkl", file).tensors == 100


def test_a_detectron2_that_does_not_import_is_named(monkeypatch):
    assert unavailable() is None
    monkeypatch.setitem(sys.modules, "detectron2.modeling", None)
    assert unavailable().startswith("Detectron2 cannot be imported (import of detectron2.modeling")
