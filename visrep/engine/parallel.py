"""Processes: joining the group that torchrun started, and DistributedDataParallel around a task."""

import os
from contextlib import AbstractContextManager, nullcontext

import torch
import torch.distributed
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from visrep import dist


def join(device: str) -> torch.device:
    """Join torchrun's process group, if there is one, and return this process' device.

    `device` is auto, cpu or cuda; auto takes the GPU of this local rank when there is one.
    """
    cuda = device == "cuda" or (device == "auto" and torch.cuda.is_available())
    if int(os.environ.get("WORLD_SIZE", "1")) > 1 and not torch.distributed.is_initialized():
        torch.distributed.init_process_group("nccl" if cuda else "gloo")
    if not cuda:
        return torch.device("cpu" if device == "auto" else device)
    index = int(os.environ.get("LOCAL_RANK", "0"))
    torch.cuda.set_device(index)
    return torch.device("cuda", index)


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
