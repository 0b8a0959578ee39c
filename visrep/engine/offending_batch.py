"""Numbers that are not finite: noticed at the step they appear in, without a wait for the device.

Every step marks on the device whether its loss or its gradients were not finite; the marks are read
at readings and before a snapshot. The batch of the first such step need not have been kept for it:
a batch is a function of (seed, step), so it is made again and written to the run folder.
"""

from collections import defaultdict
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from visrep import dist
from visrep.engine.optim import LARS
from visrep.engine.task import Batches
from visrep.files import atomic_path
from visrep.weights.containers.torch_files import save_torch

BATCH = "offending_batch.pt"


class FiniteWatch:
    """Remembers the first step whose loss or gradients were not finite, on any process."""

    def __init__(self, task: nn.Module, device: torch.device) -> None:
        self.task = task
        self.trained = [p for p in task.parameters() if p.requires_grad]
        self.first = torch.full((2,), -1, device=device)  # steps: of the loss, of the gradients

    @torch.no_grad()
    def mark(self, step: int, loss: Tensor, *, gradients: bool = True) -> None:
        """Note step `step` (the first is 0): its loss is `loss`, its gradients exist.

        gradients: whether they must be finite, as they need not be where a step with others is
        left out.
        """
        grads = [p.grad for p in self.trained if gradients and p.grad is not None]
        size = _size(grads)
        bad = ~torch.stack([loss.detach().double(), size.to(loss.device)]).isfinite()
        self.first = torch.where((self.first < 0) & bad, step, self.first)

    @torch.no_grad()
    def found(self, step: int) -> tuple[int, str] | None:
        """The first bad step and what was not finite in it; None when all is well.

        `step` updates are done; the state they have left is looked at, too. All processes must
        call this at the same step, and get the same answer.
        """
        state = _size(t for t in self.task.state_dict().values() if isinstance(t, Tensor))
        lost = torch.where(state.isfinite(), -1, step - 1).to(self.first)
        marks = dist.gather(torch.cat([self.first, lost[None]])[None]).T.tolist()
        names = ("the loss is", "the gradients are", "the weights are")
        steps = [
            (min(step for step in row if step >= 0), name)
            for row, name in zip(marks, names, strict=True)
            if max(row) >= 0
        ]
        return min(steps, key=lambda found: found[0]) if steps else None  # names in their order


def _size(tensors: Iterable[Tensor]) -> Tensor:
    """The sum of the lengths of all floating-point tensors: finite if all of their values are."""
    by_type = defaultdict(list)
    for tensor in tensors:
        if tensor.is_floating_point():
            by_type[tensor.dtype].append(tensor)
    total = torch.zeros((), dtype=torch.float64)
    for same in by_type.values():
        total = total.to(same[0].device) + torch.stack(torch._foreach_norm(same)).double().sum()
    return total


def keep_batch(
    out: Path | None,
    *,
    batches: Batches,
    step: int,
    accumulate: int,
    device: torch.device | str = "cpu",
) -> bool:
    """Make the batch of `step` again, the first being 0, and write it to the folder `out`.

    Returns whether all of it, on all processes, is finite; `device` is where collectives work.

    `offending_batch.pt` (`offending_batch.rank1.pt` for the share of process 1) is what
    `torch.save` writes: {"step", "rank", "micro_batches": [what the task was given: views, index,
    seed, ...]}. The net that met it is that of the last snapshot, trained on: a resumed run comes
    to this step with the same numbers.
    """
    stream = islice(batches.iterate(step * accumulate), accumulate)
    micro = [{name: _on_cpu(value) for name, value in batch.items()} for batch in stream]
    if out is not None:
        content = {"step": step, "rank": dist.rank(), "micro_batches": micro}
        name = f"offending_batch.rank{dist.rank()}.pt" if dist.rank() else BATCH
        with atomic_path(out / name) as temporary, open(temporary, "wb") as file:
            save_torch(content, file)
    bad = sum(float(not t.isfinite().all()) for t in _tensors(micro))
    return not float(dist.sum(torch.tensor(bad, device=device)))


def advice(optimizer: Optimizer, *, batch_is_finite: bool) -> str:
    """What to do about a run that is not finite."""
    if not batch_is_finite:
        return (
            "the batch itself is not finite: look at its images and at the mean and std of views="
        )
    adapted = (g for g in optimizer.param_groups if isinstance(optimizer, LARS) and g["adapt"])
    if any(p.dim() < 2 for group in adapted for p in group["params"]):
        return "optim.exclude=[norm,bias], which LARS must not scale, or lower optim.lr"
    return "lower the learning rate (optim.lr), or lengthen the warm-up"


def _on_cpu(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_on_cpu(item) for item in value]
    if isinstance(value, dict):
        return {name: _on_cpu(item) for name, item in value.items()}
    return value.cpu() if isinstance(value, Tensor) else value


def _tensors(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return [tensor for item in value for tensor in _tensors(item)]
    return [value] if isinstance(value, Tensor) and value.is_floating_point() else []
