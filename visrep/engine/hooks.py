"""Observers of training. A hook looks and reports; the maths is in the task."""

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from visrep.engine.trainer import Trainer

log = logging.getLogger("visrep")


class Hook:
    """Called by the trainer at three moments; override what is needed."""

    def before_training(self, trainer: "Trainer") -> None:
        """The first step has not run; `trainer.step` is where a resumed run starts."""

    def after_step(self, trainer: "Trainer") -> None:
        """An update is done; `trainer.step` counts it."""

    def after_training(self, trainer: "Trainer") -> None:
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

    def before_training(self, trainer: "Trainer") -> None:
        if trainer.step == 0:
            self._run(trainer)

    def after_step(self, trainer: "Trainer") -> None:
        if trainer.step % self.every == 0 or trainer.step == trainer.total_steps:
            self._run(trainer)

    def _run(self, trainer: "Trainer") -> None:
        metrics = self.evaluate()
        trainer.task.train()
        trainer.write(metrics)
