"""Exponential moving average of a network: MoCo's key encoder, BYOL's target."""

import copy
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def copy_of(module: Module) -> Module:
    """A copy that receives no gradient, to be moved by `update`."""
    return copy.deepcopy(module).requires_grad_(False)


@torch.no_grad()
def update(target: nn.Module, source: nn.Module, *, momentum: float) -> None:
    """target <- momentum * target + (1 - momentum) * source, for the parameters (MoCo, equation 2).

    Buffers stay as they are: running statistics come from the target's own batches. Raises
    ValueError when the two do not have the same parameters.
    """
    mine, theirs = dict(target.named_parameters()), dict(source.named_parameters())
    if mine.keys() != theirs.keys():
        raise ValueError(f"not the same network: {sorted(mine.keys() ^ theirs.keys())[:3]} differ")
    torch._foreach_lerp_(list(mine.values()), [theirs[name] for name in mine], 1.0 - momentum)
