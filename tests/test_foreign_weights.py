"""Every command takes a checkpoint in another project's format as it is, without `convert`.

The checkpoints are synthetic: small nets, saved as the project saves its own. What comes out must
be what comes out for the encoder file that they are converted to.
"""

from collections.abc import Callable
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
from visrep.distill.distil import teacher_from
from visrep.errors import ConfigError, UserError
from visrep.tools import export
from visrep.transfer.detection import detect, parts
from visrep.transfer.frozen import knn, linear, low_shot, svm
from visrep.transfer.frozen.outputs import frozen_output
from visrep.weights import load_encoder

TRAINING = ("batch_size=8", "epochs=0.1", "snapshot_every=0", "optim.warmup_epochs=0")


@pytest.fixture(scope="module")
def root(tmp_path_factory) -> Path:
    return write_folder(tmp_path_factory.mktemp("data"), train=18, test=9)


def foreign(folder: Path, content: object) -> tuple[Path, Path]:
    """The checkpoint as its project saves it, and the encoder file that it is converted to."""
    path, ours = folder / "foreign.pth.tar", folder / "ours.safetensors"
    torch.save(content, path)
    convert.main(config.compose("convert", [f"weights={path}", f"out={ours}"])[0])
    return path, ours


def numbers(file: Path) -> list[tuple[str, str, float]]:
    """(weights, metric, value) of all records, 0 for a time."""
    return [
        (r.weights, r.metric, 0.0 if r.metric.endswith("_ms") else r.value)
        for r in results.read(file)
    ]


def same(folder: Path, content: object, run: Callable[[Path, Path], None]) -> None:
    """`run(weights, out)` records the same of the checkpoint and of the encoder file."""
    found = []
    for weights in foreign(folder, content):
        out = folder / f"run-{weights.suffix[1:]}"
        run(weights, out)
        found.append(numbers(out / "results.jsonl"))
    assert found[0] == found[1]
    assert load_encoder(folder / "ours.safetensors").sha256 in {sha256 for sha256, *_ in found[0]}


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
    def run(weights: Path, out: Path) -> None:
        cache = out.with_suffix(".cache")  # of features, which are not to be shared
        monkeypatch.setenv("VISREP_CACHE", str(cache))
        entry.main(composed(command, root, f"weights={weights}", f"out={out}", *settings))

    same(tmp_path, CASES["MoCo v2"]().content, run)


def test_distill(tmp_path, root):
    case = CASES["linear evaluation of MoCo and SimSiam"]()
    fc = {name: t[:3] for name, t in case.state.items() if ".fc." in name}  # the data's classes

    def run(weights: Path, out: Path) -> None:
        settings = [f"teacher={weights}", "student=resnet18_small_w8", f"out={out}"]
        distill.main(composed("distill", root, *settings, *TRAINING))

    same(tmp_path, case.with_state({**case.state, **fc}), run)


def test_detect(tmp_path, monkeypatch):
    train = shapes(tmp_path / "train", images=2, seed=0)
    test = shapes(tmp_path / "test", images=2, seed=1, name="shapes/test")
    monkeypatch.setattr(parts, "read_both", lambda cfg: (train, test))

    def run(weights: Path, out: Path) -> None:
        settings = [*SMALL, "engine=torchvision", "warmup=0", "iterations=1"]
        settings += [f"weights={weights}", f"out={out}"]
        detect.main(config.compose("detect", settings)[0])

    same(tmp_path, CASES["MoCo v1"]().content, run)


def test_export(tmp_path):
    pytest.importorskip("onnxruntime")

    def run(weights: Path, out: Path) -> None:
        settings = [f"weights={weights}", f"out={out / 'x.onnx'}", "repeats=1", "batches=[1]"]
        export.main(config.compose("export", settings)[0])

    same(tmp_path, CASES["MoCo v2"]().content, run)


def test_a_teacher_of_other_classes_is_refused_before_it_is_used(tmp_path, root):
    """A foreign one has no names of its classes; their number tells."""
    case = CASES["linear evaluation of MoCo and SimSiam"]()
    path, _ = foreign(tmp_path, case.content)
    settings = [f"teacher={path}", "student=resnet18_small_w8", f"out={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="the teacher's 10 classes are not the 3 of"):
        distill.main(composed("distill", root, *settings, *TRAINING))


def test_what_a_checkpoint_lacks_is_said(tmp_path, root):
    path, _ = foreign(tmp_path, CASES["Barlow Twins, hub"]().content)
    settings = [f"weights={path}", f"out={tmp_path / 'run'}", "labels=0.1", *TRAINING]
    with pytest.raises(ConfigError, match="selector=1: the file holds no projection head; add"):
        finetune.main(composed("finetune", root, *settings))
    head = [f"weights={path}", f"out={tmp_path / 'head'}", "output=head"]
    with pytest.raises(UserError, match="holds no projection head: use output=pooled"):
        knn.main(composed("knn", root, *head))
    teacher = [f"teacher={path}", "student=resnet18_small_w8", f"out={tmp_path / 'distilled'}"]
    with pytest.raises(UserError, match="without a classifier: make one with visrep finetune"):
        distill.main(composed("distill", root, *teacher, *TRAINING))


COMMANDS = {
    "knn": (knn, "weights", ["k=3"]),
    "linear": (linear, "weights", ["epochs=1"]),
    "svm": (svm, "weights", []),
    "low_shot": (low_shot, "weights", []),
    "finetune": (finetune, "weights", ["labels=1.0", *TRAINING]),
    "distill": (distill, "teacher", ["student=resnet18_small_w8", *TRAINING]),
}


@pytest.fixture(scope="module")
def two_nets(tmp_path_factory) -> Path:
    case = CASES["linear evaluation of MoCo and SimSiam"]()
    path = tmp_path_factory.mktemp("nets") / "two.pth"
    nets = {"student": case.state, "teacher": {k: t + 1 for k, t in case.state.items()}}
    torch.save(nets, path)
    return path


@pytest.mark.parametrize("command", COMMANDS)
def test_prefix_reaches_the_reader_in_every_command(tmp_path, root, two_nets, command):
    entry, key, settings = COMMANDS[command]
    given = [f"{key}={two_nets}", f"out={tmp_path / 'run'}", *settings]
    with pytest.raises(UserError, match="it holds several networks: prefix=student"):
        entry.main(composed(command, root, *given))
    with pytest.raises(UserError, match=r"prefix=absent/net\. names none of"):
        entry.main(composed(command, root, *given, "prefix=absent/net."))


def test_prefix_reaches_the_reader_of_detect_and_export(tmp_path, monkeypatch, two_nets):
    pytest.importorskip("onnxruntime")
    train = shapes(tmp_path / "train", images=2, seed=0)
    monkeypatch.setattr(parts, "read_both", lambda cfg: (train, train))
    given = [f"weights={two_nets}", "prefix=absent"]
    settings = [*SMALL, "engine=torchvision", "warmup=0", "iterations=1", f"out={tmp_path / 'run'}"]
    with pytest.raises(UserError, match="prefix=absent names none of"):
        detect.main(config.compose("detect", [*given, *settings])[0])
    with pytest.raises(UserError, match="prefix=absent names none of"):
        export.main(config.compose("export", [*given, f"out={tmp_path / 'x.onnx'}"])[0])


def test_the_net_that_prefix_names_is_the_one_that_is_used(two_nets):
    _, _, first = frozen_output(two_nets, prefix="student")
    net, _, second = frozen_output(two_nets, prefix="teacher/")
    assert first != second
    expected = CASES["linear evaluation of MoCo and SimSiam"]().state["module.conv1.weight"] + 1
    assert torch.equal(net.conv1.weight, expected)


def test_a_prefix_without_a_file_is_refused(tmp_path, root):
    with pytest.raises(ConfigError, match="prefix=net is a place in the teacher's file"):
        teacher_from("resnet18", "random", prefix="net", classes=3, size=16, seed=0)
    given = ["init=raw_pixels", "prefix=net", f"out={tmp_path / 'run'}"]
    with pytest.raises(ConfigError, match="prefix=net is a place in weights="):
        knn.main(composed("knn", root, *given))
