"""The contract of a view operation: one class with its settings, its draws and what it does.

A stranger's file, named in `plugins=my_views`, holds a class

    @dataclass(frozen=True, kw_only=True)
    class Posterize(Operation):
        name = "posterize"
        p: float = 0.2
        levels: int = 4

        def apply(self, images, numbers):
            return (images * (self.levels - 1)).round() / (self.levels - 1)

and a views yaml, or the command line, puts it where it belongs in the order:

    order: [jitter, {_target_: my_views.Posterize, p: 0.5}, gray]
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from visrep.errors import ConfigError


class Operation(ABC):
    """What happens to some of the samples of a view, each with numbers of its own.

    Attributes:
        name: in the order and in messages; also the key of its random numbers, so that another
            name gives other draws.
        numbers: how many uniform random numbers a sample takes, beyond the one that says whether
            the operation is applied to it.
        columns: of an operation of ours, where its 1 + numbers stand in the row that every view
            draws; none: they are drawn under its name and leave all others as they are.
        p: probability that it is applied to a sample; one of 0 is left out.
    """

    name: ClassVar[str]
    numbers: ClassVar[int] = 0
    columns: ClassVar[Sequence[int]] = ()
    p: float

    @abstractmethod
    def apply(self, images: Tensor, numbers: np.ndarray) -> Tensor:
        """The images after it.

        Args:
            images: float32 n x 3 x size x size in [0, 1], on any device; may be changed.
            numbers: float64 n x numbers, uniform in [0, 1).

        Returns:
            the same shape, in [0, 1]; a sample's result does not depend on those beside it.
        """

    def chosen(self, uniforms: np.ndarray) -> np.ndarray:
        """The samples that it changes, int64, in the order in which `apply` wants them.

        Args:
            uniforms: float64 n x (1 + numbers).
        """
        return np.flatnonzero(uniforms[:, 0] < self.p)

    def check(self, size: int) -> None:  # noqa: B027
        """Raise ConfigError on settings that do not fit views of `size` pixels."""

    @classmethod
    def key(cls, setting: str) -> str:
        """What a setting is called in messages and, for ours, in a yaml: `p` of blur is blur_p."""
        return f"{cls.name}_{setting}"

    def require(self, good: bool, setting: str, wanted: str) -> None:
        """Refuse the value of `setting` unless `good`."""
        require(good, self.key(setting), getattr(self, setting), wanted)

    def require_share(self, setting: str) -> None:
        """Refuse the value of `setting` unless it is a number in [0, 1]."""
        self.require(is_share(getattr(self, setting)), setting, "a number in [0, 1]")

    def __call__(self, x: Tensor, uniforms: np.ndarray) -> None:
        """In place: n x 3 x size x size after the operation on the samples it is drawn for."""
        index = self.chosen(uniforms)
        if len(index) == 0:
            return
        chosen = torch.from_numpy(index).to(x.device, non_blocking=True)
        before = x.index_select(0, chosen)
        shape = before.shape
        after = self.apply(before, uniforms[index, 1:])
        if after.shape != shape or after.dtype != x.dtype:
            raise ConfigError(
                f"views: {type(self).__name__}.apply gives {after.dtype} {list(after.shape)}; it "
                f"must give {x.dtype} {list(shape)}, as it was given"
            )
        x.index_copy_(0, chosen, after)


def on(device: torch.device, values: np.ndarray) -> Tensor:
    """Drawn numbers as float32 on `device`, without waiting for it."""
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)


def between(uniform: np.ndarray, low: Any, high: Any) -> np.ndarray:
    """Uniform numbers in [0, 1) moved to [low, high)."""
    return low + uniform * (high - low)


def require(good: bool, name: str, value: object, wanted: str) -> None:
    """Refuse the setting `name` unless `good`."""
    if not good:
        raise ConfigError(f"views: {name}={value}: give {wanted}")


def is_share(value: object) -> bool:
    """Whether a setting is a number in [0, 1]."""
    return isinstance(value, int | float) and 0 <= value <= 1


def tuple_of(name: str, values: Any, count: int) -> tuple[float, ...]:
    """The setting `name` as a tuple of `count` numbers."""
    try:
        found = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        found = ()
    require(len(found) == count, name, values, f"a list of {count} numbers")
    return found
