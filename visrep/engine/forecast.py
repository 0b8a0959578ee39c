"""What a training needs, known before its first step: memory, and time.

One batch goes forward and back without an update: the largest, for the memory, and an ordinary one
for the time. On a GPU the peak is read; on a CPU the tensors are counted that the graph keeps for
the way back. Nothing of it is left: weights, statistics, gradients and generators are as before.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks

from visrep.engine.precise_bn import buffers_kept
from visrep.errors import UserError

log = logging.getLogger("visrep")

LEAST = 50  # steps of a run; a shorter one is over as soon as it is foreseen
GIB = 2**30


class _Beyond(Exception):
    """More is kept than there is memory for."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    """What a training is going to need.

    Attributes:
        steps: updates to come.
        seconds: of all of them; without reading images, measuring and saving.
        needed: bytes at the largest batch: weights, their gradients, one moment of the optimizer,
            and on top of them what the graph keeps (CPU), or the measured peak (GPU).
        available: bytes of the device for this process, 0 where they are not known.
    """

    steps: int
    seconds: float
    needed: int
    available: int

    def line(self) -> str:
        """For people."""
        hours = self.seconds / 3600
        lasting = f"{hours:.1f} h" if hours >= 1 else f"{self.seconds / 60:.1f} min"
        there = f" (of {self.available / GIB:.3g})" if self.available else ""
        return (
            f"forecast: {lasting} for {self.steps:,} steps; {self.needed / GIB:.2g} GiB at the "
            f"largest batch{there}"
        )


def foresee(
    model: nn.Module,
    *,
    loss: Callable[[Any], Tensor],
    largest: Any,
    ordinary: Any,
    device: torch.device,
    steps: int,
    parts: int = 1,
    advice: str,
) -> Forecast:
    """Run `largest` and `ordinary`, batches for `loss`, forward and back once; change nothing.

    Args:
        model: has all parameters that are trained, and all buffers that a pass changes.
        steps: updates to come, each of `parts` such batches.
        advice: what to do where memory does not suffice, the end of a sentence.

    Raises:
        UserError: it does not suffice for the largest batch.
    """
    trained = [p for p in model.parameters() if p.requires_grad]
    of_optimizer = sum(p.numel() * p.element_size() for p in trained)
    fixed = sum(t.numel() * t.element_size() for t in (*model.parameters(), *model.buffers()))
    there = available(device)
    room = max(0, there - 2 * of_optimizer) if there else None  # the weights are there already
    with _untouched(model, device):
        try:
            if device.type == "cuda":
                torch.cuda.reset_peak_memory_stats(device)
                _step(loss, largest, device)
                needed = torch.cuda.max_memory_allocated(device) + of_optimizer
                there += fixed
            else:
                with activations(model, limit=room) as kept:
                    loss(largest).backward()
                needed = kept[0] + fixed + 2 * of_optimizer
                there += fixed if there else 0
        except (_Beyond, torch.OutOfMemoryError) as error:
            raise UserError(
                f"the largest batch does not fit into the {there / GIB:.3g} GiB that are free on "
                f"{device}: {advice}"
            ) from error
        if there and needed > there:
            raise UserError(
                f"the largest batch needs {needed / GIB:.3g} GiB, and {there / GIB:.3g} are free "
                f"on {device}: {advice}"
            )
        _clear(model)
        started = time.perf_counter()
        _step(loss, ordinary, device)
        seconds = (time.perf_counter() - started) * parts * steps
    return Forecast(steps=steps, seconds=seconds, needed=needed, available=there)


def _step(loss: Callable[[Any], Tensor], batch: Any, device: torch.device) -> None:
    loss(batch).backward()
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def activations(model: nn.Module, *, limit: int | None = None) -> Iterator[list[int]]:
    """The body's first item counts the bytes that graphs made in it keep for the way back.

    A storage counts once, and those of `model`'s own parameters and buffers do not.
    """
    own = {t.untyped_storage().data_ptr() for t in (*model.parameters(), *model.buffers())}
    seen: dict[int, Tensor] = {}  # kept, so that no other storage takes its place
    count = [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        place = storage.data_ptr()
        if place not in own and place not in seen:
            seen[place] = tensor.detach()
            count[0] += storage.nbytes()
            if limit is not None and count[0] > limit:
                raise _Beyond
        return tensor

    with saved_tensors_hooks(pack, lambda tensor: tensor):
        yield count


def available(device: torch.device) -> int:
    """Bytes that this process can still take on `device`; 0 where nobody knows."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(free + unused)
    found = []
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        found.append(os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                found = [int(line.split()[1]) * 1024]
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            found.append(int(most) - int((group / "memory.current").read_text()))
    except (OSError, ValueError):
        pass  # another system, or none of these limits
    return max(0, min(found, default=0))


@contextmanager
def _untouched(model: nn.Module, device: torch.device) -> Iterator[None]:
    before = [p.grad for p in model.parameters()]
    devices = [device] if device.type == "cuda" else []
    try:
        with buffers_kept(model), torch.random.fork_rng(devices=devices):
            _clear(model)
            yield
    finally:
        for parameter, gradient in zip(model.parameters(), before, strict=True):
            parameter.grad = gradient


def _clear(model: nn.Module) -> None:
    for parameter in model.parameters():
        parameter.grad = None
