"""Observers of training. A hook looks and reports; the maths is in the task."""

from collections.abc import Callable
from typing import Protocol

from visrep.engine.task import Batches, Task


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
    """Calls `evaluate` every `every` updates, before the first and after the last one.

    Args:
        evaluate: returns metrics; it may put the net in eval mode, the hook puts it back.
        every: updates between two calls.
    """

    def __init__(self, evaluate: Callable[[], dict[str, float]], *, every: int) -> None:
        self.evaluate = evaluate
        self.every = max(1, every)

    def before_training(self, trainer: Training) -> None:
        if trainer.step == 0:
            self._run(trainer)

    def after_step(self, trainer: Training) -> None:
        if trainer.step % self.every == 0 or trainer.step == trainer.total_steps:
            self._run(trainer)

    def _run(self, trainer: Training) -> None:
        metrics = self.evaluate()
        trainer.task.train()
        trainer.write(metrics)
