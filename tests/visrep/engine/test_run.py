"""A run folder: whose it is, what it says of the run, and which run may go on in it."""

import importlib
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from omegaconf import DictConfig, OmegaConf

from visrep import renamed, results
from visrep.config import compose
from visrep.engine import snapshot
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError, UserError
from visrep.paths import config_dir


def settings(out: Path, **more: Any) -> DictConfig:
    given = {"out": str(out), "seed": 3, "resume": "auto", "steps": None, "optim": {"lr": 0.1}}
    return OmegaConf.create(given | more)


def begin(out: Path, **more: Any) -> Run:
    return open_run(settings(out, **more), computed=["steps"])


def begun(out: Path, *, steps: int = 60, **more: Any) -> None:
    """A run that has found its steps and written something."""
    cfg = settings(out, **more)
    run = open_run(cfg, computed=["steps"])
    cfg.steps = steps
    run.settle(cfg)
    (out / "metrics.jsonl").write_text("{}\n")


def stored(out: Path) -> Any:
    return yaml.safe_load((out / "config.yaml").read_text())


def test_the_folder_and_the_records_state_what_ran(tmp_path: Path) -> None:
    cfg = settings(tmp_path / "run")
    run = open_run(cfg, computed=["steps"])
    assert stored(run.out)["steps"] is None
    cfg.steps = 60
    run.settle(cfg)
    assert stored(run.out)["steps"] == run.config["steps"] == 60
    run.record_all({"top1": 1.5, "top5": 2}, task="t", dataset="d", of="it", weights="w", k=4)
    records = results.read(run.out / "results.jsonl")
    assert [(r.metric, r.value, r.extra) for r in records] == [
        ("top1", 1.5, {"k": 4}),
        ("top5", 2.0, {"k": 4}),
    ]
    assert records[0].config["steps"] == 60
    assert "t top1 of it on d: 1.50 %" in (run.out / "log.txt").read_text()


def test_a_null_goes_on_with_the_value_it_was_computed_to(tmp_path: Path) -> None:
    begun(tmp_path)
    begun(tmp_path)  # typed as before, computed as before
    begin(tmp_path, steps=60)
    with pytest.raises(ConfigError, match=r"\(steps\)"):
        begin(tmp_path, steps=61)
    with pytest.raises(ConfigError, match=r"\(steps\)"):
        begun(tmp_path, steps=61)  # the data have changed since


def test_a_null_that_nobody_computes_is_another_value(tmp_path: Path) -> None:
    begun(tmp_path)
    with pytest.raises(ConfigError, match=r"\(steps\)"):
        open_run(settings(tmp_path))
    with pytest.raises(ConfigError, match=r"\(optim\.lr\)"):
        begin(tmp_path, optim={"lr": None})


def test_what_may_differ_and_what_may_not(tmp_path: Path) -> None:
    begun(tmp_path, workers=2, views=[{"size": 8}, {"size": 4}])
    begun(tmp_path, workers=0, views=[{"size": 8}, {"size": 4}], plugins=[])
    with pytest.raises(ConfigError, match=r"\(optim\.lr, seed, views\)"):
        begin(tmp_path, seed=4, optim={"lr": 0.2}, views=[{"size": 8}, {"size": 5}])


# Every target of 0.1.0's yaml files.
OF_0_1_0 = [
    "pretrain.methods.simclr.SimCLR",
    "pretrain.methods.moco.MoCo",
    "pretrain.methods.swav.SwAV",
    "pretrain.methods.simsiam.SimSiam",
    "pretrain.methods.npid.NPID",
    "pretrain.methods.exemplar.Exemplar",
    "pretrain.methods.byol.BYOL",
    "pretrain.methods.barlow_twins.BarlowTwins",
    "visrep.nn.resnet.ResNet",
    "visrep.nn.exemplar_nets.ExemplarNet",
    "visrep.data.recipes.recipe",
    "visrep.data.exemplar.Exemplars",
    "visrep.data.datasets.image_folder",
    "visrep.data.datasets.cifar10",
    "visrep.data.datasets.folder",
    "visrep.data.voc_labels.voc_labels",
    "visrep.data.stl10.stl10",
    "visrep.data.scenes.detection",
    "visrep.data.scenes.crops",
    "visrep.data.detection.read_voc",
    "visrep.data.detection.read_voc_sets",
    "visrep.data.detection.read_coco",
]


@pytest.mark.parametrize("old", OF_0_1_0)
def test_a_run_folder_of_0_1_0_goes_on(tmp_path: Path, old: str) -> None:
    now = renamed.module(old) or old
    module, _, name = now.rpartition(".")
    assert callable(getattr(importlib.import_module(module), name))
    assert renamed.module(now) is None
    begun(tmp_path, part={"_target_": old}, parts=[{"_target_": old}])
    begin(tmp_path, part={"_target_": now}, parts=[{"_target_": now}])
    with pytest.raises(ConfigError, match=r"\(part\._target_\)"):
        begin(tmp_path, part={"_target_": "visrep.other"}, parts=[{"_target_": now}])


# The settings of `visrep detect` in 0.2.
BEFORE = [
    "weights",
    "prefix",
    "detector",
    "out",
    "init",
    "engine",
    "outputs",
    "stem_stride",
    "norm",
    "freeze_at",
    "momentum",
    "weight_decay",
    "warmup_factor",
    "flip",
    "c4",
    "fpn",
    "anchor_ratios",
    "mask_width",
    "rpn_batch",
    "roi_batch",
    "score_threshold",
    "nms_threshold",
    "detections_per_image",
    "precision",
    "detectron2",
    "d2_opts",
    "published",
    "workers",
    "max_broken",
    "snapshot_every",
    "log_every",
    "resume",
    "resume_data",
    "extend",
    "seed",
    "device",
    "threads",
    "overwrite",
]


def test_a_detection_of_before_goes_on(tmp_path: Path) -> None:
    """Every setting that came since is null, changes no step, or is known as what runs did."""
    given = ["weights=x", "task=scenes", "resume=auto", f"out={tmp_path}"]
    cfg = compose("detect", given)[0]
    of_command = yaml.safe_load((config_dir() / "detect.yaml").read_text())
    open_run(cfg)
    old = {key: value for key, value in stored(tmp_path).items() if key not in of_command}
    old |= {key: value for key, value in stored(tmp_path).items() if key in BEFORE}
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(old))
    (tmp_path / "metrics.jsonl").write_text("{}\n")
    assert open_run(cfg).begun == old
    with pytest.raises(ConfigError, match=r"\(accumulate\)"):
        open_run(compose("detect", [*given, "accumulate=2"])[0])


def test_harmless_differences_are_no_refusal(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    data = {"train": {"max_broken": 0.001, "workers": 2}, "test": None}
    more = {"knn": {"times": 3}, "snapshot_every": 5, "max_broken": 0.1, "weights": "w"}
    (tmp_path / "w").write_text("")
    begun(Path("run"), **more, data=data)
    data = {"train": {"max_broken": 0.2, "workers": 4}, "test": None}
    more = {"knn": {"times": 0}, "snapshot_every": 9, "max_broken": 0.2}
    begin(Path("./run"), **more, data=data, weights="./w")
    moved = (tmp_path / "run").rename(tmp_path / "moved")
    begin(moved, **more, data=data, weights=str(tmp_path / "w"))
    (tmp_path / "v").write_text("")
    with pytest.raises(ConfigError, match=r"\(weights\)"):
        begin(moved, **more, data=data, weights="v")


def test_the_data_may_lie_elsewhere_when_their_content_is_known(tmp_path: Path) -> None:
    record = {"count": 1, "classes": None, "kind": "bytes", "fingerprint": "a", "images": None}
    begun(tmp_path, data={"root": "/here"})
    with pytest.raises(ConfigError, match=r"\(data\.root\)"):
        begin(tmp_path, data={"root": "/there"})
    begin(tmp_path, data={"root": "/here"}).know_data(record)
    run = begin(tmp_path, data={"root": "/there"})
    run.know_data(record)
    assert not run.changed
    with pytest.raises(ConfigError, match="content of images differs"):
        begin(tmp_path, data={"root": "/there"}).know_data(record | {"fingerprint": "b"})


def test_other_data_may_make_other_steps(tmp_path: Path) -> None:
    record = {"count": 1, "classes": None, "kind": "bytes", "fingerprint": "a", "images": None}
    begun(tmp_path)
    begin(tmp_path).know_data(record)
    cfg = settings(tmp_path, resume_data="changed")
    run = open_run(cfg, computed=["steps"])
    run.know_data(record | {"fingerprint": "b"})
    cfg.steps = 70
    run.settle(cfg)
    assert run.changed and stored(tmp_path)["steps"] == 70


def test_a_run_may_be_made_longer_on_request(tmp_path: Path) -> None:
    begun(tmp_path, steps=60)
    with pytest.raises(ConfigError, match=r"\(steps\): extend=true makes the run longer"):
        begin(tmp_path, steps=80)
    with pytest.raises(ConfigError, match=r"\(steps\): .*not shorter"):
        begin(tmp_path, steps=40, extend=True)
    with pytest.raises(ConfigError, match=r"\(seed, steps\)|\(seed\)"):
        begin(tmp_path, steps=80, extend=True, seed=9)
    with pytest.raises(ConfigError, match="no snapshot to go on from"):
        begin(tmp_path, steps=80, extend=True)
    snapshot.save(tmp_path / "snapshots", 60, {"task": {}})
    begun(tmp_path, steps=80, extend=True)
    assert stored(tmp_path)["steps"] == 80


@pytest.mark.parametrize("content", ["[", "- 1", "a: \x00", "b: [1", "just words"])
def test_a_broken_config_is_named(tmp_path: Path, content: str) -> None:
    begun(tmp_path)
    (tmp_path / "config.yaml").write_text(content)
    with pytest.raises(UserError, match=r"cannot read .*config\.yaml") as caught:
        begin(tmp_path)
    assert "\n" not in str(caught.value)


def test_snapshots_without_the_settings_of_their_run_are_not_gone_on_with(tmp_path: Path) -> None:
    begun(tmp_path / "run")
    snapshot.save(tmp_path / "run/snapshots", 3, {"task": {}})
    (tmp_path / "run/config.yaml").unlink()
    with pytest.raises(UserError, match="config.yaml: it is not there, and snapshots are"):
        begin(tmp_path / "run")


def test_a_place_that_cannot_be_a_run_folder_is_one_line(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UserError, match="is a file: choose a folder"):
        begin(tmp_path / "file")
    with pytest.raises(UserError, match="Not a directory"):
        begin(tmp_path / "file" / "run")

    def read_only(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(Path, "mkdir", read_only)
    with pytest.raises(UserError, match="Read-only file system; choose a folder that can be"):
        begin(tmp_path / "run")


def test_rests_of_a_killed_start_do_not_fill_a_folder(tmp_path: Path) -> None:
    (tmp_path / ".config.abcd_123.yaml").write_text("se")
    open_run(OmegaConf.create({"out": str(tmp_path)}))
    assert not list(tmp_path.glob(".config*"))


@pytest.mark.parametrize("name", ["snapshots", "results.jsonl"])
def test_what_cannot_be_kept_at_the_end_is_told_at_the_beginning(tmp_path: Path, name) -> None:
    begun(tmp_path)
    if name == "results.jsonl":
        (tmp_path / name).write_text("no record\n")
    else:
        (tmp_path / name).write_bytes(b"x")
    with pytest.raises(UserError, match=name):
        begin(tmp_path, resume="auto")


def test_a_resumed_run_records_nothing_twice(tmp_path: Path) -> None:
    about: Any = {"task": "t", "dataset": "d", "of": "it", "weights": "w"}
    begun(tmp_path)
    begin(tmp_path).record_all({"top1": 1.5}, **about)
    begin(tmp_path).record_all({"top1": 1.5, "top5": 3}, **about)
    found = [(r.metric, r.value) for r in results.read(tmp_path / "results.jsonl")]
    assert found == [("top1", 1.5), ("top5", 3.0)]


def test_kernels_are_looked_for_where_all_inputs_have_one_size(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr("visrep.engine.parallel.join", lambda _: torch.device("cuda"))
    for name in ("benchmark", "allow_tf32"):  # what they were is put back
        monkeypatch.setattr(torch.backends.cudnn, name, getattr(torch.backends.cudnn, name))
    before = torch.get_float32_matmul_precision()
    try:
        open_run(settings(tmp_path / "one"))
        assert torch.backends.cudnn.benchmark
        open_run(settings(tmp_path / "many"), fixed_shapes=False)
        assert not torch.backends.cudnn.benchmark
    finally:
        torch.set_float32_matmul_precision(before)
