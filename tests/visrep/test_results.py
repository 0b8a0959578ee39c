"""Records survive the file, and a broken line is named."""

import pytest

from visrep import files, results
from visrep.errors import UserError

RECORD = results.Record(
    task="knn",
    dataset="scenes/test",
    metric="top1",
    value=71.2,
    weights="ab" * 32,
    init="pretrained",
    command="visrep knn weights='a b.safetensors'",
    config={"k": 20},
    engine="visrep",
    seed=3,
    extra={"bn": "initial"},
)


def test_round_trip(tmp_path):
    path = tmp_path / "run" / "results.jsonl"
    results.append(path, RECORD)
    results.append(path, RECORD)
    assert results.read(path) == [RECORD, RECORD]


def test_a_number_that_is_none_is_refused(tmp_path):
    record = results.Record(**{**vars(RECORD), "value": float("nan")})
    with pytest.raises(ValueError):
        results.append(tmp_path / "r.jsonl", record)
    assert not (tmp_path / "r.jsonl").exists()


@pytest.mark.parametrize("line", ['{"task": "knn"', '{"task": "knn"}', "[]"])
def test_a_broken_line_is_named(tmp_path, line):
    path = tmp_path / "results.jsonl"
    results.append(path, RECORD)
    path.write_text(path.read_text() + line + "\n")
    with pytest.raises(UserError, match="results.jsonl:2: not a results record"):
        results.read(path)


def test_a_record_after_one_that_was_cut_has_a_line_of_its_own(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(files.log, "propagate", True)
    path = tmp_path / "results.jsonl"
    for _ in range(2):
        results.append(path, RECORD)
    path.write_text(path.read_text()[:-30])
    assert results.read(path) == [RECORD]  # as a report reads it
    assert "results.jsonl:2: cut short" in caplog.text
    results.append(path, RECORD)
    assert results.read(path) == [RECORD, RECORD]
    assert "its last line was cut short and is dropped" in caplog.text
    path.write_text(path.read_text()[:-1])  # only the end of the line is missing
    results.append(path, RECORD)
    assert results.read(path) == [RECORD] * 3


def test_a_file_that_is_none_of_ours_is_one_line(tmp_path):
    path = tmp_path / "results.jsonl"
    path.write_bytes(b"\xff\xfe\n")
    with pytest.raises(UserError, match="results.jsonl:1: not a results record"):
        results.read(path)
    with pytest.raises(UserError, match="cannot read"):
        results.read(tmp_path)


def test_a_measurement_is_known_by_what_was_measured(tmp_path):
    path = tmp_path / "results.jsonl"
    assert not results.holds(path, RECORD)
    results.append(path, RECORD)
    later = results.Record(**{**vars(RECORD), "time": "later", "command": "", "config": {}})
    other = results.Record(**{**vars(RECORD), "extra": {"k": 3}})
    better = results.Record(**{**vars(RECORD), "value": 80.0})
    assert results.holds(path, later)
    assert not results.holds(path, other) and not results.holds(path, better)
