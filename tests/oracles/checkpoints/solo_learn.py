"""Checkpoints of solo-learn. SOLO_LEARN lists them: name -> function."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

from tests.oracles.checkpoints.case import Case, fresh, lightning, named
from tests.oracles.checkpoints.resnets import Torchvision, mlp

CIFAR10 = {"mean": (0.4914, 0.4822, 0.4465), "std": (0.2470, 0.2435, 0.2616)}


def pretraining(
    *,
    momentum: bool = False,
    dino: bool = False,
    legacy: bool = False,
    cifar: bool = False,
    whitening: bool = False,
) -> Case:
    """A ResNet-18 with a projector, or DINO's head, or VIbCReg's (`whitening`)."""
    stem = {"stem": "cifar", "pad": 2} if cifar else {}
    nets = [fresh(Torchvision(**stem), seed) for seed in (0, 1)]
    projector = fresh(mlp(32, 64, 64, 16, norms="bb-", bias=True))
    classifier, name = fresh(nn.Linear(32, 10)), "encoder" if legacy else "backbone"
    state: dict[str, Tensor] = {}
    for i, start in enumerate(["", "momentum_"][: 1 + momentum]):
        state |= named(f"{start}{name}.", nets[i]) | named(f"{start}classifier.", classifier)
        state |= named(f"{start}head.mlp." if dino else f"{start}projector.", projector)
        if dino:
            state[f"{start}head.last_layer.weight_g"] = torch.ones(20, 1)
            state[f"{start}head.last_layer.weight_v"] = torch.ones(20, 16)
            state["dino_loss_func.center"] = torch.zeros(1, 20)
    if momentum and not dino:
        state |= named("predictor.", fresh(mlp(16, 64, 16, norms="b-", bias=True)))
        state |= {"queue": torch.ones(8, 16), "queue_ptr": torch.zeros(1, dtype=torch.int64)}
    if whitening:
        state |= {
            f"projector.7.{key}": torch.ones(4, 4, 1) for key in ("running_mean", "running_wm")
        }
    headless = dino or whitening
    first, second = ("student", "teacher") if dino else ("online", "momentum")
    return Case(
        format="solo-learn",
        content=lightning(state),
        features=nets[0],
        head=None if headless else projector,
        classifier=classifier if headless else None,
        encoder=first if momentum else "",
        others={second: nets[1]} if momentum else {},
        expected={"stem": "cifar_pad2" if cifar else "imagenet"},
        note="cifar10's mean and std are assumed"
        if cifar
        else "imagenet's mean and std are assumed",
        **(CIFAR10 if cifar else {}),
    )


def linear() -> Case:
    net, classifier = fresh(Torchvision()), fresh(nn.Linear(32, 10))
    return Case(
        format="solo-learn",
        content=lightning(named("backbone.", net) | named("classifier.", classifier)),
        features=net,
        classifier=classifier,
        note="imagenet's mean and std are assumed",
    )


SOLO_LEARN: dict[str, Callable[[], Case]] = {
    "solo-learn": pretraining,
    "solo-learn, momentum": lambda: pretraining(momentum=True),
    "solo-learn, momentum, legacy": lambda: pretraining(momentum=True, legacy=True),
    "solo-learn, CIFAR": lambda: pretraining(momentum=True, cifar=True),
    "solo-learn, DINO": lambda: pretraining(momentum=True, dino=True),
    "solo-learn, VIbCReg with IterNorm": lambda: pretraining(whitening=True),
    "solo-learn, linear evaluation": linear,
}
