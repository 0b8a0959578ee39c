"""The commands in order, on a tiny net: what one writes, the next one reads."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml

from visrep.cli import main
from visrep.data.builtin.scenes import crops
from visrep.results import read
from visrep.weights import load_classifier, load_encoder, read_weights
from visrep.weights.encoder_file import fingerprint


@pytest.fixture(scope="module")
def runs(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("runs")


def visrep(*arguments: object) -> None:
    with pytest.raises(SystemExit) as caught:
        main([str(argument) for argument in arguments])
    assert caught.value.code == 0, arguments


def value(folder: Path, metric: str, **extra: object) -> float:
    found = [
        record.value
        for record in read(folder / "results.jsonl")
        if record.metric == metric and extra.items() <= record.extra.items()
    ]
    assert len(found) == 1, (folder, metric, found)
    return found[0]


def top1(path: Path) -> float:
    """Accuracy of a classifier's file on the test crops, in percent, without any of our loops."""
    model, test = load_classifier(path), crops("test")
    scale = torch.tensor(model.preprocess.std)[:, None, None] * 255
    with torch.inference_mode():
        logits = torch.cat([model(images / scale) for images in test.images.split(500)])
    assert model.preprocess.mean == (0.0, 0.0, 0.0)
    return 100 * float((logits.argmax(dim=1) == test.labels).double().mean())


@pytest.fixture(scope="module")
def encoder(runs) -> Path:
    visrep(
        *("pretrain", "data=scenes", "method=simclr_scenes", "backbone=resnet18_small_w8"),
        *("steps=12", "optim.warmup_epochs=0", "knn.times=1", "threads=1"),
        f"out={runs / 'pretrain'}",
    )
    return runs / "pretrain" / "encoder.safetensors"


@pytest.fixture(scope="module")
def teacher(runs, encoder) -> Path:
    visrep(
        *("finetune", f"weights={encoder}", "data=scenes", "labels=0.01", "epochs=2"),
        *("threads=1", f"out={runs / 'finetune'}"),
    )
    return runs / "finetune" / "encoder.safetensors"


@pytest.fixture(scope="module")
def student(runs, teacher) -> Path:
    visrep(
        *("distill", f"teacher={teacher}", "student=resnet18_small", "data=scenes", "steps=3"),
        *("optim.warmup_epochs=0", "threads=1", f"out={runs / 'distill'}"),
    )
    return runs / "distill" / "encoder.safetensors"


def test_knn_of_every_kind(runs, encoder):
    sha256 = load_encoder(encoder).sha256
    for name, *arguments in (
        ("knn-pretrained", f"weights={encoder}"),
        ("knn-random", f"weights={encoder}", "init=random", "bn=reestimated"),
        ("knn-pixels", "init=raw_pixels"),
    ):
        visrep("knn", *arguments, "data=scenes", "threads=1", f"out={runs / name}")
    # Chance is 10 %; pixels need no training, and twelve steps of it show.
    assert value(runs / "knn-pixels", "top1") == pytest.approx(47.05, abs=0.2)
    assert 8 < value(runs / "knn-random", "top1") < 16
    assert value(runs / "knn-random", "top1") + 4 < value(runs / "knn-pretrained", "top1") < 40
    assert read(runs / "knn-pretrained" / "results.jsonl")[0].weights == sha256
    # The monitor during pretraining measured the same thing.
    last = (runs / "pretrain" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(last)["knn"] == pytest.approx(
        value(runs / "knn-pretrained", "top1"), abs=0.11
    )


def test_linear(runs, encoder):
    visrep(
        *("linear", f"weights={encoder}", "data=scenes", "epochs=2", "threads=1"),
        f"out={runs / 'linear'}",
    )
    assert 12 < value(runs / "linear", "top1") < 30  # chance is 10, give or take 0.7
    assert {record.weights for record in read(runs / "linear" / "results.jsonl")} == {
        load_encoder(encoder).sha256
    }


@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_detect(runs, encoder, engine):
    out = runs / f"detect-{engine}"
    visrep(
        *("detect", f"weights={encoder}", "detection=scenes", "protocol=short", "task=instance"),
        *(f"engine={engine}", "iterations=3", "warmup=1", "threads=1", f"out={out}"),
    )
    records = read(out / "results.jsonl")
    assert {record.engine for record in records} == {engine}
    assert {"AP", "AP50", "AP75", "AP50_area", "mask_AP"} <= {record.metric for record in records}
    assert all(record.extra["form"] for record in records)
    assert {record.weights for record in records} == {load_encoder(encoder).sha256}
    # Three steps teach nothing: what is measured must be near 0, and is a share in percent.
    assert all(0 <= record.value < 10 for record in records if record.metric.startswith("AP"))


def test_convert(runs, encoder):
    visrep("convert", f"weights={encoder}", "to=detectron2", f"out={runs / 'x.pkl'}")
    before, after = read_weights(encoder), read_weights(runs / "x.pkl")
    assert fingerprint(before.part("")) == after.sha256 and before.head is not None
    config = yaml.safe_load((runs / "x.yaml").read_text())
    assert config["MODEL"]["WEIGHTS"] == str(runs / "x.pkl")
    assert config["INPUT"]["FORMAT"] == before.preprocess["channel_order"]
    visrep("convert", f"weights={encoder}", f"out={runs / 'again.safetensors'}")
    assert load_encoder(runs / "again.safetensors").sha256 == load_encoder(encoder).sha256


def test_finetune_writes_the_labels_it_used(runs, teacher):
    names = (runs / "finetune" / "labels.txt").read_text().split()
    assert len(names) == len(set(names)) == 60
    model = load_classifier(teacher)
    assert model.classes == [str(digit) for digit in range(10)] and model.fc.out_features == 10
    assert value(runs / "finetune", "top1") == pytest.approx(top1(teacher), abs=0.11)


def test_distill_and_export(runs, student, teacher):
    onnxruntime = pytest.importorskip("onnxruntime")
    for role, path in (("student", student), ("teacher", teacher)):
        assert value(runs / "distill", "top1", role=role) == pytest.approx(top1(path), abs=0.11)
    visrep("export", f"weights={student}", f"out={runs / 'model.onnx'}", "repeats=3", "threads=1")
    session = onnxruntime.InferenceSession(runs / "model.onnx")
    images = torch.rand(2, 3, 32, 32)
    (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.inference_mode():
        assert torch.allclose(torch.from_numpy(logits), load_classifier(student)(images), atol=1e-4)


def test_report_tells_the_whole_story(runs, encoder, student):
    visrep("report", f"runs={runs}")
    page = (runs / "report.html").read_text()
    assert load_encoder(encoder).sha256[:12] in page
    assert "visrep pretrain data=scenes" in page
    for run in ("knn-pretrained", "linear", "finetune"):
        assert f"{value(runs / run, 'top1'):.1f}" in page
    for remote in ('src="http', 'href="http://', "@import", "<script src"):
        assert remote not in page


@pytest.mark.slow
def test_the_demo_is_reused_when_it_is_called_again(tmp_path):
    """Every job of the demo after a short pretraining; the second call only writes the report."""
    small = ("demo", f"out={tmp_path}", "epochs=2", "draws=1", "seeds=1", "labels=[0.1]")
    demo = (sys.executable, "-m", "visrep", *small)
    first = subprocess.run(demo, capture_output=True, text=True)
    assert first.returncode == 0, first.stdout + first.stderr
    assert (tmp_path / "report.html").exists()
    second = subprocess.run(demo, capture_output=True, text=True)
    assert second.returncode == 0
    steps = int(second.stdout.split("visrep demo: ")[1].split()[0])
    assert steps > 10 and second.stdout.count("there already") == steps - 1
