"""`seeds=`: each run as it would be alone, none twice, and what they are together."""

# ruff: noqa: F401, F811

import statistics

import pytest

from tests.transfer.detection.test_detect import data, run, values, weights
from visrep import results, signals
from visrep.config import compose
from visrep.d2.tasks import recipe_of, usual_data
from visrep.engine.run import plain_config
from visrep.errors import ConfigError
from visrep.transfer.detection import detect, engine_tv, several

SMALL = ["engine=torchvision", "score_threshold=0.0", "snapshot_every=1"]


def test_runs_are_those_of_their_seeds_and_their_mean_is_recorded(
    weights,
    data,
    tmp_path,
    capsys,
):
    out = tmp_path / "runs"
    row = "{metric: AP50, value: 60.2, weights: W, source: S, runs: 5}"
    summary = run(weights, out, *SMALL, "seed=3", "seeds=2", f"published=[{row}]")
    said = capsys.readouterr().out
    alone = [values(run(weights, tmp_path / f"{seed}", *SMALL, f"seed={seed}")) for seed in (3, 4)]
    assert alone[0] != alone[1]
    for seed, own in zip((3, 4), alone, strict=True):
        assert values(results.read(out / f"seed{seed}" / "results.jsonl")) == own
    assert {record.metric for record in summary} == set(alone[0])
    for record in summary:
        both = [own[record.metric] for own in alone]
        assert record.value == pytest.approx(statistics.fmean(both))
        assert record.extra["deviation"] == pytest.approx(statistics.stdev(both))
        assert (record.extra["low"], record.extra["high"]) == (min(both), max(both))
        assert record.extra["values"] == both and record.extra["seeds"] == [3, 4]
        assert record.extra["runs"] == 2 and "detector" not in record.extra
        known = [{"metric": "AP50", "value": 60.2, "weights": "W", "source": "S", "runs": 5}]
        assert record.extra["published"] == (known if record.metric == "AP50" else [])
        assert "engine=torchvision instead of detectron2" in record.extra["protocol_differs"]
        assert "iterations=3 instead of 450" in record.extra["protocol_differs"]
    assert "published of W: AP50 60.2 (S, 5 runs)" in said
    assert "protocol: not the published one: engine=torchvision instead" in said
    assert "over 2 runs" in (out / "log.txt").read_text()


def test_what_is_done_is_not_trained_again_and_what_was_cut_goes_on(
    weights,
    data,
    tmp_path,
    monkeypatch,
):
    whole = run(weights, tmp_path / "whole", *SMALL, "seeds=3")
    out, train, trained = tmp_path / "cut", engine_tv.train, []

    def until_the_second(**given):
        trained.append(given["run"].seed)
        if trained == [0, 1]:
            with monkeypatch.context() as patch:
                held = signals.Held()
                held.signum = 15
                patch.setattr(signals, "held", lambda: _told(held))
                return train(**given)
        return train(**given)

    monkeypatch.setattr(engine_tv, "train", until_the_second)
    with pytest.raises(signals.Interrupted):
        run(weights, out, *SMALL, "seeds=3", "resume=auto")
    assert trained == [0, 1] and several.done(out) == {"0": 3}
    assert not (out / "results.jsonl").exists()
    for word in ("must", "auto"):
        records = run(weights, out, *SMALL, "seeds=3", f"resume={word}")
        assert trained == [0, 1, 1, 2]
        assert [(r.metric, r.value, r.extra["values"]) for r in records] == [
            (r.metric, r.value, r.extra["values"]) for r in whole
        ]
    more = run(weights, out, *SMALL, "seeds=4", "resume=auto")
    assert trained[4:] == [3] and more[-1].extra["runs"] == 4


class _told:
    def __init__(self, held):
        self.held = held

    def __enter__(self):
        return self.held

    def __exit__(self, *_):
        return None


def test_the_report_does_not_count_the_mean_as_a_run(weights, data, tmp_path):
    from visrep.tools.report.rows import rows
    from visrep.tools.report.runs import collect

    run(weights, tmp_path / "runs", *SMALL, "seeds=2")
    row = next(row for row in rows(collect(tmp_path)) if row.metric == "AP50")
    spread = row.spread("pretrained")
    assert spread.n == 2 and len(row.sides["pretrained"]) == 2


def test_the_published_protocol_is_known_by_every_number():
    recipe = recipe_of("voc0712_c4")
    config = plain_config(compose("detect", ["weights=x", "out=y", "task=voc0712_c4"])[0])
    assert several.protocol_differs(config, recipe, "detectron2") == []
    assert usual_data("voc0712_c4") == "voc0712"
    import dataclasses

    other = dataclasses.replace(recipe, batch_size=8, detectron2={})
    changed = {
        "detection": {"name": "voc", "classes": ["cat"]},
        "d2_opts": ["SOLVER.GAMMA", 0.5],
        "precision": "bf16",
        "labels": 0.1,
    }
    assert several.protocol_differs(changed, other, "torchvision") == [
        "engine=torchvision instead of detectron2",
        "batch_size=8 instead of 16",
        "other settings of Detectron2",
        "detection=voc instead of voc0712",
        "a choice of classes",
        "labels=0.1",
        "d2_opts=SOLVER.GAMMA 0.5",
        "precision=bf16",
    ]


def test_numbers_of_runs_that_are_none(tmp_path):
    for seeds in ("0", "1.5", "true"):
        given = ["weights=x", f"out={tmp_path / 'run'}", "task=scenes", f"seeds={seeds}"]
        with pytest.raises(ConfigError, match="seeds="):
            detect.main(compose("detect", given)[0])
    with pytest.raises(ConfigError, match="detector= brings its own seeds"):
        detect.resolve(compose("detect", ["detector=x", "detection=scenes", "out=o", "seeds=2"])[0])
    (tmp_path / several._DONE).write_text("[")
    with pytest.raises(Exception, match=r"seeds\.json .*remove it"):
        several.done(tmp_path)
