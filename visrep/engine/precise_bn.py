"""Precise batch norm: running statistics measured anew over many batches, with weights at rest.

The running mean and variance of training average over weights that have moved on. Here the mean is
that over batches, and the variance that of all values: the mean of E[x^2] over batches, less the
squared mean ("Rethinking 'Batch' in BatchNorm", arXiv 2105.07576, 3.2).
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn


@torch.no_grad()
def reestimate(
    model: nn.Module, batches: Iterator[Any], *, count: int, forward: Callable[[Any], Any]
) -> int:
    """Set the statistics of every batch norm of `model` from `count` batches in training mode.

    Args:
        model: its batch norms are torch's, Detectron2's or ours, all of which keep `running_mean`,
            `running_var` and `momentum`. Frozen ones have no momentum and stay as they are.
        batches: training batches.
        count: how many to use.
        forward: runs `model` on a batch.

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
        for norm in norms:
            norm.momentum = 1.0  # so that the running statistics are those of the last batch
        for _ in range(count):
            forward(next(batches))
            for norm, mean, square in zip(norms, means, squares, strict=True):
                mean += norm.running_mean / count
                square += (norm.running_var + norm.running_mean**2) / count
        for norm, mean, square in zip(norms, means, squares, strict=True):
            norm.running_mean.copy_(mean)
            norm.running_var.copy_((square - mean**2).clamp(min=0))
    finally:
        for norm, momentum in zip(norms, momenta, strict=True):
            norm.momentum = momentum
    return len(norms)
