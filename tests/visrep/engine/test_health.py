"""Verdicts from readings: falls, patience, grace; what is measured; what is written."""

import json
import math

import pytest
import torch

from tests.processes import run_on_two
from tests.visrep.engine.test_trainer import Regression, StopAt, Stream, assert_same, make
from visrep import dist
from visrep.engine import snapshot
from visrep.engine.health import Health, Reading, stop, write_verdict
from visrep.engine.levels import Levels
from visrep.errors import Diverged
from visrep.nn.embeddings import effective_rank, spread

CONTRAST = Levels(loss_collapsed=math.log(256), knob="lower optim.lr")
SIAMESE = Levels(loss_collapsed=-1.0, knob="method.stop_gradient=true")
CODES = Levels(loss_collapsed=math.log(256), knob="method.epsilon=0.03", stuck=True)
ALIVE = (0.8, 40.0)  # spread, rank
POINT, LINE, CLOSING = (0.001, 1.1), (0.6, 1.4), (0.7, 3.5)


def health(levels: Levels, **changes) -> Health:
    made = Health(levels=levels, **{"patience": 500, **changes})
    made.rows = 64
    return made


def feed(one: Health, readings, *, every: int = 10) -> str:
    for loss, (wide, rank) in readings:
        step = one.window[-1].step + every if one.window else every
        one.add(Reading(step, loss, wide, rank))
    return one.verdict


@pytest.mark.parametrize("closed", [POINT, LINE])
def test_embeddings_that_close_up_have_collapsed(closed) -> None:
    one = health(SIAMESE)
    assert feed(one, [(-0.3, ALIVE)] * 3) == "healthy"
    assert feed(one, [(-0.95, closed)] * 7) == "collapsed"
    line = one.line()
    assert line.startswith("health: collapsed at step 100: loss -0.95 (collapsed -1), spread ")
    assert "of 64; the embeddings have closed up: method.stop_gradient=true" in line


def test_a_fall_before_the_first_reading_is_one() -> None:
    torch.manual_seed(0)
    one = health(SIAMESE)
    one.begin(torch.randn(64, 32))
    assert one.peak[0] == pytest.approx(1, abs=0.05) and one.peak[1] > 20 and one.rows == 32
    assert feed(one, [(-0.95, POINT)] * 6) == "collapsed"
    assert feed(health(SIAMESE), [(-0.95, POINT)] * 6) == "healthy"  # it may have begun so


@pytest.mark.parametrize("levels", [CONTRAST, SIAMESE, CODES])
@pytest.mark.parametrize("constant", [True, False])
def test_a_net_that_was_dead_from_the_start_is_never_healthy(levels, constant) -> None:
    one = health(levels)
    views = torch.zeros(8, 3, 4, 4)
    one.begin(torch.ones(64, 32), [views if constant else torch.randn_like(views)])
    loss = levels.loss_collapsed
    assert feed(one, [(loss, (0.0, 1.0))]) == "collapsing"
    assert ("so are the images" in one.line()) == constant
    assert (levels.knob in one.line()) == (not constant)
    resumed = health(levels)
    resumed.load(one.state())
    assert feed(resumed, [(loss, (0.0, 1.0))] * 60) == "collapsed"
    assert ("so are the images" in resumed.line()) == constant
    assert feed(one, [(loss, ALIVE)] * 5) == "healthy"  # it has come to life


def test_a_run_without_a_reading_is_not_called_healthy() -> None:
    assert "healthy" not in health(CONTRAST).line()


def test_one_bad_reading_is_no_collapse() -> None:
    one = health(SIAMESE)
    feed(one, [(-0.3, ALIVE)] * 6)
    assert feed(one, [(-0.95, POINT)]) == "healthy" and one.suspect()
    assert feed(one, [(-0.4, ALIVE)]) == "healthy" and not one.suspect()


def test_a_low_loss_of_features_that_are_apart_is_success() -> None:
    one = health(SIAMESE)
    assert feed(one, [(-0.98, ALIVE)] * 300) == "healthy"


def test_embeddings_that_are_together_with_a_good_loss_are_not_judged() -> None:
    one = health(CONTRAST)
    feed(one, [(5.4, ALIVE)] * 3)
    assert feed(one, [(1.0, LINE)] * 20) == "healthy"  # what is told apart is told apart


def test_closing_up_is_said_and_does_not_stop() -> None:
    one = health(CONTRAST)
    feed(one, [(5.4, ALIVE)] * 3)
    assert feed(one, [(5.5, CLOSING)] * 100) == "collapsing"
    assert "the embeddings are closing up" in one.line()
    assert feed(one, [(2.0, ALIVE)] * 6) == "healthy"


def test_a_net_that_begins_together_has_patience() -> None:
    """An untrained net without batch norm in its head looks collapsed."""
    one = health(CONTRAST)
    assert feed(one, [(5.5, POINT)] * 48) == "healthy"
    assert feed(one, [(4.0, ALIVE)] * 10) == "healthy"
    never = health(CONTRAST, warmup=100)
    assert feed(never, [(5.5, POINT)] * 59) == "healthy"  # 590: 490 after the warm-up
    assert feed(never, [(5.5, POINT)] * 1) == "collapsed"
    assert "from the start" in never.line()


def test_a_loss_that_stays_at_its_level() -> None:
    """Alone it is a collapse of codes (SwAV), and elsewhere a run that does not learn."""
    for levels, verdict in ((CODES, "collapsed"), (CONTRAST, "collapsing")):
        one = health(levels)
        assert feed(one, [(5.54, ALIVE)] * 50) == "healthy"
        assert feed(one, [(5.54, ALIVE)]) == verdict
        assert "the loss stays at its collapsed level" in one.line()
    one = health(CODES)
    assert feed(one, [(5.54, ALIVE)] * 40 + [(4.9, ALIVE)] * 9 + [(5.54, ALIVE)] * 40) == "healthy"


def test_few_rows_have_a_small_rank() -> None:
    one = health(SIAMESE)
    one.rows = 8
    assert feed(one, [(-0.3, (0.9, 6.5))] * 3 + [(-0.9, (0.9, 2.0))] * 10) == "healthy"
    assert feed(one, [(-0.95, (0.3, 1.1))] * 8) == "collapsed"


def test_the_window_covers_fifty_updates() -> None:
    one = health(SIAMESE)
    feed(one, [(-0.3, ALIVE)] * 20, every=1)
    assert feed(one, [(-0.95, POINT)] * 40, every=1) != "collapsed"
    assert feed(one, [(-0.95, POINT)] * 12, every=1) == "collapsed"


def test_a_resumed_watch_comes_to_the_same_verdicts() -> None:
    readings = [(-0.3, ALIVE)] * 4 + [(-0.95, POINT)] * 9
    for cut in range(1, len(readings)):
        whole, first, second = health(SIAMESE), health(SIAMESE), health(SIAMESE)
        feed(whole, readings)
        feed(first, readings[:cut])
        second.load(json.loads(json.dumps(first.state())))
        feed(second, readings[cut:])
        assert second.state() == whole.state() and second.line() == whole.line()
    assert whole.verdict == "collapsed"


def test_what_is_measured() -> None:
    torch.manual_seed(0)
    one, x = Health(levels=CONTRAST, patience=500), torch.randn(300, 16)
    measures = one.read(10, 3.0, x)
    assert measures["spread"] == pytest.approx(spread(x[:256]).item())
    assert measures["effective_rank"] == pytest.approx(effective_rank(x[:256]).item())
    assert measures["health"] == 0 and one.rows == 16
    assert one.report()["loss"] == 3.0
    assert one.report()["levels"] == {"loss_collapsed": math.log(256)}


def on_two(x: torch.Tensor) -> tuple:
    one = Health(levels=CONTRAST, patience=500)
    measures = one.read(10, 3.0, x[dist.rank() * 150 :][:150])
    return measures, one.rows


def test_two_processes_measure_the_whole_batch() -> None:
    torch.manual_seed(0)
    x = torch.randn(300, 16)
    a, b = run_on_two(on_two, x)
    assert a == b and a[1] == 16
    rows = torch.cat([x[:128], x[150:278]])
    assert a[0]["effective_rank"] == pytest.approx(effective_rank(rows).item())


def test_a_verdict_is_strict_json(tmp_path) -> None:
    write_verdict(tmp_path, {"verdict": "diverged", "line": "x", "loss": math.nan, "step": 3})
    text = (tmp_path / "health.json").read_text()
    assert json.loads(text) == {"verdict": "diverged", "line": "x", "loss": None, "step": 3}
    assert "NaN" not in text


def test_the_end_of_a_run_says_what_is_left(tmp_path) -> None:
    with pytest.raises(Diverged, match=r"^why$"):
        stop(None, {"line": "why"})
    with pytest.raises(Diverged, match=r"why .*offending_batch.pt has the batch; no snapshot"):
        stop(tmp_path, {"verdict": "collapsed", "line": "why"})
    assert json.loads((tmp_path / "health.json").read_text())["verdict"] == "collapsed"


class Closing(Regression):
    """Its embeddings close up to a point at step 41; what it learns is another matter."""

    def forward(self, batch):
        live = float(batch["step"] < 41)
        point = torch.ones_like(batch["x"])
        return super().forward(batch) | {"embeddings": live * batch["x"] + (1 - live) * point}


class Numbered(Stream):
    def iterate(self, start_step):
        for step, batch in enumerate(Stream(64).iterate(start_step), start_step):
            n = 64 // dist.world_size()
            mine = slice(dist.rank() * n, (dist.rank() + 1) * n)
            yield {"x": batch["x"][mine], "y": batch["y"][mine], "step": step, "size": n}


def closing(out, *, stop=True, **kwargs):
    levels = Levels(loss_collapsed=0.0, loss_apart=1e9, knob="turn it")
    watch = Health(levels=levels, patience=500, stop=stop)
    kwargs = {"total": 120, "snapshot_every": 10, "health": watch} | kwargs
    return make(out, task=Closing(), batches=Numbered(), **kwargs)


def names(folder) -> list[str]:
    return sorted(path.name for path in (folder / "snapshots").iterdir())


def test_a_collapse_ends_the_run_and_leaves_the_last_good_snapshot(tmp_path) -> None:
    good = "step-000000040.pt"
    with pytest.raises(KeyboardInterrupt):
        closing(tmp_path / "good", hooks=[StopAt(41)]).fit()
    with pytest.raises(Diverged, match="collapsed at step 95.*turn it.*step 40 is good") as caught:
        closing(tmp_path / "run").fit()
    assert caught.value.exit_code == 4
    # Two more were written while it closed up: a resumed run takes none of them.
    assert names(tmp_path / "run") == ["collapsed-000000080.pt", "collapsed-000000090.pt", good]
    states = [snapshot.latest(tmp_path / name / "snapshots")[1]["task"] for name in ("good", "run")]
    assert_same(*states)
    report = json.loads((tmp_path / "run" / "health.json").read_text())
    assert report["verdict"] == "collapsed" and report["step"] == 95 and report["spread"] < 0.03
    saved = torch.load(tmp_path / "run" / "offending_batch.pt", weights_only=True)
    assert saved["step"] == 94
    assert torch.equal(saved["micro_batches"][0]["x"], next(Numbered().iterate(94))["x"])


def test_a_false_alarm_can_be_overridden_and_changes_no_number(tmp_path, monkeypatch) -> None:
    with pytest.raises(Diverged):
        closing(tmp_path / "cut").fit()
    lines: list[str] = []
    monkeypatch.setattr("visrep.engine.health.log.log", lambda _, form, line: lines.append(line))
    resumed = closing(tmp_path / "cut", stop=False)
    resumed.fit()
    assert [line.split(":")[1].split()[0] for line in lines] == ["collapsing", "collapsed"]
    straight, unwatched = closing(tmp_path / "a", stop=False), closing(tmp_path / "b", health=None)
    straight.fit()
    unwatched.fit()
    assert_same(resumed.state(), straight.state())
    state = straight.state()
    assert state.pop("health")["verdict"] == "collapsed"
    plain = unwatched.state()
    del state["last"], plain["last"]  # the watch adds its measures to the readings
    assert_same(state, plain)
    assert json.loads((tmp_path / "a" / "health.json").read_text())["verdict"] == "collapsed"
    assert not (tmp_path / "b" / "health.json").exists()


def stopped_on_two(folder) -> str:
    with pytest.raises(Diverged) as caught:
        closing(folder).fit()
    return str(caught.value)


def test_two_processes_end_together(tmp_path) -> None:
    a, b = run_on_two(stopped_on_two, tmp_path)
    assert a == b and "collapsed at step 95" in a
    assert names(tmp_path)[-1] == "step-000000040.pt"
    shares = [
        torch.load(tmp_path / f"offending_batch{rank}.pt", weights_only=True)["micro_batches"][0]
        for rank in ("", ".rank1")
    ]
    whole = next(Stream(64).iterate(94))["x"]
    assert torch.equal(torch.cat([share["x"] for share in shares]), whole)


class OneBad(Numbered):
    def iterate(self, start_step):
        for batch in super().iterate(start_step):
            bad = batch["step"] >= 7 and dist.rank() == 1
            yield batch | ({"x": batch["x"] * torch.nan} if bad else {})


def diverged_on_two(folder) -> str:
    with pytest.raises(Diverged) as caught:
        make(folder, task=Regression(), batches=OneBad(), snapshot_every=4).fit()
    return str(caught.value)


def test_a_batch_of_one_process_ends_both(tmp_path) -> None:
    a, b = run_on_two(diverged_on_two, tmp_path)
    assert a == b and "not finite at step 8: the batch itself" in a
    assert names(tmp_path) == ["step-000000004.pt"]
