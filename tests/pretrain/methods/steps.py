"""A tiny net, seeded batches and a plain training step: what the tests of all methods run."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from visrep import dist
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.resnet import ResNet

BATCH = 8


def tiny_encoder() -> ResNet:
    """A ResNet-18 of width 1/16 for 16 px: N x 3 x 16 x 16 -> N x 32, every block alive."""
    torch.manual_seed(0)
    return ResNet(depth=18, width=1 / 16, stem="small", zero_init_residual=False)


def batch_of(step: int, *, sizes: tuple[int, ...] = (16, 16), count: int = BATCH) -> dict[str, Any]:
    """The whole batch of `step`, float64: pairs of views that have something in common."""
    generator = torch.Generator().manual_seed(1000 + step)
    common = torch.rand(count, 3, max(sizes), max(sizes), generator=generator, dtype=torch.float64)
    views = []
    for size in sizes:
        noise = torch.rand(count, 3, size, size, generator=generator, dtype=torch.float64)
        views.append(0.7 * common[..., :size, :size] + 0.3 * noise)
    order = torch.randperm(2 * count, generator=generator)[:count]
    return {"views": views, "index": order, "label": None, "seed": 77 + step}


def share_of(batch: dict[str, Any]) -> dict[str, Any]:
    """This process' slice of a whole batch."""
    n = len(batch["index"]) // dist.world_size()
    mine = slice(dist.rank() * n, (dist.rank() + 1) * n)
    return {
        **batch,
        "views": [view[mine] for view in batch["views"]],
        "index": batch["index"][mine],
    }


class Now:
    """Stands in for the engine's Progress."""

    def __init__(self, step: int, total: int) -> None:
        self.step, self.total = step, total
        self.fraction = step / total


def train(
    make: Callable[[], nn.Module],
    *,
    batchnorm: str,
    groups: int = 1,
    steps: int = 3,
    lr: float = 0.1,
    sizes: tuple[int, ...] = (16, 16),
) -> dict[str, Tensor]:
    """Some updates in float64; returns losses, the gradients of every step and the final state."""
    torch.manual_seed(1)
    task = make().double().train()
    set_batchnorm(task, mode=batchnorm, groups=groups)
    trained = {name: p for name, p in task.named_parameters() if p.requires_grad}
    seen: dict[str, Tensor] = {}
    for step in range(steps):
        out = task(share_of(batch_of(step, sizes=sizes)))
        for p in trained.values():
            p.grad = None
        out["loss"].backward()
        for p in trained.values():
            if p.grad is not None:
                p.grad = dist.mean(p.grad)
        task.before_update(Now(step, steps))
        with torch.no_grad():
            for name, p in trained.items():
                if p.grad is not None:
                    seen[f"gradient {step} {name}"] = p.grad.clone()
                    p -= lr * p.grad
        task.after_update(Now(step + 1, steps))
        seen[f"loss {step}"] = dist.mean(out["loss"])
    for name, value in task.state_dict().items():
        local = batchnorm == "local" and ("running_" in name)
        seen[f"state {name}"] = dist.mean(value) if local else value.clone()
    return seen


def assert_same_loss(task: nn.Module, got: Tensor, want: Tensor) -> None:
    """A loss of `task` and its gradients equal those of an oracle on the same parameters."""
    torch.testing.assert_close(got, want)
    trained = [p for p in task.parameters() if p.requires_grad]
    for gradient, wanted in zip(
        torch.autograd.grad(got, trained), torch.autograd.grad(want, trained), strict=True
    ):
        torch.testing.assert_close(gradient, wanted, atol=1e-8, rtol=1e-6)


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor], *, atol: float = 1e-9) -> None:
    """All numbers of two runs agree, name by name."""
    assert one.keys() == other.keys()
    assert any(name.startswith("gradient") for name in one)
    for name, value in one.items():
        torch.testing.assert_close(
            other[name], value, rtol=1e-7, atol=atol, msg=lambda text, name=name: f"{name}: {text}"
        )
