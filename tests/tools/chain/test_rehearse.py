"""The rehearsal: its plan, its commands, its table, and a small one from end to end."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from visrep import config, results
from visrep.errors import CheckFailed, ConfigError
from visrep.tools.chain import jobs, rehearse
from visrep.tools.chain import rehearse_table as table

# A `visrep` that writes what the commands would, in no time: every kNN and SVM gains 20 points but
# NPID's, which gains 5, and BYOL ends as a run does that has collapsed.
FAKE = """
import json, sys
from pathlib import Path
command, settings = sys.argv[1], dict(a.split("=", 1) for a in sys.argv[2:])
out = Path(settings["out"])
out.mkdir(parents=True, exist_ok=True)
def record(metric, value, **extra):
    line = {"task": command, "dataset": "scenes/test", "metric": metric, "value": value,
            "weights": "w", "init": settings.get("init", "pretrained"), "command": "c",
            "config": {"batch_size": int(settings.get("batch_size", 1))}, "engine": "visrep",
            "seed": 0, "extra": extra}
    (out / "results.jsonl").write_text(json.dumps(line))
if command == "benchmark":
    record("ideal_step_over_whole_step", 0.8, whole_ms=20.0)
elif command == "pretrain":
    (out / "encoder.safetensors").write_text("x")
    lines = [{"step": int(settings["steps"]), "images_per_s": speed} for speed in (1, 100, 120)]
    (out / "metrics.jsonl").write_text("\\n".join(map(json.dumps, lines)))
    lost = "byol" in settings["method"] and settings["steps"] != "0"
    health = {"verdict": "collapsed" if lost else "healthy", "line": "a line"}
    (out / "health.json").write_text(json.dumps(health))
    sys.exit(4 if lost else 0)
elif settings.get("init") == "random":
    record("top1", 12.0 if settings.get("bn") == "reestimated" else 30.0)
else:
    record("top1", 35.0 if "npid" in settings["weights"] else 50.0)
"""
SHORT = ("minutes=2", "jobs=2")


@pytest.fixture
def fake(monkeypatch, tmp_path):
    package = tmp_path / "fake" / "visrep"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(FAKE)
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    return tmp_path / "out"


def settings(out: Path, *overrides: str):
    return config.compose("rehearse", [f"out={out}", *SHORT, *overrides])[0]


def test_every_method_has_a_recipe_and_every_job_is_a_command(tmp_path):
    cfg = settings(tmp_path)
    methods = rehearse.entered(cfg)
    assert [method.name for method in methods] == list(cfg.methods)
    assert len(methods) == 10 and set(cfg.methods) == set(cfg.shares)
    planned = {method: rehearse.Training(10, 1.0) for method in cfg.methods}
    first = rehearse.untrained(tmp_path, methods, cfg) + rehearse.benchmarks(methods)
    for chain in (first, rehearse.trainings(tmp_path, methods, cfg, planned)):
        seen: set[str] = set()
        for job in chain:
            assert set(job.needs) <= seen and job.name not in seen, job.name
            seen.add(job.name)
            command, *overrides = jobs.command_of(job, tmp_path)
            composed, _ = config.compose(command, overrides)
            assert str(tmp_path) in str(composed.out)


def test_both_sides_are_measured_alike(tmp_path):
    """Same command, same settings; only weights and init differ."""
    cfg = settings(tmp_path, "methods=[simclr,exemplar]")

    def plain(job) -> tuple[str, ...]:
        return tuple(a for a in job.arguments if not a.startswith(("weights=", "init=")))

    methods = rehearse.entered(cfg)
    planned = {method: rehearse.Training(10, 1.0) for method in cfg.methods}
    after = {job.name: job for job in rehearse.trainings(tmp_path, methods, cfg, planned)}
    before = {job.name: job for job in rehearse.untrained(tmp_path, methods, cfg)}
    for measure, method, family in (
        ("knn", "simclr", "resnet"),
        ("linear", "simclr", "resnet"),
        ("knn", "exemplar", "exemplar"),
        ("linear", "exemplar", "exemplar"),
        ("svm", "exemplar", "exemplar"),
    ):
        fresh = before[f"{measure}-random-{family}"]
        assert plain(after[f"{measure}-{method}"]) == plain(fresh)
        assert "init=random" in fresh.arguments


def test_what_the_classes_and_the_recipes_say(tmp_path):
    own, moco = rehearse.entered(
        settings(tmp_path, "methods=[exemplar,moco_v2]", "shares.exemplar=3")
    )
    assert (own.title, own.judge, own.family, own.normed) == (
        "Exemplar-CNN",
        "svm",
        own.name,
        False,
    )
    assert own.share == 3 and own.measures == ("svm", "linear", "knn")
    assert not any(setting.startswith("backbone=") for setting in own.recipe)
    assert (moco.title, moco.judge, moco.family, moco.normed) == ("MoCo v2", "knn", "resnet", True)
    assert "backbone=resnet10_small_w4" in moco.recipe and "bn_splits=2" in moco.step


def test_a_plan_fills_the_time_by_shares(fake):
    methods = rehearse.entered(
        settings(fake, "methods=[simclr,byol]", "shares.byol=3", "shares.simclr=1")
    )
    jobs.run_all(rehearse.benchmarks(methods), fake, slots=2)
    planned = rehearse.plan(fake, methods, minutes=1, seconds=200.0)
    simclr, byol = planned["simclr"], planned["byol"]
    assert byol.steps == pytest.approx(3 * simclr.steps, abs=3)
    evaluating = sum(rehearse.TAKES[name] for name in ("knn", "linear")) * 2
    spent = simclr.seconds + byol.seconds + evaluating
    assert spent == pytest.approx(200 * rehearse.SLACK, abs=2 + 10 * (1 - rehearse.SLACK))
    with pytest.raises(ConfigError, match="leaves no time for a step of simclr"):
        rehearse.plan(fake, methods, minutes=1, seconds=20.0)


def test_a_rehearsal_in_which_all_pass_and_its_second_call(fake, capsys):
    cfg = settings(fake, "methods=[simclr,exemplar,barlow_twins]")
    rehearse.main(cfg)
    printed = capsys.readouterr().out
    line = next(line for line in printed.splitlines() if line.startswith("SimCLR"))
    assert line.split()[1:] == [
        *["30.0", ">", "50.0", "30.0", ">", "50.0", "+20.0", "healthy"],
        *[line.split()[-3], "100", "1.25"],
    ]
    assert "Exemplar-CNN's gain is that of its SVM on all layers: 30.0 > 50.0" in printed
    found = json.loads((fake / "rehearsal.json").read_text())
    assert found["bar"] == 10 and all(row["passed"] for row in found["rows"])
    with Image.open(fake / "rehearsal.png") as picture:
        assert picture.size[0] > 1000
    rehearse.main(cfg)  # the plan and all results are there
    again = capsys.readouterr().out
    assert again.count("there already") == printed.count(" eta ")
    with pytest.raises(ConfigError, match="planned with another minutes"):
        rehearse.main(settings(fake, "methods=[simclr,exemplar,barlow_twins]", "minutes=3"))


def test_a_method_below_the_bar_and_one_that_collapses_are_named(fake, capsys):
    with pytest.raises(CheckFailed, match=r"below the bar of 10 points: npid, byol;") as caught:
        rehearse.main(settings(fake, "methods=[byol,npid,simclr]"))
    assert caught.value.exit_code == 3
    printed = capsys.readouterr().out
    npid = next(line for line in printed.splitlines() if line.startswith("NPID"))
    assert "30.0 > 35.0" in npid and "+5.0  MISSED" in npid
    byol = next(line for line in printed.splitlines() if line.startswith("BYOL"))
    assert "30.0 > -" in byol and "collapsed" in byol and "MISSED" in byol
    assert (fake / "rehearsal.png").exists()


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (("methods=[simclr,dino]",), "choose from"),
        (("methods=[simclr,simclr]",), "each once"),
        (("methods=[]",), "choose from"),
        (("minutes=0",), "minutes=0: give a number, above 0"),
        (("shares.simclr=0",), "shares.simclr=0: a share must be above 0"),
    ],
)
def test_wrong_settings_are_refused(tmp_path, overrides, message):
    with pytest.raises(ConfigError, match=message):
        rehearse.main(settings(tmp_path / "out", *overrides))


def test_the_picture_holds_the_numbers(tmp_path):
    change = table.Change(30.0, 52.0)
    measures = {"knn": change, "linear": table.Change(20.0, None)}
    row = table.Row("npid", "NPID", "knn", measures, "-", 1000, None, 1.5)
    judged, linear = table.draw([row], bar=10.0).axes
    assert [round(bar.get_width(), 1) for bar in judged.patches] == [30.0, 52.0]
    assert list(judged.lines[0].get_xdata()) == [40.0, 40.0]
    assert [bar.get_width() for bar in linear.patches] == [20.0] and not linear.lines


def command(out: Path, *overrides: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-m", "visrep", "rehearse", f"out={out}", *overrides],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
    )


@pytest.mark.slow
def test_a_small_rehearsal(tmp_path):
    """Two methods on the real commands; too short for the bar, which is what the code says."""
    small = ("methods=[simclr,npid]", "net=resnet10_small_w4", "minutes=1.2", "bar=90")
    done = command(tmp_path / "out", *small)
    assert done.returncode == 3, done.stdout + done.stderr
    assert "below the bar of 90 points" in done.stderr
    rows = json.loads((tmp_path / "out" / "rehearsal.json").read_text())["rows"]
    assert {row["method"] for row in rows} == {"simclr", "npid"}
    for row in rows:
        assert row["cost"] > 0.8 and row["images_per_s"] > 0 and row["images"] > 0
        assert all(0 < value < 100 for value in row["measures"]["knn"].values())
    (speed,) = results.read(tmp_path / "out" / "speed-npid" / "results.jsonl")
    assert speed.extra["passes"] == 3


@pytest.mark.slow
def test_the_whole_rehearsal(tmp_path):
    """Thirty minutes on two idle cores: every method beats the bar."""
    done = command(tmp_path / "out", "minutes=30")
    assert done.returncode == 0, done.stdout + done.stderr
