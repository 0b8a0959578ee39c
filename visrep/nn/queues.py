"""A first-in-first-out store of embeddings: MoCo's queue, SimCLR v2's memory."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep.errors import ConfigError


class Queue(nn.Module):
    """The last K embeddings, as a ring buffer that is the same on all processes.

    Starts with random unit vectors. `pointer` is the row that the next embedding takes; it stays
    on the device, so that a push waits for nothing.
    """

    keys: Tensor  # K x D
    pointer: Tensor  # int64 scalar

    def __init__(self, *, size: int, dim: int) -> None:
        super().__init__()
        if size < 1:
            raise ConfigError(f"queue of {size} entries: give at least one")
        self.register_buffer("keys", F.normalize(torch.randn(size, dim), dim=1))
        self.register_buffer("pointer", torch.zeros((), dtype=torch.int64))

    def check(self, count: int) -> None:
        """Raise ConfigError unless pushes of `count` embeddings fill the queue evenly."""
        size = len(self.keys)
        if size % count:
            raise ConfigError(
                f"a queue of {size} cannot take {count} keys a step evenly: make the queue size "
                f"a multiple of the total batch size {count}"
            )

    @torch.no_grad()
    def push(self, keys: Tensor) -> None:
        """Overwrite the oldest entries with `keys`, n x D, in their order.

        The keys of all processes must have been gathered. Changes `keys` of this module in place:
        call it when nothing that autograd still needs refers to them.
        """
        self.check(len(keys))
        rows = (self.pointer + torch.arange(len(keys), device=keys.device)) % len(self.keys)
        self.keys.index_copy_(0, rows, keys.to(self.keys.dtype))
        self.pointer.add_(len(keys)).remainder_(len(self.keys))
