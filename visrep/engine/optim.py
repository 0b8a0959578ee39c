"""Optimisers, the groups of their parameters, and their learning rates.

A group carries, beside torch's keys, `initial_lr` (the peak), `fixed_lr` (the schedule leaves it
alone) and `adapt` (LARS scales its updates). `set_learning_rate` applies a schedule to the groups.
"""

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import SGD, Adam, Optimizer

from visrep.engine.schedules import multistep, warmup_cosine
from visrep.errors import ConfigError

__all__ = [
    "LARS",
    "build",
    "multistep",
    "parameter_groups",
    "scaled_lr",
    "set_learning_rate",
    "warmup_cosine",
]

_NORMS = (_NormBase, nn.GroupNorm, nn.LayerNorm)


class LARS(Optimizer):
    """Layer-wise adaptive rate scaling (You et al., arXiv 1708.03888), as SimCLR and BYOL use it.

    For every tensor w with gradient g, decay d, trust coefficient c:

        g <- g + d w
        t  = c |w| / |g|   where both norms are positive and the group has `adapt`, else 1
        v <- m v + lr t g ;  w <- w - v          lr_in_buffer=True   (SimCLR: "classic" momentum)
        v <- m v +    t g ;  w <- w - lr v       lr_in_buffer=False  (BYOL, Barlow Twins, LARC)

    The two differ as soon as lr changes. The norm of g is taken after the decay is added. (LARC,
    which SwAV uses, divides by |g| + d |w| instead: the same to a relative 1e-6 at its decay.)
    No value leaves the device.
    """

    def __init__(
        self,
        params: Iterable[Tensor] | Iterable[dict[str, Any]],
        *,
        lr: float,
        momentum: float = 0.9,
        weight_decay: float = 0.0,
        trust: float = 0.001,
        lr_in_buffer: bool = True,
        adapt: bool = True,
    ) -> None:
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "weight_decay": weight_decay,
            "trust": trust,
            "lr_in_buffer": lr_in_buffer,
            "adapt": adapt,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every tensor that has a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            self._step_group(group)
        return loss

    def _step_group(self, group: dict[str, Any]) -> None:
        weights = [w for w in group["params"] if w.grad is not None]
        if not weights:
            return
        gradients = [w.grad for w in weights]
        if group["weight_decay"]:
            updates = torch._foreach_add(gradients, weights, alpha=group["weight_decay"])
        else:
            updates = torch._foreach_mul(gradients, 1.0)
        if group["adapt"]:
            w_norm = torch.stack(torch._foreach_norm(weights))  # one number per tensor
            g_norm = torch.stack(torch._foreach_norm(updates))
            usable = (w_norm > 0) & (g_norm > 0)
            ratio = torch.where(usable, group["trust"] * w_norm / g_norm, torch.ones_like(w_norm))
            torch._foreach_mul_(updates, list(ratio.unbind()))
        if group["lr_in_buffer"]:
            torch._foreach_mul_(updates, group["lr"])
        buffers = []
        for w in weights:
            if "momentum_buffer" not in self.state[w]:
                self.state[w]["momentum_buffer"] = torch.zeros_like(w)
            buffers.append(self.state[w]["momentum_buffer"])
        torch._foreach_mul_(buffers, group["momentum"])
        torch._foreach_add_(buffers, updates)
        torch._foreach_add_(weights, buffers, alpha=-1.0 if group["lr_in_buffer"] else -group["lr"])


def parameter_groups(
    module: nn.Module,
    *,
    lr: float,
    weight_decay: float,
    exclude: Sequence[str] = ("norm", "bias"),
    excluded_lr: float | None = None,
    fixed_lr: Sequence[str] = (),
    lr_factors: Sequence[tuple[str, float]] = (),
) -> list[dict[str, Any]]:
    """The trainable parameters of `module`, each in exactly one group, in order of definition.

    Args:
        module: what is trained.
        lr: peak learning rate.
        weight_decay: of every parameter that is not excluded.
        exclude: what gets neither weight decay nor LARS' scaling: "norm" (all of a normalisation
            layer), "bias" (every bias outside one), or the dotted name of a submodule or parameter
            ("fc", "head.layers.0").
        excluded_lr: peak learning rate of the excluded; `lr` when None (Barlow Twins has two).
        fixed_lr: names of submodules whose learning rate stays at its peak (SimSiam's predictor).
        lr_factors: pairs of a submodule's name and what its learning rate is multiplied by,
            [("predictor", 10.0)]: a predictor that keeps up with the network it follows may do
            better (arXiv 2006.07733, its appendix on a near-optimal predictor). Factors of nested
            submodules multiply.

    Raises:
        ConfigError: a name in `exclude`, `fixed_lr` or `lr_factors` fits no parameter, a factor is
            not above 0, or nothing is trainable.
    """
    factors = _checked_factors(lr_factors)
    norm = {
        id(p)
        for child in module.modules()
        if isinstance(child, _NORMS)
        for p in child.parameters(recurse=False)
    }
    groups: dict[tuple[bool, bool, float], dict[str, Any]] = {}
    named = {*exclude, *fixed_lr, *factors} - {"norm", "bias"}
    unused = set(named)
    for name, parameter in module.named_parameters():
        kind = "norm" if id(parameter) in norm else name.rpartition(".")[2]
        kinds = {kind} | {n for n in named if f"{name}.".startswith(f"{n}.")}
        unused -= kinds
        if not parameter.requires_grad:
            continue
        excluded, fixed = bool(kinds & set(exclude)), bool(kinds & set(fixed_lr))
        factor = math.prod(factors[n] for n in kinds & set(factors))
        rate = factor * (excluded_lr if excluded and excluded_lr is not None else lr)
        group = groups.setdefault(
            (excluded, fixed, factor),
            {
                "params": [],
                "lr": rate,
                "initial_lr": rate,
                "weight_decay": 0.0 if excluded else weight_decay,
                "adapt": not excluded,
                "fixed_lr": fixed,
            },
        )
        group["params"].append(parameter)
    if unused:
        raise ConfigError(
            f"optim: no parameter belongs to {', '.join(sorted(unused))}; write norm, bias or the "
            "dotted name of a submodule"
        )
    if not groups:
        raise ConfigError("optim: nothing to train, every parameter is frozen")
    return list(groups.values())


def _checked_factors(pairs: Sequence[tuple[str, float]]) -> dict[str, float]:
    try:
        factors = {str(name): float(factor) for name, factor in pairs}
        good = len(factors) == len(pairs) and all(0 < f < math.inf for f in factors.values())
    except (TypeError, ValueError):
        good = False
    if not good:
        raise ConfigError(
            f"optim.lr_factors={pairs}: give a list of [name, factor], each submodule once, with "
            "factors above 0"
        )
    return factors


def set_learning_rate(optimizer: Optimizer, factor: float) -> None:
    """Set every group's lr to `factor` times its peak, but for the groups with `fixed_lr`."""
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1.0 if group.get("fixed_lr") else factor)


def scaled_lr(base: float, batch: int, rule: str) -> float:
    """Peak learning rate for a total batch: linear base*B/256, sqrt base*sqrt(B), none base."""
    rules = {"linear": base * batch / 256, "sqrt": base * math.sqrt(batch), "none": base}
    if rule not in rules:
        raise ConfigError(f"optim.lr_rule={rule}: choose linear, sqrt or none")
    return rules[rule]


def build(
    module: nn.Module,
    *,
    name: str,
    lr: float,
    batch_size: int,
    steps_per_epoch: float,
    total_steps: int,
    lr_rule: str = "linear",
    momentum: float = 0.9,
    nesterov: bool = False,
    weight_decay: float = 0.0,
    exclude: Sequence[str] = (),
    excluded_lr: float | None = None,
    fixed_lr: Sequence[str] = (),
    lr_factors: Sequence[tuple[str, float]] = (),
    trust: float = 0.001,
    lr_in_buffer: bool = True,
    schedule: str = "cosine",
    warmup_epochs: float = 0.0,
    warmup_start: float = 0.0,
    final: float = 0.0,
    milestones: Sequence[float] = (),
    gamma: float = 0.1,
    per_epoch: bool = False,
) -> tuple[Optimizer, ParamScheduler]:
    """The optimizer of `module` and the schedule that multiplies its learning rates.

    Args:
        module: what is trained; frozen parameters are left out.
        name: sgd, lars or adam.
        lr: base learning rate; `excluded_lr` that of the excluded parameters, scaled alike.
        batch_size: the total over all processes.
        steps_per_epoch: may be fractional where epochs do not align with batches.
        total_steps: updates of the whole run.
        lr_rule: see `scaled_lr`.
        momentum: of sgd and lars; adam has torch's betas.
        nesterov: sgd only.
        exclude, fixed_lr, lr_factors: see `parameter_groups`.
        trust, lr_in_buffer: lars only, see `LARS`.
        schedule: cosine, multistep or constant (the latter two may warm up, too).
        warmup_epochs, warmup_start: linear warm-up from `warmup_start` times the peak.
        final: last value of the cosine as a share of the peak.
        milestones, gamma: epochs at which multistep multiplies by gamma.
        per_epoch: the cosine changes at the start of an epoch only.

    Raises:
        ConfigError: an unknown name, or values that do not fit one another.
    """
    peak = scaled_lr(lr, batch_size, lr_rule)
    groups = parameter_groups(
        module,
        lr=peak,
        weight_decay=weight_decay,
        exclude=exclude,
        excluded_lr=None if excluded_lr is None else scaled_lr(excluded_lr, batch_size, lr_rule),
        fixed_lr=fixed_lr,
        lr_factors=lr_factors,
    )
    if nesterov and name != "sgd":
        raise ConfigError(f"optim.nesterov: {name} has no Nesterov momentum; remove the key")
    optimizer: Optimizer
    if name == "sgd":
        optimizer = SGD(groups, lr=peak, momentum=momentum, nesterov=nesterov)
    elif name == "lars":
        optimizer = LARS(groups, lr=peak, momentum=momentum, trust=trust, lr_in_buffer=lr_in_buffer)
    elif name == "adam":
        optimizer = Adam(groups, lr=peak)
    else:
        raise ConfigError(f"optim.name={name}: choose sgd, lars or adam")

    warmup = int(warmup_epochs * steps_per_epoch + 1e-6)
    if schedule == "cosine":
        every = max(1, round(steps_per_epoch)) if per_epoch else 1
        return optimizer, warmup_cosine(total_steps, warmup, final, start=warmup_start, every=every)
    if schedule in ("multistep", "constant"):
        steps = [round(epoch * steps_per_epoch) for epoch in milestones]
        if bool(steps) != (schedule == "multistep"):
            raise ConfigError(
                f"optim.schedule={schedule} with milestones={list(milestones)}: multistep needs "
                "milestones, constant has none"
            )
        return optimizer, multistep(total_steps, steps, gamma, warmup, warmup_start)
    raise ConfigError(f"optim.schedule={schedule}: choose cosine, multistep or constant")
