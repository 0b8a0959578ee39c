"""Which samples a step takes: a function of (seed, epoch), never of a worker or a process."""

from functools import lru_cache

import torch
from torch import Tensor

from visrep import dist
from visrep.errors import ConfigError
from visrep.seeds import epoch_order

# A step asks for its epoch's order anew; of a million samples it takes longer than a small batch.
_order = lru_cache(maxsize=2)(epoch_order)


class Order:
    """The order of `size` samples, epoch after epoch, in whole batches.

    Args:
        size: of an epoch, in samples.
        batch_size: samples of one step over all processes.
        seed: of the run.
        continuous: False: every epoch drops its last partial batch. True: batches run on over the
            ends of epochs, which allows a batch larger than an epoch.

    Attributes:
        slice: this process' part of a whole batch.

    Raises:
        ConfigError: the batch does not divide over the processes.
    """

    def __init__(self, size: int, *, batch_size: int, seed: int, continuous: bool) -> None:
        self.size, self.batch_size, self.seed = size, batch_size, seed
        self.continuous = continuous
        processes = dist.world_size()
        if batch_size % processes:
            raise ConfigError(
                f"batch_size={batch_size} does not divide over {processes} processes: choose a "
                f"multiple of {processes}"
            )
        share = batch_size // processes
        self.slice = slice(dist.rank() * share, (dist.rank() + 1) * share)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the samples, at least 1."""
        return max(1, self.size // self.batch_size)

    def of(self, step: int) -> Tensor:
        """The whole batch of `step`: numbers below `size`, int64."""
        if self.continuous:
            first = step * self.batch_size
        else:
            epoch, batch = divmod(step, self.steps_per_epoch)
            first = epoch * self.size + batch * self.batch_size
        last, parts = first + self.batch_size, []
        for epoch in range(first // self.size, (last - 1) // self.size + 1):
            order = _order(self.size, seed=self.seed, epoch=epoch)
            begin = epoch * self.size
            parts.append(order[max(0, first - begin) : last - begin])
        return torch.cat(parts)


def total_steps(images: int, *, epochs: float, batch_size: int) -> int:
    """floor(N * epochs / B) + 1, SimCLR's count of a stream whose batches run on over the epochs.

    Those are the step counts in the names of the released checkpoints; a batch may be larger than
    the data.

    Raises:
        ConfigError: no epoch or an empty batch.
    """
    if epochs <= 0 or batch_size < 1:
        raise ConfigError(f"epochs={epochs} batch_size={batch_size}: both must be above 0")
    return int(images * epochs // batch_size) + 1
