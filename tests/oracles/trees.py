"""Trees without a file, for tests that look at keys and shapes."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import Tree


class Held(Stored):
    """A record of a tensor in memory."""

    def __init__(self, tensor: Tensor) -> None:
        self.tensor, self.shape, self.dtype = tensor, tuple(tensor.shape), tensor.dtype

    def read(self) -> Tensor:
        return self.tensor.detach().clone(memory_format=torch.contiguous_format)


def tree(value: object, *, size: int = 1 << 40, **metadata: str) -> Tree:
    """`value` as if it had been read from model.pth: records in place of its tensors and arrays."""
    return Tree(Path("model.pth"), "torch (zip)", _held(value), size, metadata)


def _held(value: Any) -> Any:
    if isinstance(value, Tensor):
        return Held(value)
    if isinstance(value, np.ndarray):
        return Held(torch.from_numpy(value))
    if isinstance(value, dict):
        return {name: _held(item) for name, item in value.items()}
    return [_held(item) for item in value] if isinstance(value, list) else value
