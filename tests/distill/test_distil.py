"""`visrep distill`: who the teacher is, and what is written."""

import logging
import shutil
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from tests.small_data import (
    CLASSES,
    composed,
    count_reads,
    preprocess,
    tiny_net,
    write_encoder,
    write_folder,
)
from visrep import results
from visrep.data.dataset import MemoryImages
from visrep.data.folders import image_folder
from visrep.distill import distil
from visrep.distill.distil import known_labels, teacher_from, teachers_classes
from visrep.errors import ConfigError, UserError
from visrep.nn.classifier import Classifier
from visrep.nn.resnet import ResNet
from visrep.weights import load_classifier, save_encoder
from visrep.weights.encoder_file import fingerprint

QUICK = ["batch_size=16", "epochs=3", "views.scale=[0.5,1.0]", "optim.warmup_epochs=0"]
QUICK += ["snapshot_every=0"]


def write_teacher(
    path: Path, *, encoder: ResNet | None = None, classes: list[str] = CLASSES
) -> str:
    torch.manual_seed(0)
    net = Classifier(encoder=encoder or tiny_net(), classes=len(classes), zero_init=False)
    return save_encoder(
        path,
        encoder=net.encoder,
        preprocess=preprocess(),
        fc=net.fc,
        classes=classes,
        source={"method": "none"},
    )


def build(teacher: str, weights: str | None) -> tuple:
    return teacher_from(teacher, weights, classes=3, size=16, seed=0)


def test_teacher_is_a_file_or_a_named_backbone_with_weights(tmp_path: Path) -> None:
    path = tmp_path / "teacher.safetensors"
    named = ResNet(depth=18, width=0.125, stem="small")
    sha256 = write_teacher(path, encoder=named)
    for given in ((str(path), None), ("resnet18_small_w8", str(path))):
        net, prepared, digest = build(*given)
        assert digest == sha256
        assert prepared == preprocess()
        assert torch.equal(net.encoder.conv1.weight, named.conv1.weight)
    fresh, _, digest = build("resnet18_small_w8", "random")
    assert digest == "none"
    assert fresh.fc.weight.any()
    assert fresh.encoder.spec == named.spec
    torch.rand(7)  # what was drawn elsewhere does not matter
    again = build("resnet18_small_w8", "random")[0]
    assert all(map(torch.equal, fresh.state_dict().values(), again.state_dict().values()))


@pytest.mark.parametrize(
    ("teacher", "weights", "message"),
    [
        ("resnet18_small_w8", None, "add teacher_weights=FILE"),
        ("resnet18_smal_w8", None, "did you mean resnet18_small_w8"),
        ("resnet18", "TEACHER", "name the right one"),
        ("TEACHER", "random", "is a file already"),
    ],
)
def test_teachers_that_cannot_be(tmp_path: Path, teacher: str, weights: str, message: str) -> None:
    path = tmp_path / "teacher.safetensors"
    write_teacher(path, encoder=ResNet(depth=18, width=0.125, stem="small"))
    given = [
        None if text is None else text.replace("TEACHER", str(path)) for text in (teacher, weights)
    ]
    with pytest.raises(ConfigError, match=message):
        build(*given)


def test_teacher_without_classifier_or_file(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    write_encoder(path)
    with pytest.raises(UserError, match="without a classifier"):
        build(str(path), None)
    with pytest.raises(UserError, match=r"gone\.safetensors"):
        build(str(tmp_path / "gone.safetensors"), None)


def test_known_labels_are_minus_one_elsewhere(tmp_path: Path) -> None:
    data = image_folder(str(write_folder(tmp_path)), split="train")
    labels = known_labels(data, 0.2, draw=0)
    assert (labels >= 0).sum() == 12
    assert torch.equal(labels[labels >= 0], data.labels[labels >= 0])
    assert torch.equal(known_labels(data, 1.0, draw=0), data.labels)


def test_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = write_folder(tmp_path / "data")
    path = tmp_path / "teacher.safetensors"
    sha256 = write_teacher(path)
    before = path.read_bytes()
    out = tmp_path / "out"
    settings = [f"teacher={path}", "student=resnet18_small_w8", *QUICK]
    reads = count_reads(monkeypatch)
    distil.main(composed("distill", root, f"out={out}", *settings))
    assert reads == [path.name]
    teacher, student = results.read(out / "results.jsonl")
    # 60 images, 3 epochs, batches of 16
    assert student.config["steps"] == OmegaConf.load(out / "config.yaml").steps == 12
    assert distil.resolve(composed("distill", root, f"out={out}", *settings)).steps == 12
    typed = composed("distill", root, f"out={out}", *settings, "steps=2")
    assert distil.resolve(typed).steps == 2
    assert path.read_bytes() == before
    assert (teacher.extra["role"], student.extra["role"]) == ("teacher", "student")
    assert teacher.weights == student.extra["teacher"] == sha256
    net = load_classifier(out / "encoder.safetensors")
    assert net.sha256 == student.weights
    assert net.classes == CLASSES
    assert net.head is None
    assert net.preprocess == preprocess()
    assert student.extra["parameters"] == sum(p.numel() for p in net.parameters())
    assert student.extra["bytes"] == (out / "encoder.safetensors").stat().st_size
    assert teacher.extra["bytes"] == len(before)
    assert student.dataset == "data/test"


def test_labels_are_mixed_in_and_other_classes_refused(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", train=24, test=6)
    path = tmp_path / "teacher.safetensors"
    write_teacher(path)
    settings = [f"teacher={path}", "student=resnet18_small_w8", *QUICK]
    mixed = [*settings, "alpha=0.5", "labels=0.5", "steps=2"]
    distil.main(composed("distill", root, f"out={tmp_path / 'mixed'}", *mixed))
    assert "ce " in (tmp_path / "mixed" / "log.txt").read_text()
    write_teacher(path, classes=["cat", "dog", "red"])
    with pytest.raises(ConfigError, match="blue, green, and the teacher does not have"):
        distil.main(composed("distill", root, f"out={tmp_path / 'other'}", *settings))


def test_random_teacher_on_unlabelled_images(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", train=18, test=3)
    out = tmp_path / "out"
    cfg = composed(
        "distill",
        root,
        f"out={out}",
        "teacher=resnet18_small_w8",
        "teacher_weights=random",
        "student=resnet18_small_w8",
        "size=16",
        "classes=7",
        *QUICK,
    )
    cfg.data.train = {
        "_target_": "visrep.data.folders.folder",
        "root": str(root / "train"),
        "recursive": True,
    }
    cfg.data.test = None
    distil.main(cfg)
    net = load_classifier(out / "encoder.safetensors")
    assert net.fc.out_features == 7
    assert net.classes is None
    assert not (out / "results.jsonl").exists()


@pytest.mark.slow
def test_the_largest_teacher_takes_a_step(tmp_path: Path) -> None:
    """R152 3x with selective kernels, 3.2 GB in float32, into R50."""
    root = write_folder(tmp_path / "data", train=6, test=3)
    settings = ["teacher=resnet152_3x_sk", "teacher_weights=random", "student=resnet50"]
    settings += ["size=64", "batch_size=2", "steps=1", "views.scale=[0.5,1.0]"]
    settings += ["optim.warmup_epochs=0", "snapshot_every=0"]
    cfg = composed("distill", root, f"out={tmp_path / 'out'}", *settings)
    cfg.data.test = None
    distil.main(cfg)
    student = load_classifier(tmp_path / "out" / "encoder.safetensors")
    assert sum(p.numel() for p in student.encoder.parameters()) == 23_508_032
    untrained = distil.backbone("resnet50", seed=0, role="student")
    assert fingerprint(untrained.state_dict()) != fingerprint(student.encoder.state_dict())


def test_the_teachers_classes_are_found_by_name(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    images = torch.zeros(2, 3, 16, 16, dtype=torch.uint8)
    train = MemoryImages(name="d/train", images=images)
    test = MemoryImages(
        name="d/val", images=images, labels=torch.tensor([0, 1]), classes=["blue", "red"]
    )
    net = Classifier(encoder=tiny_net(), classes=3, zero_init=False)
    net.classes = CLASSES
    names, (same, mapped) = teachers_classes(net, train, test)
    assert names == CLASSES and same is train and mapped.labels.tolist() == [0, 2]
    assert "d/val has no image of green" in caplog.text
    caplog.clear()
    # Without names the numbers must be equal, and it is said.
    net.classes = None
    with pytest.raises(ConfigError, match="3 classes are not the 2 of d/val"):
        teachers_classes(net, train, test)
    test.classes = ["blue", "green", "red"]
    names, (_, mapped) = teachers_classes(net, train, test)
    assert names == CLASSES and mapped.labels.tolist() == [0, 1]
    assert "does not say what its 3 outputs stand for" in caplog.text
    assert teachers_classes(net, train, None)[0] is None


def test_a_test_part_that_is_broken_is_found_before_the_training(tmp_path: Path) -> None:
    root = write_folder(tmp_path / "data", train=6, test=6)
    for at, path in enumerate(sorted(root.rglob("test/*/*.png"))):
        path.write_bytes(b"no image" if at else path.read_bytes())
    write_teacher(tmp_path / "teacher.safetensors")
    settings = [f"teacher={tmp_path / 'teacher.safetensors'}", "student=resnet18_small_w8", *QUICK]
    cfg = composed("distill", root, f"out={tmp_path / 'out'}", *settings)
    cfg.data.test.update({"memory_limit": 0, "max_broken": 0.9})
    with pytest.raises(UserError, match="1 of 6 images cannot be read"):
        distil.main(cfg)
    assert not (tmp_path / "out" / "metrics.jsonl").exists()


def test_labels_of_training_images_are_the_teachers_as_well(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The training part lacks green, so its red is class 1 there and class 2 of the teacher."""
    root = write_folder(tmp_path / "data", train=18, test=6)
    shutil.rmtree(root / "train" / "green")
    write_teacher(tmp_path / "teacher.safetensors")
    seen = []

    class Watched(distil.Distillation):
        def __init__(self, **settings: object) -> None:
            seen.append(settings["labels"])
            super().__init__(**settings)

    monkeypatch.setattr(distil, "Distillation", Watched)
    settings = [f"teacher={tmp_path / 'teacher.safetensors'}", "student=resnet18_small_w8", *QUICK]
    given = [f"out={tmp_path / 'out'}", *settings, "alpha=0.5", "steps=1"]
    distil.main(composed("distill", root, *given))
    assert seen[0].tolist() == [0] * 6 + [2] * 6
