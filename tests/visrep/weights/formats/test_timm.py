"""timm's nets in and out, compared with timm's own classes where it is installed."""

import pytest
import torch
from omegaconf import OmegaConf
from safetensors.torch import load_file, save_file

from tests.oracles.encoders import in_memory, net, numbered, stir
from visrep import convert
from visrep.errors import UserError
from visrep.nn.resnet import ResNet
from visrep.paths import config_dir
from visrep.weights import load_encoder, read_weights
from visrep.weights.encoder_file import write_encoder
from visrep.weights.formats import timm as format_

SLOW = pytest.mark.slow
SPECS = {
    "resnet18": {"depth": 18},
    "resnet34d": {"depth": 34, "stem": "d", "shortcut": "avg_down"},
    "resnet14t": {"depth": 14, "stem": "t", "shortcut": "avg_down"},
    "resnet50c": {"depth": 50, "stem": "d", "shortcut": "conv"},
    "resnext50_32x4d": {"depth": 50, "groups": 32, "inner": 2},
    "wide_resnet50_2": {"depth": 50, "inner": 2},
}


def spec_of(name: str) -> dict:
    return {"width": 1, "stem": "imagenet", **SPECS[name]}


def tiny(kind: str, depths: tuple, *, deep: bool, seed: int = 0, **more: object):
    """timm's own ResNet, eight times narrower."""
    resnet = pytest.importorskip("timm.models.resnet", reason="timm is not installed")
    block = {"basic": resnet.BasicBlock, "bottleneck": resnet.Bottleneck}[kind]
    options = {"stem_type": "deep", "stem_width": 4, "avg_down": True} if deep else {}
    options |= {"num_classes": 5, "channels": (8, 16, 32, 64), **more}
    return stir(resnet.ResNet(block, depths, **options), seed).eval()


OWN = {
    "resnet18d": lambda: tiny("basic", (2, 2, 2, 2), deep=True),
    "resnet26d": lambda: tiny("bottleneck", (2, 2, 2, 2), deep=True),
    "resnet14t": lambda: tiny("bottleneck", (1, 1, 1, 1), deep=True, stem_type="deep_tiered"),
    "resnet50c": lambda: tiny("bottleneck", (3, 4, 6, 3), deep=True, avg_down=False),
    "resnext50d": lambda: tiny("bottleneck", (3, 4, 6, 3), deep=True, cardinality=4, base_width=32),
}


@pytest.mark.parametrize("name", OWN)
@pytest.mark.parametrize("size", [64, 75])
@torch.inference_mode()
def test_features_are_timms(tmp_path, name, size):
    theirs = OWN[name]()
    save_file(theirs.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    encoder = load_encoder(tmp_path / "model.safetensors")
    images = torch.randn(2, 3, size, size, generator=torch.Generator().manual_seed(1))
    theirs.reset_classifier(0)
    expected = theirs(images)
    assert float((encoder(images) - expected).abs().max() / expected.abs().max()) <= 1e-5


@pytest.mark.parametrize(
    ("name", "word"),
    [("seresnext26d_32x4d", "(se)"), ("ecaresnet26t", "(se)"), ("seresnet18", "(se)")],
)
def test_what_visreps_resnet_has_not_is_named(tmp_path, name, word):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    theirs = timm.create_model(name)
    save_file(theirs.state_dict(), tmp_path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(UserError, match=r"\(se\), which visrep's has not"):
        read_weights(tmp_path / "model.safetensors")


@pytest.mark.parametrize("arch", ["resnetaa50", "resnetblur18"])
def test_a_filter_without_tensors_is_told_by_the_name_of_the_net(tmp_path, arch):
    state = net(stem="imagenet").state_dict()
    torch.save({"arch": arch, "version": 2, "state_dict": state}, tmp_path / "last.pth.tar")
    with pytest.raises(UserError, match=r"anti-aliasing filters \(aa\)"):
        read_weights(tmp_path / "last.pth.tar")


def test_a_plain_net_saved_by_the_training_script_is_timms(tmp_path):
    encoder = net(stem="imagenet")
    content = {"arch": "resnet18", "version": 2, "state_dict": encoder.state_dict()}
    torch.save(content, tmp_path / "last.pth.tar")
    file = read_weights(tmp_path / "last.pth.tar")
    assert (file.kind, file.source["arch"], file.encoder) == ("timm", "resnet18", "")
    assert file.backbone == encoder.spec


@pytest.mark.parametrize("name", [*list(SPECS)[:-1], pytest.param("wide_resnet50_2", marks=SLOW)])
def test_out_and_back_is_the_same_to_the_bit(tmp_path, name):
    file = numbered(**spec_of(name))
    assert format_.model_name(file.backbone) == name
    format_.dump(tmp_path / "x.safetensors", file)
    back = read_weights(tmp_path / "x.safetensors")
    assert (back.backbone, back.sha256) == (file.backbone, file.sha256)


@pytest.mark.slow
def test_every_model_is_one_of_timms_with_its_shapes():
    timm = pytest.importorskip("timm", reason="timm is not installed")
    for (depth, stem, shortcut, groups, inner), name in format_.MODELS.items():
        with torch.device("meta"):
            theirs = timm.create_model(name, num_classes=0).state_dict()
            ours = ResNet(depth=depth, stem=stem, shortcut=shortcut, groups=groups, inner=inner)
        assert format_.model_name(ours.spec) == name
        shapes = {
            format_._their_name(k) if shortcut == "avg_down" else k: v.shape
            for k, v in ours.state_dict().items()
        }
        assert shapes == {k: v.shape for k, v in theirs.items()}, name


@pytest.mark.parametrize(
    "spec",
    [
        {"width": 2, "depth": 50},
        {"depth": 50, "stem": "d", "sk": True},
        {"depth": 50, "stem": "d"},
        {"depth": 50, "padding": "tf"},
        {"depth": 50, "stride_in_1x1": True},
        {"depth": 18, "project": True},
        {"depth": 18, "stem": "cifar"},
    ],
)
def test_a_net_that_timm_has_not_is_refused(tmp_path, spec):
    with pytest.raises(UserError, match="timm has no ResNet with depth=") as caught:
        format_.dump(tmp_path / "x.safetensors", numbered(**{"stem": "imagenet", **spec}))
    assert "\n" not in str(caught.value)


def run(weights, out, **keys: object) -> None:
    cfg = OmegaConf.load(config_dir() / "convert.yaml")
    cfg.merge_with({"weights": str(weights), "out": str(out), "to": "timm", **keys})
    convert.main(cfg)


@torch.inference_mode()
def test_the_command_writes_what_timms_create_model_loads(tmp_path, capsys):
    timm = pytest.importorskip("timm", reason="timm is not installed")
    file = in_memory(**spec_of("resnet14t"))
    write_encoder(tmp_path / "encoder.safetensors", file)
    run(tmp_path / "encoder.safetensors", tmp_path / "x.safetensors")
    out = capsys.readouterr().out
    assert "inverse bit-equal" in out
    assert "in timm's resnet14t: features differ by at most" in out
    assert "so create the model with num_classes=0" in out
    theirs = timm.create_model(
        "resnet14t", num_classes=0, checkpoint_path=str(tmp_path / "x.safetensors")
    ).eval()
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    expected = load_encoder(tmp_path / "encoder.safetensors")(images)
    assert float((theirs(images) - expected).abs().max() / expected.abs().max()) <= 1e-5


def test_the_command_without_timm_says_so(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    write_encoder(tmp_path / "encoder.safetensors", in_memory(**spec_of("resnet18")))
    run(tmp_path / "encoder.safetensors", tmp_path / "x.safetensors")
    assert "timm is not installed: not run in its class" in capsys.readouterr().out
    assert len(load_file(tmp_path / "x.safetensors")) == 100
