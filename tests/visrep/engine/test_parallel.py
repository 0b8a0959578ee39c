"""Processes agree on a signal at the same step, and say where they have lost one another."""

import signal
import time

import pytest
import torch

from tests.processes import run_on_two
from visrep import dist
from visrep.engine import parallel
from visrep.engine.hooks import Hook
from visrep.engine.task import Task
from visrep.engine.trainer import Trainer
from visrep.errors import ConfigError
from visrep.signals import Interrupted


class Line(Task):
    def __init__(self):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(1))

    def forward(self, batch):
        return {"loss": (self.weight * batch["x"]).mean()}


class Ones:
    def iterate(self, start_step):
        while True:
            yield {"x": torch.ones(2), "size": 2}


class SendOn(Hook):
    """A signal to process 1 only, after update 5."""

    def after_step(self, trainer):
        if trainer.step == 5 and dist.rank() == 1:
            signal.raise_signal(signal.SIGTERM)


def train(out) -> tuple[int, int, str]:
    task = Line()
    trainer = Trainer(
        task=task,
        optimizer=torch.optim.SGD(task.parameters(), lr=0.1),
        schedule=lambda where: 1.0,
        batches=Ones(),
        total_steps=1000,
        out=out,
        precision="fp32",
        snapshot_every=500,
        hooks=[SendOn()],
    )
    try:
        trainer.fit()
    except Interrupted as error:
        return trainer.step, error.code, error.note
    return trainer.step, 0, ""


def test_a_signal_to_one_process_stops_both_at_the_same_step(tmp_path):
    first, second = run_on_two(train, tmp_path)
    assert first == second and first[0] in (6, 7) and first[1] == 143 and "resume=auto" in first[2]
    saved = [path.name for path in (tmp_path / "snapshots").iterdir()]
    assert saved == [f"step-{first[0]:09d}.pt"]


def answers() -> list[int]:
    agreement = parallel.Agreement()
    mine = [0, 0, 2 + 13 * dist.rank(), 0, 0]
    return [agreement.on(signum) for signum in mine]


def test_an_answer_is_the_same_everywhere_one_step_late():
    assert run_on_two(answers) == ([0, 0, 0, 15, 0],) * 2
    assert answers() == [0, 0, 2, 0, 0]  # one process need not wait


def alone() -> str:
    """Process 1 comes too late for process 0, which waits half a second."""
    from datetime import timedelta

    import torch.distributed as td

    group = td.new_group(backend="gloo", timeout=timedelta(seconds=0.5))
    if dist.rank() == 1:
        time.sleep(3)
        return ""
    try:
        td.all_reduce(torch.ones(1), group=group)
    except RuntimeError as error:
        return str(parallel.explained(error))
    return "no error"


def test_a_collective_waited_for_in_vain_is_a_line_that_says_where():
    line, _ = run_on_two(alone)
    assert line.startswith("process 0 of 2 has lost the others, at test_parallel.py:")
    assert ", alone: " in line and "VISREP_TIMEOUT" in line


@pytest.mark.parametrize("device", ["tpu", "cuda:99", "gpu", "5x"])
def test_a_device_that_is_not_here_is_one_line(device):
    with pytest.raises(ConfigError, match=f"^device={device} is not here: choose auto"):
        parallel.join(device)


def test_other_errors_are_not_explained():
    assert parallel.explained(RuntimeError("gloo")) is None  # there is one process
    assert run_on_two(unrelated) == (True, True)


def unrelated() -> bool:
    return parallel.explained(RuntimeError("shapes differ")) is None


@pytest.mark.parametrize("given", ["0", "-3", "soon", "inf", "nan"])
def test_a_time_that_is_none_is_refused(given, monkeypatch):
    monkeypatch.setenv("VISREP_TIMEOUT", given)
    with pytest.raises(ConfigError, match="VISREP_TIMEOUT"):
        dist.patience()
