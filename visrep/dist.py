"""Collectives for the maths: what a method or a layer needs to know about the other processes.

Every function is the identity on one process, so the caller is written once. Processes are started
elsewhere (`visrep.engine.parallel`); gloo (CPU) and nccl (GPU) both work. All processes must call
the same functions in the same order.
"""

import os
from collections.abc import Callable
from typing import Any

import torch
import torch.distributed as td
from torch import Tensor

from visrep.errors import ConfigError


def rank() -> int:
    """Number of this process, 0 .. world_size() - 1."""
    return td.get_rank() if _started() else 0


def world_size() -> int:
    """How many processes train together; 1 without torchrun."""
    return td.get_world_size() if _started() else 1


def is_main() -> bool:
    """True on the one process that prints and writes files."""
    return rank() == 0


def patience() -> float:
    """Seconds that a process waits for the others before it gives up: VISREP_TIMEOUT, or 1800.

    Raises:
        ConfigError: it is no number above 0.
    """
    given = os.environ.get("VISREP_TIMEOUT", "1800")
    try:
        seconds = float(given)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise ConfigError(f"VISREP_TIMEOUT={given}: give the seconds to wait, more than 0")
    return seconds


def barrier() -> None:
    """Wait until every process has come here."""
    if world_size() > 1:
        td.barrier()


def gather(x: Tensor, *, equal: bool = True) -> Tensor:
    """Concatenate the n x ... tensors of all processes along dim 0, in rank order. No gradient.

    With `equal=True` all processes must have the same n: on CPU tensors another n raises
    ValueError, on a GPU the caller answers for it (a check would stall the device every step).
    `equal=False` takes any n at the price of that stall. Channels-last images stay channels-last.
    """
    x = x.detach()
    return x if world_size() == 1 else _all_gather(x, equal)[0]


def gather_with_grad(x: Tensor, *, equal: bool = True) -> Tensor:
    """`gather` whose backward gives x the sum, over all processes, of the gradients of its rows.

    With the loss L_r on process r, x receives d(sum_r L_r)/dx: what one process would compute for
    the sum of the losses.
    """
    return x if world_size() == 1 else _GatherWithGrad.apply(x, equal)


def sum(x: Tensor) -> Tensor:
    """Elementwise sum over the processes. No gradient."""
    x = x.detach()
    return x if world_size() == 1 else _all_reduce(x)


def mean(x: Tensor) -> Tensor:
    """Elementwise mean over the processes (each counts once). No gradient."""
    x = x.detach()
    return x if world_size() == 1 else _all_reduce(x) / world_size()


def sum_with_grad(x: Tensor) -> Tensor:
    """Elementwise sum over the processes; the backward sums the gradients likewise."""
    return x if world_size() == 1 else _SumWithGrad.apply(x)


def broadcast(x: Tensor) -> Tensor:
    """The value that process 0 has; x must have one shape and type everywhere. No gradient."""
    x = x.detach()
    if world_size() == 1:
        return x
    x = x.clone(memory_format=torch.contiguous_format)
    td.broadcast(x, src=0)
    return x


@torch.no_grad()
def shuffled(fn: Callable[[Tensor], Tensor], x: Tensor, seed: int) -> Tensor:
    """Apply `fn` to samples dealt anew to the processes, and bring the results home. No gradient.

    x: n x ..., this process's slice of the global batch; returns fn's rows for the same samples.
    The permutation of the global batch is a function of `seed`, which must be the same on all
    processes. This is MoCo's shuffled BN (arXiv 1911.05722, section 3.3): the samples that share
    batch statistics are others for the keys than for the queries. On one process it permutes too,
    for the sake of a BN that works in groups.
    """
    everything = gather(x)
    order = torch.randperm(len(everything), generator=torch.Generator().manual_seed(seed))
    mine = slice(rank() * len(x), (rank() + 1) * len(x))
    results = gather(fn(everything[order[mine].to(x.device)]))
    home = torch.argsort(order)  # sample i lies in row home[i] of the shuffled batch
    return results[home[mine].to(x.device)]


def _started() -> bool:
    return td.is_available() and td.is_initialized()


def _all_reduce(x: Tensor) -> Tensor:
    x = x.clone(memory_format=torch.contiguous_format)
    td.all_reduce(x)
    return x


def _all_gather(x: Tensor, equal: bool) -> tuple[Tensor, int]:
    """Rows of all processes, and the row at which this process's own begin."""
    if (
        x.dim() == 4
        and not x.is_contiguous()
        and x.is_contiguous(memory_format=torch.channels_last)
    ):
        rows, start = _all_gather(x.permute(0, 2, 3, 1), equal)
        return rows.permute(0, 3, 1, 2), start
    world, n = world_size(), len(x)
    if equal and x.is_cuda:
        return _all_gather_equal(x), rank() * n
    counts = _all_gather_equal(torch.tensor([n], device=x.device)).tolist()
    if equal and len(set(counts)) > 1:
        raise ValueError(f"processes hold different numbers of rows to gather: {counts}")
    most = max(counts)
    if n < most:
        x = torch.cat([x, x.new_zeros(most - n, *x.shape[1:])])
    parts = _all_gather_equal(x).view(world, most, *x.shape[1:])
    rows = torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])
    start = 0
    for count in counts[: rank()]:
        start += count
    return rows, start


def _all_gather_equal(x: Tensor) -> Tensor:
    parts = x.new_empty(world_size(), *x.shape)
    td.all_gather(list(parts), x.contiguous())
    return parts.flatten(0, 1)


class _GatherWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, equal: bool) -> Tensor:
        rows, ctx.start = _all_gather(x, equal)
        ctx.count = len(x)
        return rows

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        return _all_reduce(grad)[ctx.start : ctx.start + ctx.count], None


class _SumWithGrad(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _all_reduce(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        return _all_reduce(grad)
