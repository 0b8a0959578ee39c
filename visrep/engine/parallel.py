"""Processes: the group that torchrun started, what they agree on, what becomes of a lost one."""

import faulthandler
import os
import re
import traceback
from contextlib import AbstractContextManager, nullcontext
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visrep import dist
from visrep.errors import ConfigError, UserError


def join(device: str) -> torch.device:
    """Join torchrun's process group, if there is one, and return this process' device.

    `device` is auto, cpu or cuda; auto takes the GPU of this local rank when there is one. A
    process that waits for the others longer than `dist.patience` gives up, see `explained`.

    Raises:
        ConfigError: this machine has no such device.
    """
    _require(device)
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "nccl" if cuda else "gloo", timeout=timedelta(seconds=dist.patience())
        )
        if cuda:
            faulthandler.enable()  # NCCL aborts a process that waited in vain: this says where
    if not cuda:
        return torch.device("cpu" if device == "auto" else device)
    index = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


def _require(device: str) -> None:
    if device == "auto" or (device == "cuda" and torch.cuda.is_available()):
        return
    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError, TypeError) as error:
        raise ConfigError(f"device={device} is not here: choose auto, cpu or cuda") from error


def leave() -> None:
    """Leave the process group, if one was joined."""
    if torch.distributed.is_initialized():
        torch.distributed.destroy_process_group()


def wrap(task: nn.Module) -> nn.Module:
    """`task` whose gradients are averaged over the processes; itself on one process."""
    if dist.world_size() == 1:
        return task
    # Buffers are a method's own business: a queue is the same everywhere by construction, and
    # running statistics under per-process batch norm are meant to differ.
    return DistributedDataParallel(task, broadcast_buffers=False, gradient_as_bucket_view=True)


def no_sync(model: nn.Module, active: bool) -> AbstractContextManager[None]:
    """Leave gradients on this process for now: the micro-batches before the last one."""
    if active and isinstance(model, DistributedDataParallel):
        return model.no_sync()
    return nullcontext()


class Agreement:
    """Which signal any of the processes has got, known to all of them at the same step.

    Each step sends one number over the CPU, and reads the answer to that of the step before, which
    has come meanwhile: no step waits for it, nor for the device.
    """

    def __init__(self) -> None:
        self._group: Any = None
        if dist.world_size() > 1:
            # A group of its own: the order of its calls is that of steps, whatever gradients do.
            self._group = torch.distributed.new_group(
                backend="gloo", timeout=timedelta(seconds=dist.patience())
            )
        self._asked: tuple[Any, torch.Tensor] | None = None

    def on(self, signum: int) -> int:
        """The largest `signum` that a process gave a step ago; on one process the one just given.

        All processes must call this at every step. 0 is none.
        """
        if self._group is None:
            return signum
        before, mine = self._asked, torch.tensor(signum)
        work = torch.distributed.all_reduce(
            mine, torch.distributed.ReduceOp.MAX, group=self._group, async_op=True
        )
        self._asked = (work, mine)
        if before is None:
            return 0
        before[0].wait()
        return int(before[1])


_LOST = re.compile(r"gloo|NCCL|Timed out|Connection (closed|reset)|Broken pipe", re.IGNORECASE)


def explained(error: RuntimeError) -> UserError | None:
    """A collective that failed, as one line that says where; None: `error` is something else."""
    world, text = dist.world_size(), str(error).splitlines()
    known = isinstance(error, torch.distributed.DistError)
    if world == 1 or not text or not (known or _LOST.search(str(error))):
        return None
    inner = Path(torch.__file__).parent
    ours = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not Path(frame.filename).is_relative_to(inner)
    ]
    where = f"{Path(ours[-1].filename).name}:{ours[-1].lineno}, {ours[-1].name}" if ours else "?"
    return UserError(
        f"process {dist.rank()} of {world} has lost the others, at {where}: {text[0][:200]}; look "
        "for what ended them above and in log*.txt (VISREP_TIMEOUT=SECONDS waits longer than "
        f"{dist.patience():.0f} s)"
    )
