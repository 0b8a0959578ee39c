"""A trainer from settings: what the optimizer sees, where things go."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor, nn

from visrep.engine.assembly import assemble
from visrep.engine.run import Run, open_run
from visrep.engine.task import Task
from visrep.errors import ConfigError

SETTINGS = {
    "optim": {"name": "sgd", "lr": 0.5, "lr_rule": "linear", "exclude": ["fc"], "momentum": 0.0},
    "batch_size": 128,
    "precision": "fp32",
    "snapshot_every": 3,
    "log_every": 2,
}


class Line(Task):
    """The squared mean of a linear layer, beside a part that is not trained."""

    coupled = True

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.ModuleDict({"fc": nn.Linear(2, 1, bias=False)})
        self.other = nn.Linear(2, 2)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {"loss": self.net["fc"](batch["x"]).square().mean()}


class Ones:
    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        while True:
            yield {"x": torch.ones(4, 2), "size": 4}


@pytest.fixture
def run(tmp_path: Path) -> Run:
    return open_run(OmegaConf.create({"out": str(tmp_path / "run"), "device": "cpu"}))


def build(task: Line, run: Run, label: str | None = "line", **settings: Any) -> Any:
    return assemble(
        task,
        trained=task.net,
        settings=SETTINGS | settings,
        run=run,
        batches=Ones(),
        total_steps=4,
        steps_per_epoch=2.0,
        label=label,
    )


def test_settings_reach_optimizer_and_trainer(run: Run) -> None:
    task = Line()
    trainer = build(task, run)
    (group,) = trainer.optimizer.param_groups
    assert group["params"] == [task.net["fc"].weight]  # under the name that `exclude` has
    assert (group["lr"], group["adapt"]) == (0.25, False)
    assert (trainer.snapshot_every, trainer.log_every, trainer.dtype) == (3, 2, None)
    trainer.fit()
    kept = sorted(path.name for path in (run.out / "snapshots").iterdir())
    assert kept == ["step-000000003.pt", "step-000000004.pt"]
    assert len((run.out / "metrics.jsonl").read_text().splitlines()) == 2


def test_without_a_label_nothing_is_kept_or_said(run: Run) -> None:
    before = sorted(run.out.iterdir())
    task = Line()
    start = task.net["fc"].weight.detach().clone()
    build(task, run, label=None).fit()
    assert sorted(run.out.iterdir()) == before
    assert not torch.equal(task.net["fc"].weight, start)


def test_what_the_trainer_refuses_is_refused(run: Run) -> None:
    with pytest.raises(ConfigError, match="couples the samples"):
        build(Line(), run, accumulate=2)
