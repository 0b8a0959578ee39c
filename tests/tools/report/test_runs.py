"""What is gathered of a folder of runs, and what is said of damaged files."""

import re
from pathlib import Path

import pytest

from tests.tools.report.sample_runs import html_of, record, write
from visrep import results
from visrep.errors import UserError
from visrep.tools.report import rows as report_rows
from visrep.tools.report import runs as report_runs


def test_a_measurement_made_again_counts_once_and_last():
    early = record(value=1.0, time="2026-11-24T10:00:00+00:00", extra={"bytes": 3})
    late = record(value=2.0, time="2026-11-24T11:00:00+00:00", extra={"bytes": 4})
    other = record(value=3.0, seed=1)
    assert report_runs.latest([late, other, early]) == [other, late]


def detected(root, name, *, value=60.0, sha="d", seed=0, again=None, dataset="scenes/test", rate=1):
    trained = {"weights": "w.pth", "lr": rate, "detection": {"train": "big", "test": dataset}}
    measured = {"weights": None, "detector": again, "detection": {"train": "no", "test": dataset}}
    config = measured if again else trained
    extra = {"detector": sha * 64, "form": "VOC area"}
    about = {"task": "detection", "metric": "AP50", "dataset": dataset, "extra": extra}
    hour = 20 if again else 10 + seed
    own = record(value=value, seed=seed, config=config, time=f"2026-11-24T{hour}", **about)
    write(root, name, own, config=config)


def test_a_detector_measured_again_counts_once(tmp_path):
    detected(tmp_path, "one", seed=0, value=60.0)
    detected(tmp_path, "two", seed=1, value=64.0, sha="e")
    detected(tmp_path, "slow", seed=1, value=10.0, sha="f", rate=0.1)
    before = report_runs.collect(tmp_path).records
    detected(tmp_path, "one_again", again="one", seed=7)
    detected(tmp_path, "two_again", again="two", seed=7, value=64.0, sha="e")
    assert report_runs.collect(tmp_path).records == before


def test_a_detector_on_other_data_is_a_repetition_of_its_own_training(tmp_path):
    for name, sha, seed, rate in (("one", "d", 0, 1), ("two", "e", 1, 1), ("slow", "f", 1, 0.1)):
        detected(tmp_path, name, sha=sha, seed=seed, rate=rate)
        about = {"again": name, "sha": sha, "dataset": "other/test"}
        detected(tmp_path, f"{name}_again", value=40.0 + seed, **about)
    gathered = report_runs.collect(tmp_path)
    rows = [row for row in report_rows.rows(gathered) if row.dataset == "other/test"]
    assert {row.setting: row.spread("pretrained").n for row in rows} == {"lr=1": 2, "lr=0.1": 1}
    detected(tmp_path, "strange", again="lost", sha="0", dataset="other/test")
    rows = report_rows.rows(report_runs.collect(tmp_path))
    assert sorted(r.spread("pretrained").n for r in rows if r.dataset == "other/test") == [1, 1, 2]


def test_a_second_training_replaces_the_curve_of_the_first():
    steps = [(20, 3.0), (40, 2.0), (20, 9.0), (40, 8.0), (60, 7.0)]
    folder = report_runs.Folder(
        path=Path("x"), name="x", metrics=[{"step": s, "loss": v} for s, v in steps]
    )
    assert folder.points("loss") == [(20, 9.0), (40, 8.0), (60, 7.0)]


def test_empty_and_absent_folders_are_named(tmp_path):
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "none"))):
        html_of(tmp_path / "none")
    (tmp_path / "empty" / "below").mkdir(parents=True)
    with pytest.raises(UserError, match=re.escape(str(tmp_path / "empty"))):
        html_of(tmp_path / "empty")
    assert not list((tmp_path / "empty").glob("*.html"))


def test_a_damaged_results_file_is_named_with_its_line(tmp_path):
    path = write(tmp_path, "knn", record()) / "results.jsonl"
    whole = path.read_text()
    for damaged in (whole + '{"task": "knn"\n' + whole, whole + "[]\n"):
        path.write_text(damaged)
        with pytest.raises(UserError, match=r"knn/results\.jsonl:2"):
            html_of(tmp_path)
    path.write_bytes(b"\xff\xfe\x00\n")
    with pytest.raises(UserError, match=r"knn/results\.jsonl:1"):
        html_of(tmp_path)


def test_a_last_record_that_was_cut_short_is_passed_over(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(results.log, "propagate", True)
    path = write(tmp_path, "knn", record(value=12.5)) / "results.jsonl"
    path.write_text(path.read_text() + '{"task": "knn", "value": 99.9')
    html = html_of(tmp_path)
    assert "12.5" in html and "99.9" not in html
    assert "results.jsonl:2: cut short, so it is passed over" in caplog.text


def test_half_a_line_of_metrics_is_skipped(chain, capsys):
    path = chain / "pretrain" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"loss": 1}\n{"step": 500, "lo')
    html = html_of(chain)
    assert "2 unreadable lines" in capsys.readouterr().out
    assert html.count("<polyline") == 2


def test_a_method_is_called_by_its_title_and_before_titles_by_its_yaml(tmp_path):
    for name, extra, config in (
        ("new", {"method": "simclr_scenes", "title": "SimCLR"}, {"name": "simclr_scenes"}),
        ("old", {"method": "moco_v2_scenes"}, {"name": "moco_v2_scenes"}),
        ("configured", {}, {"name": "byol_scenes"}),
        ("bare", {}, {}),
    ):
        write(tmp_path, name, record(task="pretrain", extra=extra), config=config)
    titles = {folder.name: folder.title for folder in report_runs.collect(tmp_path).folders}
    assert titles == {
        "new": "SimCLR",
        "old": "moco_v2_scenes",
        "configured": "byol_scenes",
        "bare": "bare",
    }


def test_an_encoder_is_known_by_its_hash_then_by_its_place(tmp_path):
    for name in ("a", "deep/a", "b"):
        pre = record(task="pretrain", weights=name[-1] * 64)
        write(tmp_path, name, pre, config={"backbone": {"depth": 18}})
    write(tmp_path, "knn", record(weights="b" * 64), config={})
    runs = report_runs.collect(tmp_path)
    for sha, place, name in (
        ("b", "/moved/runs/a/encoder.safetensors", "b"),
        ("f", "/moved/runs/a/encoder.safetensors", "a"),
        ("f", "/moved/deep/a/encoder.safetensors", "deep/a"),
        ("f", "/moved/ba/encoder.safetensors", None),
    ):
        origin = runs.origin(record(weights=sha * 64, config={"weights": place}))
        assert (origin and origin.name) == name


def test_the_first_file_that_can_be_read_is_taken_of_each_initialisation(tmp_path):
    for name, init, content in (
        ("a", "random", "{"),
        ("b", "random", '{"x": 1}'),
        ("c", "random", '{"x": 2}'),
        ("d", "pretrained", '{"y": 3}'),
    ):
        write(tmp_path, name, record(init=init))
        (tmp_path / name / "x.json").write_text(content)
    runs = report_runs.collect(tmp_path)
    found = runs.read_each("x.json", lambda content: content["x"])
    assert [(folder.name, content) for folder, content in found] == [("b", 1)]
    assert runs.notes[0] == "d/x.json was left out: no 'x'."
    assert runs.notes[1].startswith("a/x.json was left out: Expecting") and len(runs.notes) == 2
