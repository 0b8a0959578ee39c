"""The command `convert`: what it writes is verified, and a failure leaves nothing."""

import importlib.util
import os
import resource
import subprocess
import sys

import pytest
import torch
from omegaconf import OmegaConf

from tests.oracles.encoders import PREPROCESS, encoder_file, head, net, stir
from tests.oracles.small_disk import small_disk
from visrep import convert
from visrep.d2 import pkl as d2
from visrep.errors import CheckFailed, ConfigError, UserError
from visrep.nn.classifier import Classifier
from visrep.paths import config_dir
from visrep.weights import load_classifier, read_weights, save_encoder
from visrep.weights.containers import weights_files


def run(weights, out, **keys: object) -> None:
    cfg = OmegaConf.load(config_dir() / "convert.yaml")
    cfg.merge_with({"weights": str(weights), "out": str(out), **keys})
    convert.main(cfg)


@pytest.fixture
def no_detectron2(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "detectron2" else find(name)
    )


@pytest.fixture
def encoder(tmp_path):
    path = tmp_path / "encoder.safetensors"
    encoder_file(path, depth=18, stem="imagenet")
    return path


def names(folder) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_the_default_is_our_own_file(tmp_path, encoder, capsys):
    run(encoder, tmp_path / "out" / "copy.safetensors")
    before, after = read_weights(encoder), read_weights(tmp_path / "out" / "copy.safetensors")
    assert after.sha256 == before.sha256
    assert (after.source, after.preprocess) == (before.source, before.preprocess)
    out = capsys.readouterr().out
    assert "ResNet-18 of width 0.0625, 0.04 M parameters, RGB of 32 px in [0, 1]" in out
    assert "100 of 100 tensors accounted for, read back bit-equal" in out
    assert f"sha256    {before.sha256}" in out


def test_torchvision_and_back(tmp_path, capsys):
    from torchvision import models

    theirs = stir(models.resnet18(weights=None, num_classes=5)).eval()
    torch.save({"state_dict": theirs.state_dict()}, tmp_path / "theirs.pth")
    run(tmp_path / "theirs.pth", tmp_path / "ours.safetensors")
    out = capsys.readouterr().out
    assert "torchvision state dict in its 'state_dict', ResNet-18, 11.18 M parameters" in out
    assert "classifier of 5 classes, dropped 20 counters of batches" in out
    assert "102 of 102 tensors accounted for" in out
    run(tmp_path / "ours.safetensors", tmp_path / "again.pth", to="torchvision")
    out = capsys.readouterr().out
    assert "ours.safetensors: visrep encoder, ResNet-18," in out
    assert "102 of 102 tensors accounted for, inverse bit-equal" in out
    assert "in torchvision's resnet18: features differ by at most 0" in out
    assert "note" not in out
    again = models.resnet18(weights=None, num_classes=5).eval()
    again.load_state_dict(torch.load(tmp_path / "again.pth", weights_only=True))
    images = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        assert torch.equal(again(images), theirs(images))
        assert torch.equal(load_classifier(tmp_path / "ours.safetensors")(images), theirs(images))


def test_what_a_state_dict_cannot_say_is_said(tmp_path, encoder, capsys):
    run(encoder, tmp_path / "x.pth", to="torchvision")
    out = capsys.readouterr().out
    assert "torchvision has no ResNet-18 of width 0.0625: not run in its class" in out
    assert "note      a state dict does not say what its input went through" in out
    assert read_weights(tmp_path / "x.pth").sha256 == read_weights(encoder).sha256


def test_head_and_classifier_that_the_target_cannot_hold_are_counted(
    tmp_path, capsys, no_detectron2
):
    encoder = net(stem="imagenet")
    path = tmp_path / "encoder.safetensors"
    save_encoder(path, encoder=encoder, preprocess=PREPROCESS, head=head(encoder), source={})
    for to, name in (("torchvision", "x.pth"), ("detectron2", "x.pkl")):
        run(path, tmp_path / name, to=to)
        out = capsys.readouterr().out
        assert "left out  projection head (14 tensors)" in out
        assert "114 of 114 tensors accounted for (100 written, 14 left out), inverse" in out
    model = stir(Classifier(encoder=encoder, head=head(encoder), layers=1, classes=3)).eval()
    path = tmp_path / "classifier.safetensors"
    save_encoder(
        path, encoder=encoder, preprocess=PREPROCESS, head=model.head, fc=model.fc, source={}
    )
    with pytest.raises(UserError, match="classifier sits on a projection head"):
        run(path, tmp_path / "y.pth", to="torchvision")
    run(path, tmp_path / "y.pkl", to="detectron2")
    out = capsys.readouterr().out
    assert "left out  projection head (5 tensors), classifier (2 tensors)" in out
    assert not (tmp_path / "y.pth").exists()


def test_without_detectron2_that_is_said(tmp_path, encoder, capsys, no_detectron2):
    run(encoder, tmp_path / "x.pkl", to="detectron2")
    out = capsys.readouterr().out
    assert "Detectron2 is not installed: not checked in its backbone" in out
    assert "x.yaml says how to register visrep's" in out
    assert names(tmp_path) == {"encoder.safetensors", "x.pkl", "x.yaml"}
    assert d2.read_pkl(tmp_path / "x.pkl").sha256 == read_weights(encoder).sha256


@pytest.mark.detectron2
@pytest.mark.parametrize(("stem", "kind"), [("imagenet", "ResNet"), ("small", "VisrepResNet")])
def test_detectron2_runs_the_weights(tmp_path, capsys, stem, kind):
    encoder_file(tmp_path / "encoder.safetensors", depth=50, stem=stem)
    run(tmp_path / "encoder.safetensors", tmp_path / "x.pkl", to="detectron2", norm="BN")
    out = capsys.readouterr().out
    assert f"({kind}): 265 of 265 tensors set, res2..res5 differ by at most" in out
    assert ("register visrep's" in out) == (stem == "small")
    assert "NORM: BN" in (tmp_path / "x.yaml").read_text()


@pytest.mark.detectron2
def test_a_native_config_loads_without_visrep(tmp_path):
    encoder_file(tmp_path / "encoder.safetensors", depth=50, stem="imagenet")
    run(tmp_path / "encoder.safetensors", tmp_path / "x.pkl", to="detectron2")
    script = """
import sys
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
cfg = get_cfg()
cfg.merge_from_file(sys.argv[1])
backbone = build_backbone(cfg)
left = DetectionCheckpointer(backbone).load(cfg.MODEL.WEIGHTS)
print(sorted(left), float(backbone.bottom_up.stem.conv1.weight.sum()), "visrep" in sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", script, "x.yaml"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        check=True,
    )
    left, rest = done.stdout.rsplit("] ", 1)
    total, imported = rest.split()
    assert left == "['__author__', 'matching_heuristics', 'visrep'"
    expected = read_weights(tmp_path / "encoder.safetensors").tensors["conv1.weight"].sum()
    assert float(total) == pytest.approx(float(expected), abs=1e-5)
    assert imported == "False"


def test_the_cifar_stem_is_converted_on_request_as_a_changed_net(tmp_path, capsys, no_detectron2):
    path = tmp_path / "encoder.safetensors"
    encoder_file(path, stem="cifar")
    with pytest.raises(ConfigError, match="give stem_stride=2"):
        run(path, tmp_path / "x.pkl", to="detectron2")
    assert names(tmp_path) == {"encoder.safetensors"}
    run(path, tmp_path / "x.pkl", to="detectron2", stem_stride=2)
    out = capsys.readouterr().out
    assert "changed   the stem's stride is 2 and no longer 1" in out
    assert "STEM: small" in (tmp_path / "x.yaml").read_text()


@pytest.mark.detectron2
def test_a_stem_without_relu_stays_so_in_detectron2(tmp_path, capsys):
    """lightly's own ResNet, whose stem has stride 1 and no ReLU."""
    path = tmp_path / "encoder.safetensors"
    encoder_file(path, stem="cifar", stem_relu=False)
    run(path, tmp_path / "x.pkl", to="detectron2", stem_stride=2)
    out = capsys.readouterr().out
    assert "with the cifar stem and no ReLU after the stem" in out
    assert "(VisrepResNet): 100 of 100 tensors set, res2..res5 differ by at most" in out
    assert "STEM_RELU: false" in (tmp_path / "x.yaml").read_text()


@pytest.mark.parametrize(
    ("out", "keys", "message"),
    [
        ("x.safetensors", {"to": "visrap"}, "to=visrap: choose one of visrep"),
        ("x.pth", {"to": "detectron2"}, r"end it in \.pkl"),
        ("x.pth", {"to": "timm"}, r"end it in \.safetensors"),
        ("a?b.pkl", {"to": "detectron2"}, r"what follows a \?"),
        ("x.pkl", {"to": "detectron2", "norm": "GN"}, "norm=GN: choose one of SyncBN"),
        ("x.pkl", {"to": "detectron2", "stem_stride": 2}, "leave it out"),
        ("x.pth", {"to": "torchvision", "stem_stride": 2}, "are for to=detectron2"),
        ("x.safetensors", {"norm": "BN"}, "are for to=detectron2"),
        ("", {}, "is a folder"),
        ("encoder.safetensors", {}, "exists: choose another out=, or overwrite=true"),
    ],
)
def test_wrong_keys_are_one_line_and_leave_nothing(tmp_path, encoder, out, keys, message):
    with pytest.raises(ConfigError, match=message) as caught:
        run(encoder, tmp_path / out, **keys)
    assert "\n" not in str(caught.value)
    assert names(tmp_path) == {"encoder.safetensors"}


def test_neither_file_of_a_pair_is_overwritten_unasked(tmp_path, encoder, no_detectron2):
    (tmp_path / "x.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=r"x\.yaml exists"):
        run(encoder, tmp_path / "x.pkl", to="detectron2")
    assert names(tmp_path) == {"encoder.safetensors", "x.yaml"}
    run(encoder, tmp_path / "x.pkl", to="detectron2", overwrite=True)
    assert (tmp_path / "x.yaml").read_text() != "mine"


def test_a_file_may_be_converted_onto_itself(tmp_path, encoder):
    before = read_weights(encoder).sha256
    run(encoder, encoder, overwrite=True)
    assert read_weights(encoder).sha256 == before


@pytest.mark.parametrize("spec", [{"stem": "small"}, {"padding": "tf", "stem": "imagenet"}])
def test_nets_that_torchvision_has_not(tmp_path, spec):
    encoder_file(tmp_path / "encoder.safetensors", **spec)
    with pytest.raises(UserError, match="torchvision has no ResNet with"):
        run(tmp_path / "encoder.safetensors", tmp_path / "x.pth", to="torchvision")
    assert names(tmp_path) == {"encoder.safetensors"}


@pytest.mark.parametrize("to", ["visrep", "torchvision", "detectron2", "pkl to visrep"])
def test_what_is_read_and_what_is_written_are_parsed_once(tmp_path, monkeypatch, no_detectron2, to):
    source, out = tmp_path / "encoder", tmp_path / "out.pkl"
    file = encoder_file(source, stem="imagenet")
    if to == "pkl to visrep":
        d2.write_pkl(source, file)
    real, parsed = weights_files._look, []

    def look(path):
        parsed.append("in" if path == source else "out")
        return real(path)

    monkeypatch.setattr(weights_files, "_look", look)
    run(source, out, to=to.rpartition(" ")[2])
    assert sorted(parsed) == ["in", "out"]


def change_one(tensors: dict) -> dict:
    name = "layer2.0.conv1.weight"
    changed = tensors[name].clone()
    changed[0, 0, 0, 0] += 1e-6
    return {**tensors, name: changed}


@pytest.mark.parametrize("to", ["visrep", "torchvision", "detectron2"])
@pytest.mark.parametrize("fault", ["changed", "lost", "appeared"])
def test_a_failed_check_leaves_no_file(tmp_path, encoder, monkeypatch, no_detectron2, to, fault):
    """The way back is made to differ: a written file with another tensor would read so."""
    reader = {
        "visrep": (convert, "read_weights"),
        "torchvision": (convert.torchvision, "read"),
        "detectron2": (convert.d2, "read_pkl"),
    }[to]
    real = getattr(*reader)

    def faulty(path, *rest):
        file = real(path, *rest)
        if str(path) == str(encoder):
            return file
        file.tensors = dict(file.tensors)
        if fault == "changed":
            file.tensors = change_one(file.tensors)
        elif fault == "lost":
            file.tensors.pop("bn1.bias")
        else:
            file.tensors["extra"] = torch.zeros(1)
        return file

    monkeypatch.setattr(*reader, faulty)
    message = {"changed": "layer2.0.conv1.weight is not the same", "lost": "bn1.bias is lost"}
    with pytest.raises(CheckFailed, match=message.get(fault, "extra has appeared")) as caught:
        run(encoder, tmp_path / "out.pkl", to=to)
    assert caught.value.exit_code == 3
    assert names(tmp_path) == {"encoder.safetensors"}


def test_a_net_that_torchvision_computes_otherwise_is_refused(tmp_path, monkeypatch):
    from torchvision import models

    encoder_file(tmp_path / "encoder.safetensors", width=1, stem="imagenet")
    real = models.resnet18

    def other(**options):
        net = real(**options)
        net.maxpool = torch.nn.AvgPool2d(3, 2, 1)
        return net

    monkeypatch.setattr(models, "resnet18", other)
    with pytest.raises(CheckFailed, match="features of torchvision's resnet18 differ by"):
        run(tmp_path / "encoder.safetensors", tmp_path / "x.pth", to="torchvision")
    assert names(tmp_path) == {"encoder.safetensors"}


@pytest.mark.detectron2
def test_a_net_that_detectron2_computes_otherwise_is_refused(tmp_path, monkeypatch):
    encoder_file(tmp_path / "encoder.safetensors", depth=50, stem="imagenet")
    real = d2.settings

    def wrong(file, **options):
        config = real(file, **options)
        config["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] = True
        return config

    monkeypatch.setattr("visrep.d2.settings.settings", wrong)
    with pytest.raises(CheckFailed, match=r"/x\.pkl: res3 differs by .*, the limit is 1e-05"):
        run(tmp_path / "encoder.safetensors", tmp_path / "x.pkl", to="detectron2")
    assert names(tmp_path) == {"encoder.safetensors"}


@pytest.mark.parametrize("failing", ["x.pkl", "x.yaml"])
def test_pkl_and_yaml_appear_together_or_not_at_all(
    tmp_path, encoder, monkeypatch, no_detectron2, failing
):
    real = os.replace

    failed: list[str] = []

    def replace(source, target):
        if str(target).endswith(failing) and failing not in failed:  # once: there is room again
            failed.append(failing)
            raise OSError(28, "No space left on device")
        real(source, target)

    monkeypatch.setattr(os, "replace", replace)
    with pytest.raises(UserError, match="No space left"):
        run(encoder, tmp_path / "x.pkl", to="detectron2")
    assert names(tmp_path) == {"encoder.safetensors"}

    monkeypatch.setattr(os, "replace", real)
    run(encoder, tmp_path / "x.pkl", to="detectron2")
    before = [(tmp_path / name).read_bytes() for name in ("x.pkl", "x.yaml")]
    monkeypatch.setattr(os, "replace", replace)
    failed.clear()
    with pytest.raises(UserError, match="No space left"):
        run(encoder, tmp_path / "x.pkl", to="detectron2", overwrite=True, norm="BN")
    assert failed == [failing]
    assert [(tmp_path / name).read_bytes() for name in ("x.pkl", "x.yaml")] == before
    assert names(tmp_path) == {"encoder.safetensors", "x.pkl", "x.yaml"}


def test_a_written_file_that_cannot_be_read_is_a_failed_check(tmp_path, encoder, monkeypatch):
    real = convert.dump_encoder

    def cut(path, file):
        real(path, file)
        os.truncate(path, 1000)

    monkeypatch.setattr(convert, "dump_encoder", cut)
    with pytest.raises(CheckFailed, match=r"/x\.safetensors is cut short or damaged"):
        run(encoder, tmp_path / "x.safetensors")
    assert names(tmp_path) == {"encoder.safetensors"}


@pytest.mark.parametrize("to", ["visrep", "torchvision", "detectron2"])
def test_a_full_disk_is_one_line_and_leaves_nothing(tmp_path, encoder, to):
    out = tmp_path / "out"
    with small_disk(60_000), pytest.raises(UserError) as caught:
        run(encoder, out / "x.pkl", to=to)
    message = str(caught.value)
    assert message.startswith(f"cannot write {out}/x.pkl: ")
    assert os.strerror(27) in message
    assert "\n" not in message
    assert not list(out.iterdir())


def test_the_command_line_on_a_full_disk(tmp_path, encoder):
    out = tmp_path / "out"
    arguments = ["convert", f"weights={encoder}", f"out={out}/x.pkl", "to=detectron2"]
    done = subprocess.run(
        [sys.executable, "-m", "visrep", *arguments],
        capture_output=True,
        text=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000)),
    )
    assert done.returncode == 1, done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"visrep: cannot write {out}/x.pkl: {os.strerror(27)}")
    assert done.stdout == ""
    assert not list(out.iterdir())


@pytest.mark.detectron2
def test_the_configs_of_asked_tasks_are_written_beside(tmp_path, capsys):
    encoder_file(tmp_path / "encoder.safetensors", depth=50, stem="imagenet")
    source, out = tmp_path / "encoder.safetensors", tmp_path / "x.pkl"
    run(source, out, to="detectron2", task=["voc0712_c4", "voc07_c4", "coco_fpn_1x"])
    written = {"x.pkl", "x.yaml", "x.voc0712_c4.yaml", "x.voc07_c4.yaml", "x.coco_fpn_1x.yaml"}
    assert names(tmp_path) == {"encoder.safetensors", *written}
    shown = capsys.readouterr().out
    # One check in the FPN, which two configs share, and one in the C4, as two others do.
    assert shown.count("265 of 265 tensors set") == 2
    assert shown.count("tensors set, 50 of them in the C4 head, res2..res5 differ") == 1
    assert all(f"{name}\n" in shown for name in written - {"x.pkl"})
    with pytest.raises(ConfigError, match=r"x\.voc07_c4\.yaml exists"):
        out.unlink()
        (tmp_path / "x.yaml").unlink()
        run(source, out, to="detectron2", task="voc07_c4")


def test_all_tasks_leave_out_what_the_net_cannot_do(tmp_path, encoder, capsys, no_detectron2):
    run(encoder, tmp_path / "x.pkl", to="detectron2", task="all")
    shown = capsys.readouterr().out
    assert "left out  task scenes: its yaml does not name data of Detectron2" in shown
    assert not (tmp_path / "x.scenes.yaml").exists()
    assert "DILATED: true" in (tmp_path / "x.voc0712_dc5.yaml").read_text()
    assert (tmp_path / "x.lvis05_fpn_1x.yaml").exists()
    with pytest.raises(ConfigError, match="task=scenes: its yaml"):
        run(encoder, tmp_path / "y.pkl", to="detectron2", task="scenes")
    with pytest.raises(ConfigError, match="norm, task and detection are for to=detectron2"):
        run(encoder, tmp_path / "y.safetensors", task="voc07_c4")
