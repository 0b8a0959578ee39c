"""What a weights file holds, whatever its container: a tree of containers, values and tensors."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.stored import Stored

AGAIN = "copy or download it again"
DEPTH = 12  # of nested containers in a tree; no checkpoint comes near


@dataclass(frozen=True)
class Tree:
    """What a weights file holds.

    Attributes:
        path: where it was read, for messages.
        container: safetensors, torch (zip), torch (before 1.6), pickle or TensorFlow bundle.
        value: nested dicts, lists, plain values, tensors (`Stored`: not read yet), and of pickles
            `Global` for a name and `Inert` for an object of a class.
        metadata: of a safetensors file, else empty.
        size: bytes of the file; no honest tensor is larger.
    """

    path: Path
    container: str
    value: Any
    size: int
    metadata: dict[str, str] = field(default_factory=dict)


def check_tensor(tree: Tree, name: str, value: object) -> Stored:
    """`value`, if it is a tensor that weights can be read from.

    Raises:
        UserError: it is no dense floating-point tensor, or claims more bytes than the file has.
    """
    if not isinstance(value, Stored):
        raise UserError(f"{tree.path}: {name} is no dense tensor; {AGAIN}")
    if not value.dtype.is_floating_point:
        raise UserError(f"{tree.path}: {name} holds {value.dtype}, not floating-point weights")
    if value.size > tree.size:
        raise UserError(f"{tree.path}: {name} claims more data than the file holds; {AGAIN}")
    return value


def float_tensor(tree: Tree, name: str, value: object) -> Tensor:
    """`value`, read from the file as a contiguous float32 tensor in memory of its own.

    Raises:
        UserError: see `check_tensor`; or it is damaged.
    """
    try:
        return check_tensor(tree, name, value).read().to(torch.float32)
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"cannot read {tree.path}: {error.strerror or error}") from error
    except Exception as error:  # whatever torch and numpy say to strange shapes
        raise UserError(f"{tree.path} is cut short or damaged at {name}: {AGAIN}") from error


class OnDemand(Mapping[str, Tensor]):
    """Name -> tensor, as `float_tensor` reads it from the file each time that it is asked for."""

    def __init__(self, tree: Tree, records: Mapping[str, Any]) -> None:
        self.tree, self.records = tree, records

    def __getitem__(self, name: str) -> Tensor:
        return float_tensor(self.tree, name, self.records[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.records)

    def __len__(self) -> int:
        return len(self.records)


def renamed(tensors: Mapping[str, Tensor], names: Mapping[str, str]) -> Mapping[str, Tensor]:
    """Those of `tensors` that `names` (new name -> name) lists; read on demand if these are."""
    if isinstance(tensors, OnDemand):
        return OnDemand(tensors.tree, {new: tensors.records[name] for new, name in names.items()})
    return {new: tensors[name] for new, name in names.items()}


def shapes_in(tensors: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Name -> shape; nothing is read."""
    records = tensors.records if isinstance(tensors, OnDemand) else tensors
    return {name: tuple(t.shape) for name, t in records.items()}


def tensors_in(value: object) -> Iterator[tuple[str, Stored]]:
    """(key path, tensor) of every tensor in nested containers; key paths are joined by '/'.

    A container is visited once, however often it is referred to.
    """
    seen: set[int] = set()

    def walk(value: object, prefix: str, depth: int) -> Iterator[tuple[str, Stored]]:
        if isinstance(value, Stored):
            yield prefix, value
        elif isinstance(value, dict | list | tuple | Inert) and depth < DEPTH:
            if id(value) in seen:
                return
            seen.add(id(value))
            held = value.fields() if isinstance(value, Inert) else value
            for key, item in held.items() if isinstance(held, dict) else enumerate(held):
                yield from walk(item, f"{prefix}/{key}" if prefix else str(key), depth + 1)

    return walk(value, "", 0)
