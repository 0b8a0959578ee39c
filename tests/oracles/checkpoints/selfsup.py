"""Checkpoints of the PyTorch projects, with their names, shapes' rules and containers.

Every function returns a `Case`. CASES lists them all: name -> function.
"""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.checkpoints.case import Case, fresh, named, optimizer, training
from tests.oracles.checkpoints.lightly import LIGHTLY
from tests.oracles.checkpoints.lightly_train import LIGHTLY_TRAIN
from tests.oracles.checkpoints.resnets import BASIC, BOTTLENECK, Cifar, Torchvision, mlp
from tests.oracles.checkpoints.simclr import SIMCLR
from tests.oracles.checkpoints.solo_learn import SOLO_LEARN


def moco(head: nn.Module, kind: Any = None) -> Case:
    query, key = (fresh(Torchvision(**({"kind": kind} if kind else {})), seed) for seed in (0, 1))
    state: dict[str, Tensor] = {
        "module.queue": torch.ones(8, 16),
        "module.queue_ptr": torch.zeros(1, dtype=torch.int64),
    }
    for prefix, net in (("module.encoder_q.", query), ("module.encoder_k.", key)):
        state |= named(prefix, net) | named(f"{prefix}fc.", head)
    return Case(
        format="MoCo",
        content=training(state),
        features=query,
        head=head,
        others={"key": key},
        encoder="query",
    )


def moco_v1() -> Case:
    return moco(fresh(nn.Linear(32, 8)))


def moco_v2() -> Case:
    return moco(fresh(mlp(128, 128, 8)), BOTTLENECK)


def linear_evaluation() -> Case:
    """MoCo's and SimSiam's: torchvision's names with a trained `fc`."""
    net, fc = fresh(Torchvision(kind=BOTTLENECK)), fresh(nn.Linear(128, 10))
    state = named("module.", net) | named("module.fc.", fc)
    return Case(
        format="torchvision state dict",
        content=training(state, best_acc1=torch.tensor(67.5)),
        features=net,
        classifier=fc,
    )


def simsiam() -> Case:
    net = fresh(Torchvision(kind=BOTTLENECK))
    head = mlp(128, 128, 128, 16, norms="bbp")
    head[6] = nn.Linear(128, 16)  # its bias is there, but frozen
    fresh(head)
    state = named("module.encoder.", net) | named("module.encoder.fc.", head)
    state |= named("module.predictor.", fresh(mlp(16, 4, 16, norms="b-")))
    return Case(format="SimSiam", content=training(state), features=net, head=head)


def swav(
    *,
    widen: int = 1,
    bare: bool = True,
    prototypes: tuple[int, ...] = (30,),
    hidden: int | None = 16,
) -> Case:
    net = fresh(Torchvision(kind=BOTTLENECK, widen=widen))
    width = 128 * widen
    head = fresh(mlp(width, hidden, 8, norms="b-", bias=True) if hidden else nn.Linear(width, 8))
    state = named("module.", net) | named("module.projection_head.", head)
    if len(prototypes) == 1:
        state["module.prototypes.weight"] = torch.ones(prototypes[0], 8)
    else:
        for i, count in enumerate(prototypes):
            state[f"module.prototypes.prototypes{i}.weight"] = torch.ones(count, 8)
    content = state if bare else {"epoch": 5, "state_dict": state, "optimizer": optimizer()}
    return Case(
        format="SwAV",
        content=content,
        features=net,
        head=head,
        expected={"width": widen / 16},
        std=(0.228, 0.224, 0.225),
    )


def swav_finetuned() -> Case:
    net, fc = fresh(Torchvision(kind=BOTTLENECK)), fresh(nn.Linear(128, 10))
    state = named("module.", net) | named("module.projection_head.", fc)
    content = {"epoch": 20, "state_dict": state, "optimizer": optimizer(), "best_acc": (50.0, 70.0)}
    std = (0.228, 0.224, 0.225)
    return Case(format="SwAV", content=content, features=net, classifier=fc, std=std)


def barlow_twins() -> Case:
    net = fresh(Torchvision(kind=BOTTLENECK))
    head = fresh(mlp(128, 64, 64, 64, norms="bb-", bias=False))
    norm = fresh(nn.BatchNorm1d(64, affine=False))
    state = named("module.backbone.", net) | named("module.projector.", head)
    state |= named("module.bn.", norm)
    content = {"epoch": 1000, "model": state, "optimizer": optimizer()}
    return Case(format="Barlow Twins", content=content, features=net, head=head)


def barlow_twins_hub() -> Case:
    net = fresh(Torchvision(kind=BOTTLENECK))
    return Case(format="torchvision state dict", content=net.state_dict(), features=net)


class NCEAverage(nn.Module):
    """The memory of lemniscate: a whole module, which is pickled with its class."""

    def __init__(self) -> None:
        super().__init__()
        self.K = 4096
        self.register_buffer("params", torch.tensor([4096, 0.07, -1.0, 0.5]))
        self.register_buffer("memory", torch.ones(50, 8))


def npid() -> Case:
    net, head = fresh(Torchvision()), fresh(nn.Linear(32, 8))
    state = named("module.", net) | named("module.fc.", head)
    content = training(state, lemniscate=NCEAverage(), best_prec1=torch.tensor(46.8))
    return Case(format="NPID", content=content, features=net, head=head, beside=2)


def npid_cifar(kind: Any = BASIC) -> Case:
    net = fresh(Cifar(kind=kind, outs=8))
    state = named("module.", net)
    return Case(
        format="NPID",
        content={"net": state, "lemniscate": NCEAverage(), "acc": 80.1, "epoch": 199},
        features=net,
        head=net.linear,
        beside=2,
        expected={"stem": "cifar"},
        mean=(0.4914, 0.4822, 0.4465),
        std=(0.2023, 0.1994, 0.2010),
    )


CASES: dict[str, Callable[[], Case]] = {
    "MoCo v1": moco_v1,
    "MoCo v2": moco_v2,
    "linear evaluation of MoCo and SimSiam": linear_evaluation,
    "SimSiam": simsiam,
    **{f"SwAV w{widen}": lambda w=widen: swav(widen=w) for widen in (1, 2, 4, 5)},
    "SwAV, training": lambda: swav(bare=False),
    "DeepCluster v2": lambda: swav(bare=False, prototypes=(30, 30, 30)),
    "SwAV, linear head": lambda: swav(hidden=None),
    "SwAV, finetuned": swav_finetuned,
    "Barlow Twins": barlow_twins,
    "Barlow Twins, hub": barlow_twins_hub,
    "NPID": npid,
    "NPID, CIFAR-10": npid_cifar,
    "NPID, CIFAR-10, bottlenecks": lambda: npid_cifar(BOTTLENECK),
    **LIGHTLY,
    **LIGHTLY_TRAIN,
    **SIMCLR,
    **SOLO_LEARN,
}
