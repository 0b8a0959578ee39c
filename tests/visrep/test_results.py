"""Records survive the file, and a broken line is named."""

import pytest

from visrep import results
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
