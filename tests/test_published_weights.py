"""Every command that takes weights takes a published checkpoint as it is, without `convert`."""

from pathlib import Path

import pytest
import torch

from tests.oracles.checkpoints.selfsup import CASES
from tests.small_data import composed, write_folder
from tests.transfer.detection.shapes import shapes
from tests.transfer.detection.test_detect import SMALL
from visrep import config, convert, results
from visrep.distill import distil as distill
from visrep.distill import finetune
from visrep.errors import ConfigError, UserError
from visrep.tools import export
from visrep.transfer.detection import detect
from visrep.transfer.frozen import knn, linear, low_shot, svm
from visrep.weights import load_encoder

TRAINING = ("batch_size=8", "epochs=0.1", "snapshot_every=0", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), train=18, test=9)


def published(folder: Path, content: object) -> tuple[Path, str]:
    """The checkpoint as its project saves it, and the sha256 of what it is converted to."""
    path = folder / "published.pth.tar"
    torch.save(content, path)
    cfg, _ = config.compose("convert", [f"weights={path}", f"out={folder / 'ours.safetensors'}"])
    convert.main(cfg)
    return path, load_encoder(folder / "ours.safetensors").sha256


@pytest.mark.parametrize(
    ("command", "entry", "settings"),
    [
        ("knn", knn, ["k=3"]),
        ("linear", linear, ["epochs=1"]),
        ("svm", svm, ["costs=[1.0]", "folds=2"]),
        ("low_shot", low_shot, ["shots=[1]", "draws=1"]),
        ("finetune", finetune, ["labels=1.0", *TRAINING]),
        ("finetune", finetune, ["labels=1.0", "selector=1", *TRAINING]),
    ],
    ids=lambda value: "-".join(value[:2]) if isinstance(value, list) else None,
)
def test_commands_on_images(tmp_path, monkeypatch, root, command, entry, settings):
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    path, sha256 = published(tmp_path, CASES["MoCo v2"]().content)
    out = tmp_path / "run"
    entry.main(composed(command, root, f"weights={path}", f"out={out}", *settings))
    records = results.read(out / "results.jsonl")
    assert records and {record.weights for record in records} == {sha256}


def test_distill(tmp_path, root):
    case = CASES["linear evaluation of MoCo and SimSiam"]()
    fc = {name: t[:3] for name, t in case.state.items() if ".fc." in name}  # the data's classes
    path, sha256 = published(tmp_path, case.with_state({**case.state, **fc}))
    settings = [f"teacher={path}", "student=resnet18_small_w8", f"out={tmp_path / 'run'}"]
    distill.main(composed("distill", root, *settings, *TRAINING))
    records = results.read(tmp_path / "run" / "results.jsonl")
    assert {r.weights for r in records if r.extra["role"] == "teacher"} == {sha256}


def test_detect(tmp_path, monkeypatch):
    path, sha256 = published(tmp_path, CASES["MoCo v1"]().content)
    train = shapes(tmp_path / "train", images=2, seed=0)
    test = shapes(tmp_path / "test", images=2, seed=1, name="shapes/test")
    monkeypatch.setattr(detect, "read_data", lambda cfg: (train, test))
    out = tmp_path / "run"
    settings = [*SMALL, "engine=torchvision", "warmup=0", "iterations=1"]
    cfg, _ = config.compose("detect", [f"weights={path}", f"out={out}", *settings])
    detect.main(cfg)
    assert {record.weights for record in results.read(out / "results.jsonl")} == {sha256}


def test_export(tmp_path):
    pytest.importorskip("onnxruntime")
    path, sha256 = published(tmp_path, CASES["MoCo v2"]().content)
    settings = [f"weights={path}", f"out={tmp_path / 'x.onnx'}", "repeats=1", "batches=[1]"]
    export.main(config.compose("export", settings)[0])
    assert {record.weights for record in results.read(tmp_path / "results.jsonl")} == {sha256}


def test_a_teacher_of_other_classes_is_refused_before_it_is_used(tmp_path, root):
    """A published one has no names of its classes; their number tells."""
    case = CASES["linear evaluation of MoCo and SimSiam"]()
    path, _ = published(tmp_path, case.content)
    settings = [f"teacher={path}", "student=resnet18_small_w8", f"out={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="the teacher's 10 classes are not the 3 of"):
        distill.main(composed("distill", root, *settings, *TRAINING))


def test_what_a_checkpoint_lacks_is_said(tmp_path, root):
    path, _ = published(tmp_path, CASES["Barlow Twins, hub"]().content)
    settings = [f"weights={path}", f"out={tmp_path / 'run'}", "labels=0.1", *TRAINING]
    with pytest.raises(ConfigError, match="selector=1: the file holds no projection head; add"):
        finetune.main(composed("finetune", root, *settings))
    head = [f"weights={path}", f"out={tmp_path / 'head'}", "output=head"]
    with pytest.raises(UserError, match="holds no projection head: use output=pooled"):
        knn.main(composed("knn", root, *head))
    teacher = [f"teacher={path}", "student=resnet18_small_w8", f"out={tmp_path / 'distilled'}"]
    with pytest.raises(UserError, match="without a classifier: make one with visrep finetune"):
        distill.main(composed("distill", root, *teacher, *TRAINING))
