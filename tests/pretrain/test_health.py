"""Collapse and divergence, induced through the command itself: code 4, verdict, knob, files."""

import json
from pathlib import Path
from statistics import fmean

import pytest
import torch

from visrep.cli import main
from visrep.engine import snapshot
from visrep.engine.health import WINDOW
from visrep.pretrain.methods.swav import SwAV

RUN = (
    *("pretrain", "data=scenes", "backbone=resnet18_small", "backbone.width=0.0625", "threads=1"),
    *(
        "batch_size=32",
        "views.size=16",
        "knn.times=0",
        "optim.lr_rule=none",
        "optim.warmup_epochs=0",
    ),
    *("log_every=3", "snapshot_every=3", "steps=120"),
)
BYOL = ("method=byol_small", "method.hidden_dim=64", "method.out_dim=32", "optim.lr=0.3")
FREE = ("method.momentum=0.5", "method.final_momentum=0.5", "method.predictor=false")
SIMSIAM = ("method=simsiam_small", "method.out_dim=64", "method.predictor_dim=16", "optim.lr=2")
SWAV = ("method=swav_small", "optim=sgd", "optim.lr=100")
LARS = ("method=simclr_small", "optim=lars", "optim.lr=1e7", "optim.exclude=[]")


def run(out: Path, *arguments: str) -> int:
    with pytest.raises(SystemExit) as caught:
        main([*RUN, *arguments, f"out={out}"])
    return int(caught.value.code or 0)


def ended(out: Path, capsys, *arguments: str) -> tuple[str, dict, list[int]]:
    """The error's line, the verdict, the steps of the good snapshots."""
    assert run(out, *arguments) == 4
    err = capsys.readouterr().err
    assert len(err.strip().splitlines()) == 1, err
    assert not (out / "encoder.safetensors").exists()
    kept = torch.load(out / "offending_batch.pt", weights_only=True)
    (batch,) = kept["micro_batches"]
    assert len(batch["views"][0]) == len(batch["index"]) == 32 and isinstance(batch["seed"], int)
    steps = [step for step, _ in snapshot._snapshots(out / "snapshots")]
    return err, json.loads((out / "health.json").read_text()) | {"kept": kept["step"]}, steps


@pytest.mark.parametrize(
    ("arguments", "knob"),
    [((*BYOL, *FREE), "method.predictor=true"),
     ((*SIMSIAM, "method.stop_gradient=false"), "method.stop_gradient=true")],
    ids=["byol without predictor", "simsiam without stop-gradient"],
)  # fmt: skip
def test_a_collapse(tmp_path, capsys, arguments, knob) -> None:
    err, verdict, steps = ended(tmp_path, capsys, *arguments)
    assert "health: collapsed at step" in err and knob in err
    assert verdict["verdict"] == "collapsed" and knob in verdict["line"]
    assert verdict["spread"] < 0.03 or verdict["effective_rank"] < 2
    assert verdict["kept"] == verdict["step"] - 1 < 120
    readings = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert readings[0]["health"] == 0 and readings[-1]["health"] == 2
    assert {"spread", "effective_rank", "loss"} <= readings[-1].keys()
    # What is left for a resumed run was written before it closed up, and is whole.
    assert len(list((tmp_path / "snapshots").glob("collapsed-*.pt"))) == 2
    (step,) = steps
    # One reading may dip; a verdict is on the mean of the last ones.
    until = [reading for reading in readings if reading["step"] <= step][-WINDOW:]
    assert until[-1]["step"] == step
    assert fmean(reading["spread"] for reading in until) > 0.03
    assert fmean(reading["effective_rank"] for reading in until) > 2
    assert snapshot.latest(tmp_path / "snapshots")[0] == step


def test_prototypes_that_are_not_of_unit_length(tmp_path, capsys, monkeypatch) -> None:
    monkeypatch.setattr(SwAV, "normalize_prototypes", lambda self: None)
    err, verdict, _ = ended(tmp_path, capsys, *SWAV)
    assert verdict["verdict"] == "diverged" and "not finite" in err and "optim.lr" in err


def test_lars_on_biases_with_a_huge_rate(tmp_path, capsys) -> None:
    err, verdict, _ = ended(tmp_path, capsys, *LARS)
    assert verdict["verdict"] == "diverged" and "optim.exclude=[norm,bias]" in err


def test_images_that_are_not_finite(tmp_path, capsys) -> None:
    """A standard deviation of 1e-40 makes them infinite."""
    err, verdict, steps = ended(
        tmp_path, capsys, *SIMSIAM, "views.std=[1e-40,1e-40,1e-40]", "views.mean=[0,0,0]"
    )
    assert verdict["verdict"] == "diverged" and "the batch itself is not finite" in err
    assert verdict["step"] == 1 and verdict["kept"] == 0 and not steps
    assert "no snapshot is good" in err


def test_a_healthy_run_says_so_and_a_watch_can_be_off(tmp_path, capsys) -> None:
    healthy = (*SIMSIAM, "steps=20", "optim.lr=0.05")
    assert run(tmp_path / "a", *healthy) == 0
    assert "health: healthy at step 20" in capsys.readouterr().out
    verdict = json.loads((tmp_path / "a" / "health.json").read_text())
    assert verdict["verdict"] == "healthy" and verdict["levels"]["loss_collapsed"] == -1
    assert run(tmp_path / "b", *healthy, "health=off") == 0
    assert not (tmp_path / "b" / "health.json").exists()
    assert "health" not in (tmp_path / "b" / "metrics.jsonl").read_text()
    assert run(tmp_path / "c", *healthy, "health=perhaps") == 2
    assert "choose stop, warn or off" in capsys.readouterr().err
