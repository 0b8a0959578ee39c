"""The loop: resume is exact, accumulation is honest, nothing that is not finite goes on."""

import json
import logging
import os
import signal
from pathlib import Path

import pytest
import torch
from torch import nn

from visrep import files
from visrep.engine.hooks import Evaluate, Hook
from visrep.engine.known_data import KnownData
from visrep.engine.task import Task
from visrep.engine.trainer import Trainer
from visrep.engine.writers import SPEEDS, JsonLines
from visrep.errors import ConfigError, Diverged, UserError
from visrep.seeds import generator
from visrep.signals import Interrupted


class Regression(Task):
    """A net with everything a method may hold: weights, running statistics, an EMA."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(5, 7), nn.BatchNorm1d(7), nn.ReLU(), nn.Linear(7, 1))
        self.register_buffer("average", torch.zeros(7, 5))

    def forward(self, batch):
        return {"loss": (self.net(batch["x"]) - batch["y"]).square().mean()}

    def after_update(self, progress):
        self.average.lerp_(self.net[0].weight.detach(), 0.1 + 0.5 * progress.fraction)


class Stream:
    def __init__(self, size: int = 8) -> None:
        self.size = size

    def iterate(self, start_step):
        step = start_step
        while True:
            x = torch.randn(self.size, 5, generator=generator("test", step))
            yield {"x": x, "y": x.sum(1, keepdim=True), "size": self.size}
            step += 1


def make(out=None, *, total=20, batches=None, task=None, **kwargs) -> Trainer:
    task = task or Regression()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.05, momentum=0.9)
    kwargs = {"precision": "fp32", "log_every": 5} | kwargs
    return Trainer(
        task=task,
        optimizer=optimizer,
        schedule=lambda where: 1 - where,
        batches=batches or Stream(),
        total_steps=total,
        out=out,
        **kwargs,
    )


def flat(value, prefix="") -> dict:
    if isinstance(value, dict):
        return {
            k: v for key, item in value.items() for k, v in flat(item, f"{prefix}{key}.").items()
        }
    if isinstance(value, list):
        return flat(dict(enumerate(value)), prefix)
    return {prefix: value}


def assert_same(one: dict, two: dict) -> None:
    one, two = flat(one), flat(two)
    assert one.keys() == two.keys()
    for name in one:
        if isinstance(one[name], torch.Tensor):
            assert torch.equal(one[name], two[name]), name
        else:
            assert one[name] == two[name], name


class StopAt(Hook):
    def __init__(self, step: int) -> None:
        self.step = step

    def after_step(self, trainer):
        if trainer.step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("stop", [1, 7, 12, 19])
def test_a_run_that_was_cut_ends_with_the_same_state(tmp_path, stop):
    straight = make(tmp_path / "straight", snapshot_every=4)
    straight.fit()
    with pytest.raises(KeyboardInterrupt):
        make(tmp_path / "cut", snapshot_every=4, hooks=[StopAt(stop)]).fit()
    resumed = make(tmp_path / "cut", snapshot_every=4)
    resumed.fit()
    assert resumed.step == 20
    assert_same(resumed.state(), straight.state())
    names = sorted(p.name for p in (tmp_path / "straight" / "snapshots").iterdir())
    assert names == ["step-000000016.pt", "step-000000020.pt"]


def test_a_finished_run_trains_no_further(tmp_path):
    first = make(tmp_path, snapshot_every=4)
    first.fit()
    again = make(tmp_path, snapshot_every=4)
    again.fit()
    assert_same(first.state(), again.state())


def test_learning_rate_is_a_function_of_the_step():
    rates = []

    class Watch(Hook):
        def after_step(self, trainer):
            rates.append(trainer.optimizer.param_groups[0]["lr"])

    make(total=4, hooks=[Watch()]).fit()
    assert rates == pytest.approx([0.05, 0.0375, 0.025, 0.0125])


def test_accumulation_gives_the_gradient_of_the_whole_batch():
    """Without batch norm two halves of a batch are the batch."""

    class Plain(Regression):
        def __init__(self) -> None:
            super().__init__()
            self.net = nn.Linear(5, 1)
            self.average = torch.zeros(1, 5)

        def after_update(self, progress):
            pass

    class Halves(Stream):
        def iterate(self, start_step):
            for batch in Stream(8).iterate(start_step // 2):
                for half in (slice(0, 4), slice(4, 8)):
                    yield {"x": batch["x"][half], "y": batch["y"][half], "size": 4}

    torch.manual_seed(1)
    whole = Plain()
    parts = Plain()
    parts.load_state_dict(whole.state_dict())
    make(task=whole, total=5).fit()
    make(task=parts, total=5, batches=Halves(), accumulate=2).fit()
    torch.testing.assert_close(whole.net.weight, parts.net.weight)


def test_accumulation_is_refused_where_the_loss_couples_the_batch():
    task = Regression()
    task.coupled = True
    with pytest.raises(ConfigError, match="couples the samples"):
        make(task=task, accumulate=2)


class Bad(Stream):
    """From `first` on the targets are not finite."""

    def __init__(self, first: int) -> None:
        super().__init__()
        self.first = first

    def iterate(self, start_step):
        for step, batch in enumerate(super().iterate(start_step), start_step):
            yield batch | ({"y": batch["y"] * float("nan")} if step >= self.first else {})


def test_what_is_not_finite_ends_the_run_with_code_4(tmp_path):
    """However late it is looked for, the step it came in is named and its batch is kept."""
    out = tmp_path / "a"
    with pytest.raises(Diverged, match="the loss is not finite at step 8: the batch it") as caught:
        make(out, batches=Bad(7), snapshot_every=3, log_every=5).fit()
    assert caught.value.exit_code == 4
    assert "snapshot of step 6 is good" in str(caught.value)
    verdict = json.loads((out / "health.json").read_text())
    assert verdict["verdict"] == "diverged" and verdict["step"] == 8
    saved = torch.load(out / "offending_batch.pt", weights_only=True)
    want = next(Stream().iterate(7))
    assert saved["step"] == 7 and torch.equal(saved["micro_batches"][0]["x"], want["x"])
    assert saved["micro_batches"][0]["y"].isnan().all()
    # A snapshot that falls due before the next reading must not hold the damage either.
    with pytest.raises(Diverged, match="step 8:"):
        make(tmp_path, batches=Bad(7), snapshot_every=4, log_every=100).fit()
    assert [p.name for p in (tmp_path / "snapshots").iterdir()] == ["step-000000004.pt"]
    kept = (tmp_path / "snapshots" / "step-000000004.pt").read_bytes()
    with pytest.raises(Diverged, match="step 8:"):  # a resumed run meets it again
        make(tmp_path, batches=Bad(7), snapshot_every=4, log_every=100).fit()
    assert (tmp_path / "snapshots" / "step-000000004.pt").read_bytes() == kept


def test_a_gradient_that_is_not_finite_is_caught_before_the_loss_is(tmp_path):
    class Steep(Regression):
        def forward(self, batch):
            loss = super().forward(batch)["loss"]
            steep = self.net[0].bias[:0].sum() if batch["y"].sum() > 0 else self.net[0].bias[0]
            return {"loss": loss + 0 * (steep - steep.detach()).sqrt()}

    with pytest.raises(Diverged, match="the gradients are not finite at step .*optim.lr"):
        make(tmp_path, task=Steep(), log_every=1).fit()


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_saves_a_snapshot_first(tmp_path, signum):
    class Send(Hook):
        def after_step(self, trainer):
            if trainer.step == 3:
                os.kill(os.getpid(), signum)

    with pytest.raises(Interrupted) as caught:
        make(tmp_path, snapshot_every=100, hooks=[Send()]).fit()
    assert caught.value.code == 128 + signum
    saved = [p.name for p in (tmp_path / "snapshots").iterdir()]
    assert saved in (["step-000000003.pt"], ["step-000000004.pt"])
    resumed, straight = make(tmp_path, snapshot_every=100), make()
    resumed.fit()
    straight.fit()
    assert_same(resumed.state(), straight.state())


def test_a_truncated_snapshot_is_passed_over_with_a_line(tmp_path, caplog):
    straight = make(tmp_path, snapshot_every=8)
    straight.fit()
    newest = tmp_path / "snapshots" / "step-000000020.pt"
    newest.write_bytes(newest.read_bytes()[:-100])
    logger = logging.getLogger("visrep")
    logger.propagate = True
    resumed = make(tmp_path, snapshot_every=8)
    with caplog.at_level(logging.INFO, logger="visrep"):
        resumed.fit()
    assert "step-000000020.pt" in caplog.text and "16/20" in caplog.text
    assert_same(resumed.state(), straight.state())


def test_metrics_of_a_resumed_run_are_written_once(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with pytest.raises(KeyboardInterrupt):
        make(
            tmp_path, snapshot_every=4, log_every=1, writers=[JsonLines(path)], hooks=[StopAt(7)]
        ).fit()
    path.write_text(path.read_text() + '{"step": 8, "lo')  # cut short by the kill
    make(tmp_path, snapshot_every=4, log_every=1, writers=[JsonLines(path)]).fit()
    steps = [int(line.split(",")[0].split(":")[1]) for line in path.read_text().splitlines()]
    assert steps == list(range(1, 21))


def test_evaluation_hook_measures_evenly_and_at_the_end_but_not_before_the_first_step(tmp_path):
    path = tmp_path / "metrics.jsonl"
    trainer = make(total=10, log_every=100, writers=[JsonLines(path)])

    def evaluate():
        trainer.task.eval()
        return {"knn": 1.0}

    trainer.hooks.append(Evaluate(evaluate, times=3, name="the monitor"))
    trainer.fit()
    assert trainer.task.training
    lines = [line for line in Path(path).read_text().splitlines() if "knn" in line]
    assert [line.split(",")[0] for line in lines] == [f'{{"step": {n}' for n in (4, 7, 10)]


def readings(out: Path) -> list[dict]:
    """The metrics of a run, but for what a clock measures."""
    lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k not in SPEEDS} for line in lines]


class Interrupt(Hook):
    """A kill, or a signal, after `step` updates."""

    def __init__(self, step: int, signum: int | None) -> None:
        self.step, self.signum = step, signum

    def after_step(self, trainer):
        if trainer.step == self.step:
            if self.signum is None:
                raise KeyboardInterrupt
            os.kill(os.getpid(), self.signum)


@pytest.mark.parametrize("signum", [None, signal.SIGTERM])
def test_a_cut_at_any_step_changes_neither_state_nor_metrics(tmp_path, signum):
    """Readings are means over four steps and snapshots come every three: sums must survive."""

    def run(out: Path, *hooks: Hook) -> Trainer:
        out.mkdir(exist_ok=True)
        trainer = make(
            out,
            total=9,
            snapshot_every=3,
            log_every=4,
            writers=[JsonLines(out / "metrics.jsonl")],
            hooks=[Evaluate(lambda: {"knn": 1.0}, times=4, name="monitor"), *hooks],
        )
        trainer.found = trainer.fit()
        return trainer

    straight = run(tmp_path / "straight")
    want = straight.state()
    for step in range(1, 10):
        out = tmp_path / str(step)
        with pytest.raises((KeyboardInterrupt, Interrupted)):
            run(out, Interrupt(step, signum))
        for _ in range(2):  # the second goes on after the end
            resumed = run(out)
            assert_same(resumed.state(), want)
            assert readings(out) == readings(tmp_path / "straight")
            assert resumed.found["loss"] == straight.found["loss"]
            assert resumed.found.keys() == straight.found.keys()


def test_a_run_without_a_snapshot_yet_starts_its_metrics_anew(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 0, "knn": 1}\n{"step": 3, "loss": 1}\n')
    make(tmp_path, total=4, log_every=2, writers=[JsonLines(path)]).fit()
    assert [line["step"] for line in readings(tmp_path)] == [2, 4]


def test_resume_must_wants_a_whole_snapshot(tmp_path):
    with pytest.raises(UserError, match=r"resume=must: no snapshot .*there is none"):
        make(tmp_path, resume="must").fit()
    make(tmp_path, snapshot_every=10).fit()
    for path in (tmp_path / "snapshots").iterdir():
        path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match=r"all are damaged: step-000000020\.pt .*step-000000010"):
        make(tmp_path, resume="must").fit()
    assert make(tmp_path, resume="auto").fit()["loss"]


def test_metrics_that_cannot_be_written_end_the_run_after_a_snapshot(tmp_path, monkeypatch):
    writer = JsonLines(tmp_path / "metrics.jsonl")
    full = [False]

    def append(path, line, real=files.append_line):
        if full[0]:
            raise UserError(f"cannot write {path}: No space left on device")
        real(path, line)

    class Fill(Hook):
        def after_step(self, trainer):
            full[0] = trainer.step >= 6

    monkeypatch.setattr(files, "append_line", append)
    with pytest.raises(UserError, match=r"metrics\.jsonl: No space .*step 10 is saved"):
        make(tmp_path, snapshot_every=100, writers=[writer], hooks=[Fill()]).fit()
    assert [p.name for p in (tmp_path / "snapshots").iterdir()] == ["step-000000010.pt"]
    full[0] = False
    resumed, straight = make(tmp_path, writers=[writer]), make()
    resumed.fit()
    straight.fit()
    assert_same(resumed.state(), straight.state())
    assert [line["step"] for line in readings(tmp_path)] == [5, 15, 20]


def test_a_longer_run_says_what_its_learning_rate_does(tmp_path, caplog):
    make(tmp_path, total=10, snapshot_every=10).fit()
    logging.getLogger("visrep").propagate = True
    longer = make(tmp_path, total=20, snapshot_every=10)
    with caplog.at_level(logging.INFO, logger="visrep"):
        longer.fit()
    assert longer.step == 20
    assert "20 steps instead of 10" in caplog.text
    assert "goes on from 0.005 with 0.025" in caplog.text
    with pytest.raises(UserError, match="snapshot is that of step 20, and the run has 10"):
        make(tmp_path, total=10).fit()


def test_a_snapshot_of_other_data_is_not_gone_on_with(tmp_path):
    def known(fingerprint: str, **how) -> KnownData:
        record = {"count": 1, "classes": None, "kind": "bytes", "images": None}
        return KnownData(record | {"fingerprint": fingerprint}, **how)

    make(tmp_path, total=4, snapshot_every=4, data=known("a")).fit()
    make(tmp_path, total=4, data=known("a")).fit()
    with pytest.raises(ConfigError, match="the content of images differs"):
        make(tmp_path, total=4, data=known("b")).fit()
    make(tmp_path, total=4, data=known("b", word="changed")).fit()
