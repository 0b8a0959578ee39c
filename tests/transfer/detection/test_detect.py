"""`visrep detect`: engines, records, files, and what it says about mistakes."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch

from tests.transfer.detection.shapes import coco_json, shapes, with_corners
from tests.visrep.data.semantic.layouts import (
    blocks,
    cityscapes,
    own,
    voc12,
    write_image,
    write_labels,
)
from visrep import results
from visrep.config import compose
from visrep.d2 import installed
from visrep.d2.tasks import recipe_of
from visrep.data.images import BrokenImages, read_image
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import (
    detect,
    detector_file,
    engine_d2,
    engine_tv,
    measuring,
    prediction,
)
from visrep.weights import save_encoder

SMALL = [
    "task=scenes",
    "iterations=3",
    "warmup=1",
    "batch_size=2",
    "train_sizes=[48]",
    "test_size=48",
    "fpn.channels=16",
    "fpn.box_width=32",
    "mask_width=8",
    "roi_batch=8",
    "score_threshold=0.0",
    "detections_per_image=10",
    "threads=1",
]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    torch.manual_seed(0)
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder = ResNet(depth=18, width=0.125, stem="small")
    save_encoder(path, encoder=encoder, preprocess=preprocess, source={"method": "none"})
    return path


@pytest.fixture
def data(tmp_path, monkeypatch):
    """The shapes in place of the scenes."""
    train = shapes(tmp_path / "train", images=6, seed=0)
    test = shapes(tmp_path / "test", images=4, seed=1, name="shapes/test")
    monkeypatch.setattr(detect, "read_data", lambda cfg: (train, test))
    return train, test


def run(weights, out, *overrides):
    cfg, _ = compose("detect", [f"weights={weights}", f"out={out}", *SMALL, *overrides])
    detect.main(cfg)
    return results.read(out / "results.jsonl")


BOXES = {"AP50", "AP", "AP75", "AP50_area", "AP_area", "AP75_area"}
COCO = {"AP", "AP50", "AP75", "AP_small"}


@pytest.mark.parametrize(
    ("engine", "head"),
    [
        ("torchvision", "c4"),
        pytest.param("detectron2", "fpn", marks=pytest.mark.detectron2),
    ],
)
def test_instance_run_records_boxes_and_masks(weights, data, tmp_path, engine, head, capsys):
    out = tmp_path / "run"
    records = run(weights, out, f"engine={engine}", "outputs=masks", f"head={head}", "seed=3")
    metrics = {record.metric: record for record in records}
    assert set(metrics) >= BOXES | {f"coco_{m}" for m in COCO} | {f"mask_{m}" for m in COCO}
    for record in records:
        assert (record.task, record.engine, record.seed) == ("instance", engine, 3)
        assert record.dataset == "shapes/test" and record.init == "pretrained"
        assert record.extra["recipe"] == record.config["task"] == "scenes"
        assert record.config["published"] == []
        assert 0 <= record.value <= 100
    assert metrics["AP50"].extra["form"] == "VOC 11-point"
    assert metrics["AP50_area"].extra["form"] == "VOC area"
    assert metrics["mask_AP"].extra["form"] == "COCO segm"
    assert metrics["coco_AP"].extra["backend"].startswith(("faster-coco-eval", "pycocotools"))
    assert f"engine: {engine} (asked for" in capsys.readouterr().out

    _, test = data
    found = prediction.load(out / "predictions.json")
    assert list(found) == [record.id for record in test.records]
    kept = json.loads((out / "predictions.json").read_text())
    assert kept["classes"] == ["square", "disc"]
    first = kept["images"][0]
    assert len(first["boxes"]) == len(first["scores"]) == len(first["labels"]) > 0
    assert first["scores"] == sorted(first["scores"], reverse=True)
    assert first["file"].endswith("000.png") and (first["height"], first["width"]) == (64, 48)
    rows = json.loads((out / "per_class.json").read_text())
    assert [row["class"] for row in rows["11-point"]] == ["square", "disc"]
    errors = json.loads((out / "errors.json").read_text())
    assert errors["objects"] == sum(row["truths"] for row in rows["11-point"])
    assert [row["class"] for row in errors["per_class"]] == ["square", "disc"]
    assert (out / "metrics.jsonl").exists()


def test_random_init_has_other_weights_and_no_masks_in_detection(weights, data, tmp_path):
    pretrained = run(weights, tmp_path / "a", "engine=torchvision")
    random = run(weights, tmp_path / "b", "engine=torchvision", "init=random")
    assert {r.weights for r in pretrained} != {r.weights for r in random}
    assert {r.init for r in random} == {"random"}
    assert {r.task for r in random} == {"detection"}
    assert not any(r.metric.startswith("mask_") for r in random)


def test_the_same_command_gives_the_same_predictions(weights, data, tmp_path):
    for name in ("a", "b"):
        run(weights, tmp_path / name, "engine=torchvision", "init=random")
    assert (tmp_path / "a/predictions.json").read_text() == (
        tmp_path / "b/predictions.json"
    ).read_text()


def test_a_run_is_resumed_from_its_snapshot(weights, data, tmp_path):
    whole = run(weights, tmp_path / "whole", "engine=torchvision", "snapshot_every=2")
    out = tmp_path / "cut"
    run(weights, out, "engine=torchvision", "snapshot_every=2", "resume=auto")
    (out / "snapshots" / "step-000000003.pt").unlink()
    (out / "detector.safetensors").unlink()
    (out / "results.jsonl").unlink()
    again = run(weights, out, "engine=torchvision", "snapshot_every=2", "resume=auto")
    assert [(r.metric, r.value) for r in again] == [(r.metric, r.value) for r in whole]


BOTH = ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]


@pytest.mark.parametrize("engine", BOTH)
def test_few_labels_are_kept_recorded_and_read_again(weights, data, tmp_path, engine, monkeypatch):
    few, listed = tmp_path / "few", tmp_path / "listed"
    head = "head=fpn"
    records = run(weights, few, f"engine={engine}", head, "labels=0.34", "draw=1", "resume=auto")
    names = (few / "labels.txt").read_text().split()
    by_name = {Path(r.file).name: r for r in data[0].records}
    assert len(names) == 2 and set(names) < set(by_name)
    boxes = sum(len(by_name[name].boxes) for name in names)
    wanted = {"labels": 0.34, "share": 1 / 3, "draw": 1, "label_images": 2, "label_boxes": boxes}
    assert all(wanted.items() <= record.extra.items() for record in records)
    path = few / "labels.txt"
    again_listed = run(weights, listed, f"engine={engine}", head, f"labels={path}")
    assert values(again_listed) == values(records)
    assert (listed / "labels.txt").read_text() == path.read_text()
    losses = (few / "metrics.jsonl").read_text().splitlines()[-1]
    run(weights, tmp_path / "all", f"engine={engine}", head)
    every = (tmp_path / "all" / "metrics.jsonl").read_text().splitlines()[-1]
    assert json.loads(losses)["loss"] != json.loads(every)["loss"]
    assert not (tmp_path / "all" / "labels.txt").exists()
    monkeypatch.setattr(detect, "instantiate", lambda node: data[1])
    kept = again(tmp_path / "again", few)
    assert all(wanted.items() <= record.extra.items() for record in kept)
    with pytest.raises(ConfigError, match=r"another configuration \(draw\)"):
        run(weights, few, f"engine={engine}", head, "labels=0.34", "draw=2", "resume=auto")


def test_a_run_from_before_there_were_labels_goes_on(weights, data, tmp_path):
    out = tmp_path / "old"
    first = run(weights, out, "engine=torchvision", "resume=auto")
    config = (out / "config.yaml").read_text().splitlines()
    old = [line for line in config if not line.startswith(("labels:", "draw:"))]
    assert len(old) == len(config) - 2
    (out / "config.yaml").write_text("\n".join(old))
    assert values(run(weights, out, "engine=torchvision", "resume=auto")) == values(first)
    (out / "config.yaml").write_text("\n".join(old))
    with pytest.raises(ConfigError, match=r"another configuration \(labels\)"):
        run(weights, out, "engine=torchvision", "resume=auto", "labels=0.5")


def again(out, detector, *overrides):
    """A detector that was kept, measured on the test part."""
    given = [f"detector={detector}", "detection=scenes", f"out={out}", "threads=1", *overrides]
    detect.main(compose("detect", given)[0])
    return results.read(out / "results.jsonl")


def values(records):
    return {record.metric: record.value for record in records}


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("head", ["c4", "fpn"])
def test_a_kept_detector_gives_its_numbers_again(
    weights, data, tmp_path, monkeypatch, engine, head
):
    """With the statistics that precise batch norm gave it; by its own engine unless told."""
    out = tmp_path / "run"
    first = run(weights, out, f"engine={engine}", f"head={head}", "precise_bn=2", "outputs=masks")
    monkeypatch.setattr(detect, "instantiate", lambda node: data[1])
    for number, path in enumerate((out, out / detector_file.NAMES[engine])):
        second = again(tmp_path / f"again{number}", path)
        assert values(second) == values(first)
        for a, b in zip(first, second, strict=True):
            assert (a.engine, a.weights, a.init, a.extra) == (b.engine, b.weights, b.init, b.extra)
    assert values(first)["coco_AP"] != -1
    kept = detector_file.read(out)
    assert kept.classes == ["square", "disc"] and kept.encoder == first[0].weights
    assert first[0].extra["detector"] == kept.sha256
    assert (out / "detectron2.yaml").exists() == (engine == "detectron2")
    with pytest.raises(ConfigError, match="detector is in out="):
        again(out, out, "overwrite=true")
    assert detector_file.read(out).sha256 == kept.sha256


@pytest.mark.detectron2
@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_a_kept_detector_is_measured_by_the_other_engine(
    weights, data, tmp_path, monkeypatch, engine
):
    other = {"torchvision": "detectron2", "detectron2": "torchvision"}[engine]
    first = run(weights, tmp_path / "run", f"engine={engine}")
    monkeypatch.setattr(detect, "instantiate", lambda node: data[1])
    second = again(tmp_path / "again", tmp_path / "run", f"engine={other}")
    assert {record.engine for record in second} == {other}
    assert values(second) == pytest.approx(values(first), abs=0.1)


def test_classes_are_matched_by_name(weights, data, tmp_path, monkeypatch):
    first = run(weights, tmp_path / "run", "engine=torchvision")
    turned = [
        dataclasses.replace(
            record,
            boxes=[dataclasses.replace(box, category=1 - box.category) for box in record.boxes],
        )
        for record in data[1].records
    ]
    other = dataclasses.replace(data[1], classes=["disc", "square"], records=turned)
    monkeypatch.setattr(detect, "instantiate", lambda node: other)
    assert values(again(tmp_path / "turned", tmp_path / "run")) == values(first)
    other.classes[0] = "dish"
    with pytest.raises(ConfigError, match="only one of them has disc, dish"):
        again(tmp_path / "renamed", tmp_path / "run")


@pytest.mark.parametrize("engine", BOTH)
def test_what_is_cut_short_after_training_is_not_trained_again(
    weights, data, tmp_path, monkeypatch, engine
):
    whole = run(weights, tmp_path / "whole", f"engine={engine}", "resume=auto")

    def cut(*_, **__):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(measuring, "gathered", cut)
        run(weights, tmp_path / "cut", f"engine={engine}", "resume=auto")
    for trainer in (engine_d2, engine_tv):
        monkeypatch.setattr(trainer, "train", cut)
    resumed = run(weights, tmp_path / "cut", f"engine={engine}", "resume=auto")
    assert values(resumed) == values(whole)


@pytest.mark.detectron2
def test_detectron2_reads_what_is_kept(weights, data, tmp_path):
    """By its own checkpointer, its own config beside it."""
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.config import get_cfg
    from detectron2.modeling import build_model

    from visrep.d2.backbone import add_visrep_config

    out = tmp_path / "run"
    run(weights, out, "engine=detectron2", "head=fpn")
    cfg = get_cfg()
    add_visrep_config(cfg)
    cfg.merge_from_file(str(out / "detectron2.yaml"))
    model = build_model(cfg)
    left = DetectionCheckpointer(model).load(str(out / "model_final.pth"))
    kept = detector_file.read(out).tensors
    state = model.state_dict()
    assert kept and all(torch.equal(state[name], tensor) for name, tensor in kept.items())
    assert left["__author__"] == "visrep"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([], "give weights="),
        (["weights=x", "detector=y"], "give weights="),
        (["weights=x"], "give a value: task=..., one of .*scenes"),
        (["detector=x", "task=scenes"], "detector= brings its own task: leave it out"),
        (["detector=x", "nms_threshold=0.3"], "brings its own nms_threshold"),
        (["detector=absent.pth"], "absent.pth"),
    ],
)
def test_what_is_given_must_fit_together(tmp_path, given, message):
    out = tmp_path / "run"
    cfg, _ = compose("detect", [*given, "detection=scenes", f"out={out}"])
    with pytest.raises(UserError, match=message):
        detect.main(cfg)
    assert not out.exists()


def test_files_that_hold_no_detector_are_refused(weights, tmp_path):
    foreign, damaged = tmp_path / "foreign.pth", tmp_path / "model_final.pth"
    torch.save({"model": {}}, foreign)
    damaged.write_bytes(b"PK no archive")
    for path in (weights, foreign, damaged, tmp_path / "absent", tmp_path):
        with pytest.raises(UserError, match=str(path.name)):
            detector_file.read(path)


def test_engine_auto_says_what_it_takes_and_why(monkeypatch):
    monkeypatch.setattr(installed, "version", lambda: ("0.6", ""))
    assert detect.choose_engine("auto") == ("detectron2", "version 0.6")
    monkeypatch.setattr(installed, "version", lambda: (None, "Detectron2 is not installed"))
    engine, reason = detect.choose_engine("auto")
    assert engine == "torchvision" and "Detectron2 is not installed" in reason
    with pytest.raises(
        ConfigError, match=r"not installed; install it as https://detectron2\.readth"
    ):
        detect.choose_engine("detectron2")
    assert detect.choose_engine("torchvision")[0] == "torchvision"
    with pytest.raises(ConfigError, match="engine=mmdet: choose"):
        detect.choose_engine("mmdet")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("outputs=stuff", "outputs=stuff: choose boxes or masks or keypoints or semantic"),
        ("norm=GN", "norm=GN: choose BN or SyncBN or naiveSyncBN or FrozenBN"),
        ("freeze_at=5", "freeze_at=5: 0 to 4 with head=c4"),
        ("head=c5", "head=c5: choose c4 or dc5 or fpn or fcn"),
        ("head=fcn", "head=fcn names pixels: outputs=semantic, not boxes"),
        ("iterations=0", "iterations=0"),
        ("lr=0", "lr=0"),
        ("warmup=3", "warmup=3 is not shorter than iterations=3"),
        ("decay_at=[1.5]", "decay_at"),
        ("train_sizes=[]", "train_sizes"),
        ("fpn.first=4", "first layer of the pyramid"),
        ("engine=other", "engine=other"),
        ("init=imagenet", "init=imagenet"),
        ("precision=fp8", "precision=fp8"),
    ],
)
def test_wrong_values_are_one_line(weights, data, tmp_path, override, message):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        run(weights, tmp_path / "run", "engine=torchvision", override)


@pytest.fixture
def corners(tmp_path):
    """A folder in COCO's layout, of shapes with their corners as keypoints."""
    root = tmp_path / "coco"
    (root / "annotations").mkdir(parents=True)
    for part, images, seed in (("train", 6, 0), ("val", 3, 1)):
        folder = root / f"{part}2017"
        content = coco_json(with_corners(shapes(folder, images=images, seed=seed)))
        path = root / "annotations" / f"person_keypoints_{part}2017.json"
        path.write_text(json.dumps(content))
    return root


def keypoints(weights, out, root, *overrides):
    small = [line for line in SMALL if not line.startswith("task=")]
    small += ["task=coco_keypoint_fpn_2x", "max_size=80", "fpn.first=2", "keypoint_width=8"]
    small += ["precise_bn=0", f"detection.root={root}", f"weights={weights}", f"out={out}"]
    detect.main(compose("detect", [*small, "decay_at=[0.5]", *overrides])[0])
    return {record.metric: record for record in results.read(out / "results.jsonl")}


def test_keypoints_are_learned_kept_and_measured_again(weights, corners, tmp_path):
    first = keypoints(weights, tmp_path / "a", corners, "engine=torchvision")
    assert set(first) >= BOXES | {"coco_AP", "keypoint_AP", "keypoint_AP50", "keypoint_AP75"}
    record = first["keypoint_AP"]
    assert record.task == "keypoints" and record.extra["form"] == "COCO keypoints"
    assert record.extra["sigmas"] == ["not stated", *[0.05] * 4]
    assert "sigmas" not in first["coco_AP"].extra
    found = prediction.load(tmp_path / "a" / "predictions.json")
    assert all(one.keypoints.shape[1:] == (4, 3) for one in found.values())
    file = detector_file.read(tmp_path / "a")
    assert file.keypoints["names"] == ["left_top", "right_top", "left_bottom", "right_bottom"]

    again = [f"detector={tmp_path / 'a'}", "detection=coco_keypoints", f"detection.root={corners}"]
    detect.main(compose("detect", [*again, f"out={tmp_path / 'b'}", "engine=torchvision"])[0])
    second = {r.metric: r for r in results.read(tmp_path / "b" / "results.jsonl")}
    assert second.keys() == first.keys()
    assert all(second[name].value == first[name].value for name in first)


@pytest.mark.detectron2
def test_keypoints_by_detectron2_and_measured_by_torchvision(weights, corners, tmp_path):
    first = keypoints(weights, tmp_path / "a", corners, "engine=detectron2")
    config = (tmp_path / "a" / "detectron2.yaml").read_text()
    assert "NUM_KEYPOINTS: 4" in config and "SMOOTH_L1_BETA: 0.5" in config
    again = [f"detector={tmp_path / 'a'}", "detection=coco_keypoints", f"detection.root={corners}"]
    for engine, out in (("torchvision", tmp_path / "b"), ("detectron2", tmp_path / "c")):
        detect.main(compose("detect", [*again, f"out={out}", f"engine={engine}"])[0])
        ours, theirs = (
            prediction.load(out / "predictions.json"),
            prediction.load(tmp_path / "a" / "predictions.json"),
        )
        for name, one in theirs.items():
            torch.testing.assert_close(ours[name].scores, one.scores, rtol=0, atol=1e-4)
            torch.testing.assert_close(ours[name].keypoints, one.keypoints, rtol=0, atol=1e-3)
    assert first["keypoint_AP"].engine == "detectron2"


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("detection.keypoint_flips=[[left_top,nose]]", "nose is no keypoint; choose from left_top"),
        ("detection.keypoint_sigmas=[0.1]", "give 4 numbers above 0"),
        ("box_beta=-1", "box_beta"),
        ("keypoint_width=0", "keypoint_width"),
        ("head=c4", "outputs=keypoints needs the pyramid"),
    ],
)
def test_keypoint_settings_that_are_wrong_are_one_line(
    weights, corners, tmp_path, override, message
):
    with pytest.raises(ConfigError, match=message.replace("[", r"\[")):
        keypoints(weights, tmp_path / "run", corners, "engine=torchvision", override)


def test_keypoint_data_that_are_wrong_are_one_line(weights, corners, tmp_path):
    path = corners / "annotations" / "person_keypoints_train2017.json"
    content = json.loads(path.read_text())
    wrong = copy.deepcopy(content)
    for category in wrong["categories"]:
        category["keypoints"] = ["a", "b", "c", "d"]
    path.write_text(json.dumps(wrong))
    with pytest.raises(ConfigError, match=r"keypoint_flips=\[\[a,b\]\] .*or flip=false"):
        keypoints(weights, tmp_path / "a", corners, "engine=torchvision")
    with pytest.raises(UserError, match="do not have the same keypoints in the same order: a, b"):
        keypoints(weights, tmp_path / "b", corners, "engine=torchvision", "flip=false")
    for part in ("train", "val"):
        own = corners / "annotations" / f"person_keypoints_{part}2017.json"
        own.rename(own.with_name(f"instances_{part}2017.json"))
    with pytest.raises(UserError, match="no object has a labelled keypoint"):
        keypoints(weights, tmp_path / "c", corners, "engine=torchvision", "detection=coco")


def test_what_only_detectron2_knows_is_refused_or_left_out(weights, data, tmp_path):
    own = "+detectron2.SOLVER.GAMMA=0.5"
    cropped = dataclasses.replace(
        recipe_of("scenes"), detectron2={"INPUT": {"CROP": {"ENABLED": True}}}
    )
    with pytest.raises(ConfigError, match="task=scenes has settings that only Detectron2"):
        detect.refuse(cropped, "torchvision")
    detect.refuse(cropped, "detectron2")
    assert run(weights, tmp_path / "b", "engine=torchvision", "detectron2=null")
    with pytest.raises(ConfigError, match="SOLVER.GAMMA"):
        run(weights, tmp_path / "c", "engine=torchvision", own)
    assert not (tmp_path / "c").exists()


def test_a_cifar_stem_is_coarsened_only_on_request(data, tmp_path, capsys):
    path = tmp_path / "cifar.safetensors"
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    encoder = ResNet(depth=18, width=0.125, stem="cifar")
    save_encoder(path, encoder=encoder, preprocess=preprocess, source={"method": "none"})
    with pytest.raises(ConfigError, match="stem_stride=2"):
        run(path, tmp_path / "a", "engine=torchvision")
    assert run(path, tmp_path / "b", "engine=torchvision", "stem_stride=2")
    assert (
        "changed network: stem_stride=2 makes the strides (2, 4, 8, 16)" in capsys.readouterr().out
    )


def test_settings_of_detectron2_need_detectron2(weights, data, tmp_path):
    with pytest.raises(ConfigError, match="d2_opts are settings of Detectron2"):
        run(weights, tmp_path / "run", "engine=torchvision", "d2_opts=[SOLVER.GAMMA,0.5]")


@pytest.mark.detectron2
def test_settings_of_detectron2_are_looked_at_before_the_data(weights, tmp_path, monkeypatch):
    monkeypatch.setattr(detect, "read_data", lambda cfg: pytest.fail("the data were read"))
    for given, message in (
        ("d2_opts=[SOLVER.MAX_ITER,9]", "use iterations="),
        ("d2_opts=[SOLVER.GAMA,0.5]", "SOLVER.GAMA"),
        ("d2_opts=SOLVER.GAMMA", "give"),
    ):
        with pytest.raises(ConfigError, match=message):
            run(weights, tmp_path / "run", "engine=detectron2", given)
    assert not (tmp_path / "run").exists()


def test_both_parts_are_looked_at_as_the_configuration_says(tmp_path, monkeypatch):
    from omegaconf import OmegaConf

    train = shapes(tmp_path / "train", images=2, seed=0)
    test = shapes(tmp_path / "test", images=3, seed=1, name="shapes/test")
    asked = {}

    def made(node, **arguments):
        asked[node.part] = arguments
        return {"train": train, "test": test, "none": None}[node.part]

    monkeypatch.setattr(detect, "instantiate", made)
    nodes = {"train": {"part": "train", "masks": True}, "test": {"part": "test"}, "classes": None}
    cfg = OmegaConf.create({"detection": nodes, "outputs": "boxes", "max_broken": 0.4})
    assert detect.read_data(cfg) == (train, test)
    assert asked == {"train": {"masks": False}, "test": {}}, "only a reader that has the choice"
    (tmp_path / "test/001.png").write_bytes(b"")
    kept = detect.read_data(cfg)[1]
    assert [r.id for r in kept.records] == ["000", "002"] and len(kept.broken.files) == 1
    cfg.max_broken = 0.1
    with pytest.raises(UserError, match=r"1 of 3 images cannot be read.*001\.png"):
        detect.read_data(cfg)
    cfg.detection.test.part = "none"
    with pytest.raises(ConfigError, match="to train and to test on"):
        detect.read_data(cfg)


def spoil(path):
    """Break a png between its ends, which no look at the ends shows."""
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)


@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_images_that_break_late_are_passed_over_and_recorded(
    weights, data, tmp_path, engine, capsys
):
    train, test = data
    for dataset, number in ((train, 2), (test, 1)):
        dataset.broken = BrokenImages(0.3, len(dataset.records))
        spoil(Path(dataset.records[number].file))
    records = run(weights, tmp_path / "run", f"engine={engine}", "iterations=12")
    assert all(record.extra["left_out"] == [test.records[1].file] for record in records)
    assert set(train.broken.files) == {train.records[2].file}
    assert set(prediction.load(tmp_path / "run/predictions.json")) == {"000", "002", "003"}
    said = capsys.readouterr().out
    assert f"skipped image {train.records[2].file}" in said
    assert f"skipped image {test.records[1].file}" in said


@pytest.mark.parametrize(
    "engine", ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
)
def test_more_broken_images_than_tolerated_end_the_run(weights, data, tmp_path, engine):
    spoil(Path(data[0].records[2].file))
    with pytest.raises(UserError, match=r"1 of 6 images cannot be read.*002\.png"):
        run(weights, tmp_path / "run", f"engine={engine}", "iterations=12")


@pytest.mark.parametrize("engine", BOTH)
def test_a_kept_detector_is_trained_on_by_a_word(weights, tmp_path, data, engine):
    out = tmp_path / "run"
    run(weights, out, f"engine={engine}", "snapshot_every=2")
    longer = [f"engine={engine}", "snapshot_every=2", "iterations=5", "resume=auto"]
    with pytest.raises(ConfigError, match="extend=true"):
        run(weights, out, *longer)
    records = run(weights, out, *longer, "extend=true")
    steps = [json.loads(line)["step"] for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert steps[-1] == 5 and len(steps) == len(set(steps))
    assert records[-1].extra["iterations"] == 5
    assert detector_file.read(detector_file.find(out)).recipe["iterations"] == 5


# Semantic segmentation

FCN = ["iterations=2", "batch_size=2", "crop=33", "fcn.width=16", "fcn.dilation=2", "threads=1"]


def segmented(weights, out, root, *overrides):
    given = [f"weights={weights}", f"out={out}", f"detection.root={root}", *overrides]
    detect.main(compose("detect", [*given, *FCN])[0])
    return results.read(out / "results.jsonl")


@pytest.mark.parametrize("engine", BOTH)
def test_an_fcn_is_trained_kept_and_measured_again(weights, tmp_path, engine):
    """VOC 2012 in its usual layout, from the command's own keys."""
    root, out = voc12(tmp_path / "data"), tmp_path / "run"
    first = segmented(weights, out, root, "task=voc12_fcn", f"engine={engine}")
    assert set(values(first)) == {"mIoU", "fwIoU", "mACC", "pACC"}
    for record in first:
        assert (record.task, record.engine, record.dataset) == ("semantic", engine, "VOC2012/val")
        assert record.extra["head"] == "fcn" and record.extra["recipe"] == "voc12_fcn"
        assert 0 <= record.value <= 100 and "bus" in record.extra["classes_without_truth"]
    kept = json.loads((out / "confusion.json").read_text())
    pixels = sum(51 * 40 - 51 if n % 2 == 0 else 51 * 40 - 40 for n in (4, 5))  # without the border
    assert sum(map(sum, kept["matrix"])) == pixels and len(kept["classes"]) == 21
    rows = json.loads((out / "per_class.json").read_text())["semantic"]
    assert [row["class"] for row in rows] == kept["classes"]
    listed = json.loads((out / "segmentations.json").read_text())["images"]
    for image in listed:
        named = read_image(out / image["segmentation"])
        assert named.shape == (3, image["height"], image["width"]) and int(named.max()) < 21
    given = [f"detector={out}", "detection=voc12_semantic", f"detection.root={root}", "threads=1"]
    detect.main(compose("detect", [*given, f"out={tmp_path / 'again'}"])[0])
    assert values(results.read(tmp_path / "again/results.jsonl")) == values(first)


@pytest.mark.detectron2
@pytest.mark.parametrize("engine", ["torchvision", "detectron2"])
def test_an_fcn_is_measured_by_the_other_engine(weights, tmp_path, engine):
    root, out = own(tmp_path / "data"), tmp_path / "run"
    data = ["task=voc12_fcn", "detection=semantic"]
    first = segmented(weights, out, root, *data, f"engine={engine}")
    other = {"torchvision": "detectron2", "detectron2": "torchvision"}[engine]
    given = [f"detector={out}", "detection=semantic", f"detection.root={root}", f"engine={other}"]
    detect.main(compose("detect", [*given, f"out={tmp_path / 'again'}", "threads=1"])[0])
    second = results.read(tmp_path / "again/results.jsonl")
    assert values(second) == pytest.approx(values(first), abs=0.1)
    shuffled = [*given, "detection.classes=[sky,road,wall]", f"out={tmp_path / 'b'}", "threads=1"]
    detect.main(compose("detect", shuffled)[0])
    assert values(results.read(tmp_path / "b/results.jsonl")) == pytest.approx(values(second))


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("task", ["cityscapes_fcn", "coco_semantic_fpn_1x"])
def test_the_other_tasks_of_pixels_run(weights, tmp_path, task, engine):
    if task == "cityscapes_fcn":
        root, own_keys = cityscapes(tmp_path / "data"), []
    else:
        root = stuff(tmp_path / "data")
        own_keys = ["train_sizes=[48]", "test_size=48", "fpn.channels=16", "semantic_width=32"]
        own_keys += ["precise_bn=2", "warmup=1", "crop=0"]
    out = tmp_path / "run"
    given = [f"weights={weights}", f"out={out}", f"detection.root={root}", f"task={task}"]
    detect.main(compose("detect", [*given, f"engine={engine}", *FCN, *own_keys])[0])
    assert "mIoU" in values(results.read(out / "results.jsonl"))


def test_an_fcn_is_resumed_from_its_snapshot(weights, tmp_path):
    root = own(tmp_path / "data")
    own_keys = ["task=voc12_fcn", "detection=semantic", "engine=torchvision", "snapshot_every=1"]
    own_keys += ["init=random"]
    whole = segmented(weights, tmp_path / "whole", root, *own_keys)
    out = tmp_path / "cut"
    segmented(weights, out, root, *own_keys, "resume=auto")
    for gone in ("snapshots/step-000000002.pt", "detector.safetensors", "results.jsonl"):
        (out / gone).unlink()
    again_ = segmented(weights, out, root, *own_keys, "resume=auto")
    assert values(again_) == values(whole)


def test_boxes_are_no_pixels_and_pixels_no_boxes(weights, tmp_path):
    with pytest.raises(ConfigError, match="outputs=semantic: .* has no classes of pixels"):
        segmented(weights, tmp_path / "a", tmp_path / "s", "task=voc12_fcn", "detection=scenes")
    root = own(tmp_path / "data")
    given = [f"weights={weights}", f"out={tmp_path / 'b'}", "detection=semantic", "task=scenes"]
    with pytest.raises(UserError, match="no image has a box"):
        detect.main(compose("detect", [*given, f"detection.root={root}", *SMALL[1:]])[0])


def stuff(root):
    """COCO's folders with two images for each part."""
    for number, split in enumerate(("train2017", "train2017", "val2017")):
        ids = blocks(48, 60, [0, 7, 53], seed=number)
        write_image(root / f"{split}/{number:012d}.jpg", ids)
        write_labels(root / f"panoptic_stuff_{split}/{number:012d}.png", ids)
    return root


def test_an_fcn_is_measured_on_the_way_and_draws_no_boxes(weights, tmp_path):
    root, out = own(tmp_path / "data"), tmp_path / "run"
    on_the_way = ["eval_every=1", "detection.val={split: val}"]
    data = ["task=voc12_fcn", "detection=semantic", "engine=torchvision", *on_the_way]
    segmented(weights, out, root, *data)
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert sum("val_mIoU" in row for row in rows) == 2
    assert not (out / "validation_segmentations").exists()
    given = [f"detector={out}", f"images={root / 'images'}", f"out={tmp_path / 'seen'}"]
    with pytest.raises(ConfigError, match="images= draws boxes, and this net names pixels"):
        detect.main(compose("detect", given)[0])


def test_an_fcn_of_a_share_of_the_labels_says_so(weights, tmp_path):
    root, out = own(tmp_path / "data"), tmp_path / "run"
    data = ["task=voc12_fcn", "detection=semantic", "engine=torchvision", "labels=0.5"]
    first = segmented(weights, out, root, *data)[0]
    assert (first.extra["labels"], first.extra["label_images"]) == (0.5, 2)
    assert len((out / "labels.txt").read_text().splitlines()) == 2
