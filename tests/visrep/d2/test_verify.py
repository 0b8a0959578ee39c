"""Converted weights in Detectron2's real backbones."""

import pickle
from dataclasses import replace

import pytest
import torch

from tests.oracles.detectron2_files import converted, verified
from tests.oracles.encoders import PREPROCESS, encoder_file, in_memory
from visrep.d2.verify import verify
from visrep.errors import CheckFailed

pytestmark = pytest.mark.detectron2


# net -> (arguments, tensors, those of its last stage); narrow nets are the quick ones
NATIVE = {
    "r18": ({"depth": 18, "width": 1}, 100, 25),
    "r50": ({"depth": 50, "width": 1}, 265, 50),
    "r50 narrow": ({"depth": 50, "width": 0.25}, 265, 50),
    "r101 narrow": ({"depth": 101, "width": 0.0625}, 520, 50),
    "r152 narrow": ({"depth": 152, "width": 0.0625}, 775, 50),
    "r50 grouped": ({"depth": 50, "width": 0.125, "groups": 4, "inner": 2}, 265, 50),
    "r50 wide inside": ({"depth": 50, "width": 0.125, "inner": 2}, 265, 50),
    "r50 stride in 1x1": ({"depth": 50, "width": 0.125, "stride_in_1x1": True}, 265, 50),
}
LARGE = {
    "r34": ({"depth": 34, "width": 1}, 180, 35),
    "r50 2x": ({"depth": 50, "width": 2}, 265, 50),
    "r50 3x": ({"depth": 50, "width": 3}, 265, 50),
    "r101": ({"depth": 101, "width": 1}, 520, 50),
    "r101 2x": ({"depth": 101, "width": 2}, 520, 50),
    "r152": ({"depth": 152, "width": 1}, 775, 50),
    "wide_resnet50_2": ({"depth": 50, "inner": 2}, 265, 50),
    "resnext50_32x4d": ({"depth": 50, "groups": 32, "inner": 2}, 265, 50),
    "resnext101_32x8d": ({"depth": 101, "groups": 32, "inner": 4}, 520, 50),
}
OURS = {
    "r18 narrow": ({"depth": 18, "width": 0.25}, 100, 25),
    "r18 small": ({"depth": 18, "width": 0.25, "stem": "small"}, 100, 25),
    "r34 small": ({"depth": 34, "width": 0.375, "stem": "small"}, 180, 35),
    "r50 tf": ({"depth": 50, "width": 0.25, "padding": "tf"}, 265, 50),
    "r50 d": ({"depth": 50, "width": 0.25, "stem": "d"}, 275, 50),
    "r50 sk": ({"depth": 50, "width": 0.25, "stem": "d", "sk": True, "padding": "tf"}, 371, 68),
    "r18 d": ({"depth": 18, "width": 0.25, "stem": "d"}, 110, 25),
    "r10": ({"depth": 10, "width": 0.25}, 60, 15),
    "r14": ({"depth": 14, "width": 0.25}, 85, 20),
    "r26 t": ({"depth": 26, "width": 0.25, "stem": "t"}, 155, 35),
    "r200 narrow": ({"depth": 200, "width": 0.0625}, 1015, 50),
    "r18 projected": ({"depth": 18, "width": 0.25, "project": True, "padding": "tf"}, 105, 25),
    "r50 avg_down": ({"depth": 50, "width": 0.25, "stem": "d", "shortcut": "avg_down"}, 275, 50),
    "r50 pooled": ({"depth": 50, "width": 0.25, "shortcut": "simclr", "padding": "tf"}, 265, 50),
    "r50 haiku": ({"depth": 50, "width": 0.25, "padding": "haiku"}, 265, 50),
    "r50 no stem relu": ({"depth": 50, "width": 0.25, "stem_relu": False}, 265, 50),
    "r18 small no stem relu": (
        {"depth": 18, "width": 0.25, "stem": "small", "stem_relu": False},
        100,
        25,
    ),
    "r50 d grouped": ({"depth": 50, "width": 0.25, "stem": "d", "groups": 4, "inner": 2}, 275, 50),
}
OURS_LARGE = {
    "r50 sk": ({"depth": 50, "stem": "d", "sk": True, "padding": "tf"}, 371, 68),
    "r101 2x sk": ({"depth": 101, "width": 2, "stem": "d", "sk": True, "padding": "tf"}, 728, 68),
    "r101 d": ({"depth": 101, "stem": "d"}, 530, 50),
    "r200": ({"depth": 200, "padding": "haiku"}, 1015, 50),
}


def parameters(quick: dict, large: dict) -> list:
    slow = [
        pytest.param(*values, id=name, marks=pytest.mark.slow) for name, values in large.items()
    ]
    return [*(pytest.param(*values, id=name) for name, values in quick.items()), *slow]


def check(folder, file, count: int, in_head: int, backbones: tuple[str, str]) -> None:
    """All tensors set and res2..res5 equal in FPN and C4, and said so."""
    reports = verified(folder, file)
    assert list(reports) == ["fpn", "c4"]
    for report, kind, inside in zip(reports.values(), backbones, (0, in_head), strict=True):
        assert (report.backbone, report.tensors, report.in_head) == (kind, count, inside)
        assert list(report.differences) == ["res2", "res3", "res4", "res5"]
        assert max(report.differences.values()) <= 1e-5
        assert f"{count} of {count} tensors set" in str(report)
    assert f"{in_head} of them in the C4 head" in str(reports["c4"])


@pytest.mark.parametrize(("spec", "count", "in_head"), parameters(NATIVE, LARGE))
def test_detectron2s_own_net_takes_every_tensor(tmp_path, spec, count, in_head):
    head = "VisrepResNet" if spec["depth"] in (18, 34) else "ResNet"  # its C4 has bottlenecks
    file = in_memory(**{"stem": "imagenet", "width": 1, **spec})
    check(tmp_path, file, count, in_head, ("ResNet", head))


@pytest.mark.parametrize(("spec", "count", "in_head"), parameters(OURS, OURS_LARGE))
def test_our_net_takes_every_tensor(tmp_path, spec, count, in_head):
    file = in_memory(**{"stem": "imagenet", "width": 1, **spec})
    check(tmp_path, file, count, in_head, ("VisrepResNet", "VisrepResNet"))


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


@pytest.mark.parametrize(
    "convention",
    [
        {"channel_order": "BGR", "range": (0, 255), "mean": (103.53, 116.28, 123.675)},  # MSRA
        {"channel_order": "BGR", "range": (0, 255), "mean": (103.53,) * 3, "std": (57.375,) * 3},
        {"mean": (0, 0, 0)},  # SimCLR
        {"range": (-1, 1), "mean": (0, 0, 0)},
        {"std": (0.228, 0.224, 0.225)},  # SwAV
    ],
    ids=lambda convention: " ".join(convention),
)
def test_every_input_convention_is_converted_as_such(tmp_path, convention):
    preprocess = replace(PREPROCESS, **{"std": (1, 1, 1), **convention})
    file = in_memory(preprocess=preprocess, depth=50, stem="imagenet", stride_in_1x1=True)
    check(tmp_path, file, 265, 50, ("ResNet", "ResNet"))


def test_a_dilated_res5_has_its_tensors_set(tmp_path):
    file = converted(tmp_path, task="voc0712_dc5", depth=50, stem="imagenet")
    report = verify(tmp_path / "x.pkl", file)
    assert (report.head, report.tensors) == ("plain", 265)
    assert list(report.differences) == ["res2", "res3", "res4"]


def test_a_c4_head_that_misses_tensors_is_refused(tmp_path):
    file = converted(tmp_path, task="voc0712_c4", depth=18, width=1, stem="imagenet")
    edit(tmp_path / "x.yaml", "build_visrep_resnet_backbone", "build_resnet_backbone")
    with pytest.raises(CheckFailed, match="Detectron2's backbone"):  # three bottlenecks, not R18's
        verify(tmp_path / "x.pkl", file)
