"""All that the training loop knows of what it trains."""

from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn


@dataclass(frozen=True)
class Progress:
    """Where training is: `step` updates of `total` are done when it is handed to a task."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the updates done, in [0, 1]."""
        return self.step / self.total


@runtime_checkable
class Task(Protocol):
    """An `nn.Module` with a loss and two moments around the optimizer's step.

    `forward` takes the batch of this process and returns a dict that holds "loss" (a scalar with a
    gradient, the mean over this process' share) and detached scalars to log; the "embeddings" of a
    method, n x D, detached, are what `Health` looks at. A method satisfies the protocol without
    importing it; it may also have `measures()`, scalars of its state, asked for at readings.
    """

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of `batch`, under "loss", and scalars to log."""
        ...

    def before_update(self, progress: Progress) -> None:
        """Gradients exist, weights are old."""
        ...

    def after_update(self, progress: Progress) -> None:
        """Weights are new: move the EMA, write banks."""
        ...


class SupervisedTask(nn.Module):
    """Base of tasks that need neither of the two moments."""

    def before_update(self, progress: Progress) -> None:
        """Nothing."""

    def after_update(self, progress: Progress) -> None:
        """Nothing."""
