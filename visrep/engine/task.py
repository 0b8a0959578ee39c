"""All that the training loop knows of what it trains, and on what."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from visrep.errors import ConfigError


@dataclass(frozen=True)
class Progress:
    """Where training is: `step` updates of `total` are done when it is handed to a task."""

    step: int
    total: int

    @property
    def fraction(self) -> float:
        """Share of the updates done, in [0, 1]."""
        return self.step / self.total


class Batches(Protocol):
    """A source of batches that can start at any step."""

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Batches of this process from `start_step` on, for ever."""
        ...


class Task(nn.Module):
    """A loss and what happens around the optimizer's step; a subclass has `forward` at least.

    `forward` takes the batch of this process and returns a dict that holds "loss" (a scalar with a
    gradient, the mean over this process' share) and detached scalars to log; the "embeddings" of a
    method, n x D, detached, are what `Health` looks at.

    Attributes:
        coupled: does the loss couple the samples of a batch? Then batches cannot be accumulated.
    """

    coupled: bool = False

    def before_update(self, progress: Progress) -> None:
        """Gradients exist, weights are old."""

    def after_update(self, progress: Progress) -> None:
        """Weights are new: move the EMA, write banks."""

    def measures(self) -> dict[str, Tensor]:
        """Scalars of its state, asked for at readings of the health watch."""
        return {}


def require_outputs(task: Task, outputs: object, *, embeddings: bool) -> None:
    """Raise ConfigError unless `outputs` is what `task.forward` must return.

    Looks at types and shapes only, so it does not wait for the device. `embeddings`: are they
    asked for?
    """
    name = f"{type(task).__module__}.{type(task).__qualname__}.forward"
    if not isinstance(outputs, dict):
        raise ConfigError(
            f"{name} must return a dict that holds loss, not {type(outputs).__name__}"
        )
    loss, rows = outputs.get("loss"), outputs.get("embeddings")
    if not isinstance(loss, Tensor) or loss.dim() or not loss.requires_grad:
        raise ConfigError(f"{name} must return under loss a single number with a gradient")
    if embeddings and (not isinstance(rows, Tensor) or rows.dim() != 2 or rows.requires_grad):
        raise ConfigError(f"{name} must return under embeddings rows n x D, detached")
    for key, value in outputs.items():
        number = isinstance(value, int | float) or (isinstance(value, Tensor) and not value.dim())
        if key != "embeddings" and not number:
            raise ConfigError(f"{name} must return under {key} a single number to log")
