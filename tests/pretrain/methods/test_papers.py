"""Every `configs/paper/*.yaml` is a published run: it builds in full, its header says which."""

import functools
import re
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf

from visrep.config import compose, instantiate
from visrep.engine import optim
from visrep.engine.run import open_run
from visrep.errors import ConfigError
from visrep.groups import choices
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.paths import config_dir

IMAGES = 1281167  # of ImageNet's training set

# Method, encoder, epochs, batch, peak rate, weight decay, published number.
RUNS = {
    "npid_200ep": ("NPID", (50, 1, False), 200, 256, 0.03, 1e-4, 46.5),
    "moco_v1_200ep": ("MoCo", (50, 1, False), 200, 256, 0.03, 1e-4, 60.6),
    "moco_v2_200ep": ("MoCo", (50, 1, False), 200, 256, 0.03, 1e-4, 67.5),
    "moco_v2_800ep": ("MoCo", (50, 1, False), 800, 256, 0.03, 1e-4, 71.1),
    "simclr_100ep": ("SimCLR", (50, 1, False), 100, 4096, 4.8, 1e-6, 64.6),
    "simclr_200ep": ("SimCLR", (50, 1, False), 200, 4096, 4.8, 1e-6, 66.5),
    "simclr_400ep": ("SimCLR", (50, 1, False), 400, 4096, 4.8, 1e-6, 68.2),
    "simclr_800ep": ("SimCLR", (50, 1, False), 800, 4096, 4.8, 1e-6, 68.9),
    "simclr_1000ep": ("SimCLR", (50, 1, False), 1000, 4096, 4.8, 1e-6, 69.3),
    "simclr_b256_200ep": ("SimCLR", (50, 1, False), 200, 256, 1.2, 1e-6, 64.3),
    "simclr_v2_r50": ("SimCLR", (50, 1, False), 800, 4096, 6.4, 1e-4, 71.7),
    "simclr_v2_r50_sk": ("SimCLR", (50, 1, True), 800, 4096, 6.4, 1e-4, 74.6),
    "simclr_v2_r152_3x_sk": ("SimCLR", (152, 3, True), 800, 4096, 6.4, 1e-4, 79.8),
    "swav_100ep": ("SwAV", (50, 1, False), 100, 4096, 4.8, 1e-6, 72.1),
    "swav_200ep": ("SwAV", (50, 1, False), 200, 4096, 4.8, 1e-6, 73.9),
    "swav_400ep": ("SwAV", (50, 1, False), 400, 4096, 4.8, 1e-6, 74.6),
    "swav_800ep": ("SwAV", (50, 1, False), 800, 4096, 4.8, 1e-6, 75.3),
    "swav_2x224_400ep": ("SwAV", (50, 1, False), 400, 4096, 4.8, 1e-6, 70.1),
    "swav_b256_200ep": ("SwAV", (50, 1, False), 200, 256, 0.6, 1e-6, 72.7),
    "swav_b256_400ep": ("SwAV", (50, 1, False), 400, 256, 0.6, 1e-6, 74.3),
    "byol_100ep": ("BYOL", (50, 1, False), 100, 4096, 7.2, 1e-6, 66.5),
    "byol_300ep": ("BYOL", (50, 1, False), 300, 4096, 4.8, 1e-6, 72.5),
    "byol_1000ep": ("BYOL", (50, 1, False), 1000, 4096, 3.2, 1.5e-6, 74.3),
    "simsiam_100ep": ("SimSiam", (50, 1, False), 100, 256, 0.05, 1e-4, 68.1),
    "simsiam_200ep": ("SimSiam", (50, 1, False), 200, 256, 0.05, 1e-4, 70.0),
    "simsiam_400ep": ("SimSiam", (50, 1, False), 400, 256, 0.05, 1e-4, 70.8),
    "simsiam_800ep": ("SimSiam", (50, 1, False), 800, 256, 0.05, 1e-4, 71.3),
    "barlow_twins_300ep": ("BarlowTwins", (50, 1, False), 300, 2048, 1.6, 1e-6, 71.4),
    "barlow_twins_1000ep": ("BarlowTwins", (50, 1, False), 1000, 2048, 1.6, 1e-6, 73.2),
    "exemplar": ("Exemplar", None, 60, 128, 0.01, 5e-4, 74.2),
}


@functools.cache
def composed(name: str, *overrides: str) -> object:
    cfg, _ = compose("pretrain", [f"paper={name}", "out=unused", "data.root=unused", *overrides])
    return cfg


def built(name: str) -> tuple:
    """Configuration, task, optimizer and schedule of the whole run, without its memory."""
    cfg = composed(name)
    counts = {"images": IMAGES} if "images" in cfg.method else {}
    with torch.device("meta"):
        task = instantiate(cfg.method, encoder=instantiate(cfg.backbone), **counts)
    steps = IMAGES // cfg.batch_size
    optimizer, schedule = optim.build(
        task,
        **cfg.optim,
        batch_size=cfg.batch_size,
        steps_per_epoch=steps,
        total_steps=steps * cfg.epochs,
    )
    return cfg, task, optimizer, schedule


def header(name: str) -> str:
    """The comments at the top of the file as one line."""
    lines = (config_dir() / "paper" / f"{name}.yaml").read_text().splitlines()
    assert lines[0] == "# @package _global_"
    end = next(i for i, line in enumerate(lines) if not line.startswith("#"))
    return " ".join(line.lstrip("# ").rstrip("\\ ") for line in lines[1:end])


def test_all_runs_are_listed() -> None:
    assert set(RUNS) == set(choices("paper"))


@pytest.mark.parametrize("name", RUNS)
def test_a_run_builds_with_its_values(name: str) -> None:
    method, encoder, epochs, batch, rate, decay, _ = RUNS[name]
    cfg, task, optimizer, schedule = built(name)
    assert type(task).__name__ == method
    if encoder is None:
        assert isinstance(task.encoder, ExemplarNet) and task.encoder.spec == {"net": "largest"}
    else:
        spec = task.encoder.spec
        assert (spec["depth"], spec["width"], spec["sk"]) == encoder
        assert task.encoder.out_dim == 2048 * encoder[1]
    assert (cfg.epochs, cfg.batch_size) == (epochs, batch)
    peak = optimizer.param_groups[0]
    assert (peak["initial_lr"], peak["weight_decay"]) == (pytest.approx(rate), decay)
    assert max(schedule(i / 1000) for i in range(1000)) == pytest.approx(1, abs=1e-3)
    instantiate(cfg.views)


@pytest.mark.parametrize("name", RUNS)
def test_the_header_has_the_commands(name: str) -> None:
    text = header(name)
    assert f"visrep pretrain paper={name} " in text and f"out=runs/{name} " in text
    evaluation = re.search(r"visrep (knn|linear|svm) weights=runs/(\w+)/encoder", text)
    assert evaluation is not None and evaluation[2] == name
    assert composed(name).published[0].task == evaluation[1]


@pytest.mark.parametrize("name", RUNS)
def test_the_published_numbers_are_keys(name: str) -> None:
    published = composed(name).published
    assert published[0].value == RUNS[name][-1]
    for number in published:
        assert set(number) == {"task", "dataset", "metric", "value", "weights", "source", "runs"}
        assert number.metric == "top1" and 0 < number.value < 100
        assert number.source.startswith(("arXiv ", "README of "))


def test_a_run_of_ones_own_has_no_published_number() -> None:
    cfg, _ = compose("pretrain", ["out=unused"])
    assert "published" not in cfg


@pytest.mark.parametrize("name", RUNS)
def test_the_commands_in_the_header_are_accepted(name: str) -> None:
    found = re.findall(r"visrep (\w+) ((?:[\w.]+=\S+ ?)+)", header(name))
    assert len(found) == 2 and found[0][0] == "pretrain"
    for command, settings in found:
        compose(command, settings.split())


def test_a_run_begun_without_published_numbers_resumes(tmp_path: Path) -> None:
    out = [f"out={tmp_path / 'run'}", "data.root=unused", "resume=auto", "threads=1"]
    cfg, _ = compose("pretrain", ["paper=moco_v2_200ep", *out])
    before = OmegaConf.create({key: value for key, value in cfg.items() if key != "published"})
    open_run(before)
    (tmp_path / "run" / "metrics.jsonl").write_text("")
    assert open_run(cfg).config["published"][0]["value"] == 67.5
    cfg.epochs = 3
    with pytest.raises(ConfigError, match="epochs"):
        open_run(cfg)


def test_steps_that_stand_for_epochs() -> None:
    assert built("swav_800ep")[1].freeze_steps == 313 == IMAGES // 4096 + 1
    assert built("swav_800ep")[1].queue is None
    small = built("swav_b256_200ep")[1]
    assert small.freeze_steps == 5005 == IMAGES // 256 + 1
    assert small.queue_start == 15 * (IMAGES // 256) and len(small.queue.keys) == 3840


def test_the_ends_of_the_schedules() -> None:
    for name, first, last in (("swav_b256_400ep", 0.6, 0.0006), ("swav_100ep", 0.3, 0.0048)):
        _, _, optimizer, schedule = built(name)
        (peak,) = {group["initial_lr"] for group in optimizer.param_groups}  # of all parameters
        assert schedule(0) * peak == pytest.approx(first)
        assert schedule(1 - 1e-7) * peak == pytest.approx(last, rel=1e-3)


def test_what_differs_between_lengths() -> None:
    momenta = {name: composed(name).method.momentum for name in RUNS if name.startswith("byol")}
    assert momenta == {"byol_100ep": 0.99, "byol_300ep": 0.99, "byol_1000ep": 0.996}
    assert [view.scale for view in instantiate(composed("swav_2x224_400ep").views).views] == (
        [(0.08, 1.0)] * 2
    )
    assert composed("exemplar").views.classes == 16000 == composed("exemplar").method.classes


def test_a_run_takes_overrides() -> None:
    cfg = composed("moco_v2_800ep", "backbone=resnet18", "views=moco_v1", "epochs=3")
    assert (cfg.backbone.depth, cfg.epochs, list(cfg.views.order)) == (18, 3, ["gray", "jitter"])
