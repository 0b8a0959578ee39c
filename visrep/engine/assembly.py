"""From a task and its settings to a trainer: the same way for every command that trains."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from visrep.engine import optim
from visrep.engine.health import Health
from visrep.engine.hooks import Hook
from visrep.engine.run import Run
from visrep.engine.task import Batches, Task
from visrep.engine.trainer import Trainer

# Of a configuration, what the trainer takes as it is; it has defaults of its own.
OF_TRAINER = ("precision", "accumulate", "snapshot_every", "log_every", "resume")


def assemble(
    task: Task,
    *,
    run: Run,
    batches: Batches,
    total_steps: int,
    steps_per_epoch: float,
    label: str | None,
    settings: Mapping[str, Any] | None = None,
    trained: nn.Module | None = None,
    health: Health | None = None,
    hooks: Sequence[Hook] = (),
) -> Trainer:
    """The trainer of `task`, with its optimizer and schedule; `.fit()` runs it.

    Args:
        run: where snapshots and metrics go.
        batches, total_steps, health, hooks: see `Trainer`.
        steps_per_epoch: may be fractional.
        label: what the console calls the run; None trains without a word and keeps nothing.
        settings: `optim` (arguments of `optim.build`), `batch_size` (the total) and any of
            `OF_TRAINER`; None: the run's configuration, which has them.
        trained: whose parameters are, under whose names; None: the task's.

    Raises:
        ConfigError: as `optim.build` and `Trainer`.
    """
    settings = run.config if settings is None else settings
    optimizer, schedule = optim.build(
        task if trained is None else trained,
        **settings["optim"],
        batch_size=settings["batch_size"],
        steps_per_epoch=steps_per_epoch,
        total_steps=total_steps,
    )
    return Trainer(
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        batches=batches,
        total_steps=total_steps,
        device=run.device,
        out=None if label is None else run.out,
        data=run.data,
        health=health,
        hooks=hooks,
        writers=() if label is None else run.writers(total=total_steps, label=label),
        **{key: settings[key] for key in OF_TRAINER if key in settings},
    )
