"""Learning rates as functions of the step: multipliers of the peak, between 0 and 1.

An fvcore `ParamScheduler` is called with step / total; nothing here has a state.
"""

import math
from collections.abc import Callable, Sequence

from fvcore.common.param_scheduler import ParamScheduler

from visrep.errors import ConfigError


class _OfStep(ParamScheduler):
    """A multiplier of the learning rate as a function of the step, called with step / total."""

    def __init__(self, total: int, function: Callable[[float], float]) -> None:
        self._total = total
        self._function = function

    def __call__(self, where: float) -> float:
        # Rounding makes step / total * total the step again, so that the peak is exactly 1.
        return self._function(round(where * self._total, 6))


def warmup_cosine(
    total: int, warmup: int = 0, final: float = 0.0, *, start: float = 0.0, every: int = 1
) -> ParamScheduler:
    """Linear from `start` to 1 over `warmup` steps, then half a cosine to `final`.

    The value of step t < warmup is start + (1 - start) t / warmup, so 0 at step 0 of a plain
    warm-up and 1 at step `warmup`; after that, with s = (t - warmup) / (total - warmup), it is
    final + (1 - final) (1 + cos(pi s)) / 2 (SimCLR v2, BYOL). `final` itself would be
    reached at step `total`, which is not run. `every` holds the cosine for so many steps (an epoch
    in MoCo and SimSiam).

    Raises:
        ConfigError: the warm-up is not shorter than the run.
    """
    _check_warmup(warmup, total)

    def value(step: float) -> float:
        if step < warmup:
            return start + (1 - start) * step / warmup
        held = step - warmup - (step - warmup) % every
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * held / (total - warmup)))

    return _OfStep(total, value)


def multistep(
    total: int, milestones: Sequence[int], gamma: float = 0.1, warmup: int = 0, start: float = 0.0
) -> ParamScheduler:
    """`gamma` to the number of milestones (steps) reached, after a linear warm-up from `start`.

    Raises:
        ConfigError: the warm-up is not shorter than the run, or the milestones do not increase.
    """
    _check_warmup(warmup, total)
    if list(milestones) != sorted(set(milestones)):
        raise ConfigError(f"optim.milestones={list(milestones)}: must increase")

    def value(step: float) -> float:
        if step < warmup:
            return start + (1 - start) * step / warmup
        return gamma ** sum(step >= milestone for milestone in milestones)

    return _OfStep(total, value)


def _check_warmup(warmup: int, total: int) -> None:
    if not 0 <= warmup < total:
        raise ConfigError(
            f"optim: a warm-up of {warmup} steps does not fit a run of {total}; lower "
            "optim.warmup_epochs or train longer"
        )
