"""Observers of training. A hook looks and reports; the maths is in the task."""

import logging
from collections.abc import Callable
from typing import Protocol

from visrep.engine.task import Batches, Task

log = logging.getLogger("visrep")


class Training(Protocol):
    """What a hook sees of the trainer: `step` updates of `total_steps` are done."""

    step: int
    total_steps: int
    task: Task
    batches: Batches

    def write(self, metrics: dict[str, float]) -> None:
        """Hand metrics of the present step to every writer."""
        ...


class Hook:
    """Called by the trainer at three moments; override what is needed."""

    def before_training(self, trainer: Training) -> None:
        """The first step has not run; `trainer.step` is where a resumed run starts."""

    def after_step(self, trainer: Training) -> None:
        """An update is done; `trainer.step` counts it."""

    def after_training(self, trainer: Training) -> None:
        """The last update is done."""


class Evaluate(Hook):
    """Calls `evaluate` `times` times in all, evenly spread, the last time after the last update.

    The first step does not wait for it. It is called on all processes; what goes wrong in it is a
    warning, as no measurement on the way is worth a training. (Where processes take part in one
    another's work, `evaluate` sees to it that all of them fail together.)

    Args:
        evaluate: returns metrics; it may put the net in eval mode, the hook puts it back.
        times: how often; every update where there are fewer.
        name: what the warning calls it.
    """

    def __init__(self, evaluate: Callable[[], dict[str, float]], *, times: int, name: str) -> None:
        self.evaluate = evaluate
        self.times = times
        self.name = name

    def after_step(self, trainer: Training) -> None:
        if not is_due(trainer.step, trainer.total_steps, self.times):
            return
        try:
            metrics = self.evaluate()
        except Exception as error:
            what = str(error) or type(error).__name__
            log.warning("warning: %s of step %d failed: %s", self.name, trainer.step, what)
        else:
            trainer.write(metrics)
        finally:
            trainer.task.train()


def is_due(step: int, total: int, times: int) -> bool:
    """`step` is one of the `times` of 1 to `total` that divide it evenly, up to rounding."""
    return step * times // total > (step - 1) * times // total
