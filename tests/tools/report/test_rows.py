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
    odd = record(task="detection", metric="AP50", value=99.0, config={"steps": 5})
    write(tmp_path, "odd", odd)
    rows = table_of(tmp_path)
    assert [(row.setting, row.gain) for row in rows] == [
        ("steps=100", 10.0),
        ("steps=5", None),  # nothing from scratch was trained so
        ("steps=900", 10.0),
    ]
    assert [row.spread("pretrained").n for row in rows] == [1, 1, 1]


def finetuned(root: Path, name: str, value: float, **about) -> None:
    labels, selector = about.pop("labels", 0.1), about.pop("selector", 1)
    config = {"selector": selector, "labels": labels, "weights": "w.pth"} | about.pop("config", {})
    extra = {"labels": labels, "selector": selector}
    about = {"task": "finetune", "config": config, "extra": extra} | about
    write(root, name, record(value=value, **about))


def test_no_cell_holds_two_nets_selectors_or_recipes(tmp_path):
    """Each of the values of a cell has the same tens digit, and only seeds are averaged."""
    cell = 0
    for weights in ("a", "b"):  # two files, or one that was replaced
        for selector in (0, 1):
            for rate in (0.1, 0.2):
                cell += 10
                for seed in range(3):
                    config = {"optim": {"lr": rate}, "draw": seed, "seed": seed}
                    about = {"selector": selector, "weights": 64 * weights, "seed": seed}
                    name = f"{weights}{selector}{rate}{seed}"
                    finetuned(tmp_path, name, cell + 2.0 * seed, config=config, **about)
    finetuned(tmp_path, "random", 5.0, init="random", selector=0, weights="f" * 64)
    rows = table_of(tmp_path)
    sides = [row.spread("pretrained") for row in rows]
    assert sorted(side.mean for side in sides) == [10 * n + 2.0 for n in range(1, 9)]
    assert {(side.n, side.deviation) for side in sides} == {(3, 2.0)}
    assert len({(row.chain, row.setting) for row in rows}) == 8
    assert all(row.spread("random").mean == 5.0 for row in rows)
    assert all(any("selector" in note or "optim.lr" in note for note in row.notes) for row in rows)


def test_pretrainings_of_one_name_are_apart(tmp_path):
    """Of another length, beside another method: once only their names were looked at."""
    for name, method, epochs, value in (
        ("short", "simclr", 100, 50.0),
        ("long", "simclr", 800, 70.0),
        ("other", "moco", 200, 60.0),
    ):
        sha = name[0] * 64
        pre = record(task="pretrain", metric="loss", weights=sha)
        config = {"name": method, "backbone": {"depth": 18}, "epochs": epochs}
        write(tmp_path, name, pre, config=config)
        write(tmp_path, f"knn-{name}", record(value=value, weights=sha))
    rows = table_of(tmp_path)
    assert sorted(row.spread("pretrained").mean for row in rows) == [50.0, 60.0, 70.0]
    assert {row.chain for row in rows} == {"simclr, epochs=100", "simclr, epochs=800", "moco"}


def test_an_untrained_net_of_another_backbone_is_not_averaged_in(tmp_path):
    for name, depth, steps in (("pre", 18, 9), ("small", 18, 0), ("large", 50, 0)):
        config = {"name": "simclr", "backbone": {"depth": depth}, "steps": steps}
        sha = name[0] * 64
        write(tmp_path, name, record(task="pretrain", weights=sha), config=config)
    write(tmp_path, "knn", record(value=70.0, weights="p" * 64, config={}))
    for name, value in (("small", 30.0), ("large", 10.0)):
        config = {"weights": f"x/{name}/encoder.safetensors"}
        about = {"init": "random", "weights": "0" * 64, "config": config}
        write(tmp_path, f"knn-{name}", record(value=value, **about))
    table = {row.chain: row for row in table_of(tmp_path)}
    assert table["simclr"].gain == 40.0
    assert table["large"].spread("random").mean == 10.0 and table["large"].gain is None
