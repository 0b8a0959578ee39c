"""Running statistics of batch norm measured anew over many batches, with weights at rest.

Those of training average over weights that have moved on; a fresh net's (mean 0, variance 1) are
those of no data.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


@contextmanager
def buffers_kept(model: nn.Module) -> Iterator[None]:
    """After the body, running statistics and all other buffers, and the mode, are as before it."""
    training = model.training
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}
    try:
        yield
    finally:
        with torch.no_grad():
            for name, buffer in model.named_buffers():
                buffer.copy_(before[name])
        model.train(training)


@torch.no_grad()
def reestimate(
    model: nn.Module,
    batches: Iterator[Any],
    *,
    count: int,
    forward: Callable[[Any], Any],
    between: bool = True,
) -> int:
    """Set the statistics of every batch norm of `model` from `count` batches in training mode.

    Args:
        model: its batch norms are torch's, Detectron2's or ours, all of which keep `running_mean`,
            `running_var` and `momentum`. Frozen ones have no momentum and stay as they are.
        batches: training batches.
        count: how many to use.
        forward: runs `model` on a batch.
        between: True: the variance of all values, also from batch to batch: the mean of E[x^2] over
            batches, less the squared mean (precise batch norm, arXiv 2105.07576, 3.2). False: the
            mean of the batches' own variances, what training's moving average tends to.

    Returns:
        the number of layers that were re-estimated.
    """
    norms: list[Any] = [
        m for m in model.modules() if hasattr(m, "momentum") and hasattr(m, "running_var")
    ]
    momenta = [norm.momentum for norm in norms]
    means = [torch.zeros_like(norm.running_mean) for norm in norms]
    squares = [torch.zeros_like(norm.running_var) for norm in norms]
    model.train()
    try:
        for step in range(1, count + 1):
            for norm in norms:
                # The running statistics become those of this batch, or the plain mean so far.
                norm.momentum = 1.0 if between else 1 / step
            forward(next(batches))
            if between:
                for norm, mean, square in zip(norms, means, squares, strict=True):
                    mean += norm.running_mean / count
                    square += (norm.running_var + norm.running_mean**2) / count
        if between:
            for norm, mean, square in zip(norms, means, squares, strict=True):
                norm.running_mean.copy_(mean)
                norm.running_var.copy_((square - mean**2).clamp(min=0))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)
