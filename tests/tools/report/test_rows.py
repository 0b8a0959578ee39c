"""Which numbers stand side by side."""

from pathlib import Path

import pytest

from tests.tools.report.sample_runs import record, write
from visrep.tools.report.rows import Row, rows
from visrep.tools.report.runs import collect


def table_of(root: Path) -> list[Row]:
    return rows(collect(root))


def test_rows_take_random_weights_from_the_untrained_twin(chain):
    rows = table_of(chain)
    assert [(row.task, row.metric) for row in rows] == [
        ("knn", "top1"),
        ("finetune", "top1"),
        ("detection", "AP50"),
    ]
    assert [row.gain for row in rows] == pytest.approx([40.0, 30.0, 1.0])
    assert [row.overlap for row in rows] == [False, False, True]
    assert all(row.chain == row.setting == "" for row in rows)


def test_two_methods_are_two_rows_that_share_their_random_init(tmp_path):
    backbone = {"depth": 18}
    for name, value in (("simclr", 70.0), ("moco", 60.0)):
        sha = name[0] * 64
        pre = record(task="pretrain", metric="loss", weights=sha)
        write(tmp_path, name, pre, config={"name": name, "backbone": backbone, "t": name})
        weights = {"weights": f"elsewhere/{name}/encoder.safetensors"}
        write(tmp_path, f"knn-{name}", record(value=value, weights=sha, config=weights))
    # The same method again with another seed is a repetition, not a method of its own.
    write(
        tmp_path,
        "again",
        record(task="pretrain", metric="loss", weights="b" * 64),
        config={"name": "moco", "backbone": backbone, "t": "moco", "seed": 1},
    )
    write(tmp_path, "knn-again", record(value=62.0, weights="b" * 64))
    random = {"init": "random", "weights": "f" * 64}
    config = {"weights": "elsewhere/simclr/encoder.safetensors"}
    write(tmp_path, "knn-random", record(value=30.0, config=config, **random))
    rows = table_of(tmp_path)
    assert [(row.chain, row.gain) for row in rows] == [("moco", 31.0), ("simclr", 40.0)]
    assert rows[0].spread("pretrained").n == 2


def test_unlike_runs_are_not_averaged(tmp_path):
    for init, gain in (("random", 0.0), ("pretrained", 10.0)):
        for steps, value in ((100, 40.0), (900, 70.0)):
            again = {"init": init, "config": {"steps": steps}, "task": "detection"}
            write(tmp_path, f"{init}{steps}", record(value=value + gain, metric="AP50", **again))
    rows = table_of(tmp_path)
    assert [(row.setting, row.gain) for row in rows] == [("steps=100", 10.0), ("steps=900", 10.0)]
    write(tmp_path, "odd", record(task="detection", metric="AP50", config={"steps": 5}))
    (row,) = table_of(tmp_path)
    assert any("steps" in note for note in row.notes)
