"""What is gathered of a folder of runs, and what is said of damaged files."""

import re
from pathlib import Path

import pytest

from tests.tools.report.sample_runs import html_of, record, write
from visrep.errors import UserError
from visrep.tools.report import runs as report_runs


def test_a_measurement_made_again_counts_once_and_last():
    early = record(value=1.0, time="2026-11-24T10:00:00+00:00", extra={"bytes": 3})
    late = record(value=2.0, time="2026-11-24T11:00:00+00:00", extra={"bytes": 4})
    other = record(value=3.0, seed=1)
    assert report_runs.latest([late, other, early]) == [other, late]


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
    folder = write(tmp_path, "knn", record())
    with open(folder / "results.jsonl", "a") as stream:
        stream.write('{"task": "knn"')
    with pytest.raises(UserError, match=r"knn/results\.jsonl:2"):
        html_of(tmp_path)
    (folder / "results.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UserError, match=r"knn/results\.jsonl"):
        html_of(tmp_path)


def test_half_a_line_of_metrics_is_skipped(chain, capsys):
    path = chain / "pretrain" / "metrics.jsonl"
    path.write_text(path.read_text() + '{"loss": 1}\n{"step": 500, "lo')
    html = html_of(chain)
    assert "2 unreadable lines" in capsys.readouterr().out
    assert html.count("<polyline") == 2
