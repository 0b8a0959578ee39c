"""Checkpoints of SimCLR's ports to PyTorch. SIMCLR lists them: name -> function."""

from collections.abc import Callable
from typing import Any

from torch import nn

from tests.oracles.checkpoints.case import Case, fresh, lightning, named, training
from tests.oracles.checkpoints.resnets import BASIC, BOTTLENECK, Torchvision, mlp

RAW = {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0)}


def sthalles(kind: Any = BASIC) -> Case:
    net = fresh(Torchvision(kind=kind))
    head = fresh(mlp(net.out_dim, net.out_dim, 16))
    state = named("backbone.", net) | named("backbone.fc.", head)
    content = training(state, arch="resnet18")
    note = "STL-10's 96 px are assumed"
    return Case(
        format="sthalles/SimCLR", content=content, features=net, head=head, note=note, **RAW
    )


def sthalles_before_2021() -> Case:
    """A Sequential of the children of the net, and two linear layers."""
    net = fresh(Torchvision())
    children = nn.Sequential(*list(net.children())[:-1])
    first, second = (fresh(nn.Linear(32, outs)) for outs in (32, 16))
    state = named("features.", children) | named("l1.", first) | named("l2.", second)
    head = nn.Sequential(first, nn.ReLU(), second)
    note = "images are not normalised"
    return Case(format="sthalles/SimCLR", content=state, features=net, head=head, note=note, **RAW)


def spijkervet(*, by_lightning: bool = False, kind: Any = BOTTLENECK) -> Case:
    net = fresh(Torchvision(kind=kind))
    layers = [nn.Linear(net.out_dim, outs, bias=False) for outs in (net.out_dim, 16)]
    head = fresh(nn.Sequential(layers[0], nn.ReLU(), layers[1]))
    start = "model." if by_lightning else ""
    state = named(f"{start}encoder.", net) | named(f"{start}projector.", head)
    content = lightning(state) if by_lightning else state
    note = "224 px are assumed"
    return Case(
        format="Spijkervet/SimCLR", content=content, features=net, head=head, note=note, **RAW
    )


def bolts(data: str | None, **stem: Any) -> Case:
    """With `data`, a checkpoint whose hyper_parameters name it; else the state dict alone."""
    net = fresh(Torchvision(**stem))
    head = nn.Sequential(
        nn.Linear(32, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 16, bias=False)
    )
    state = named("encoder.", net) | named("projection.model.", fresh(head))
    state |= named("encoder.fc.", nn.Linear(32, 1000))
    small = bool(stem)
    settings = {"dataset": data, "first_conv": not small, "maxpool1": not small, "gpus": 1}
    return Case(
        format="SimCLR of lightning-bolts",
        content=lightning(state, hyper_parameters=settings) if data else state,
        features=net,
        head=head,
        expected={"stem": "cifar" if small else "imagenet"},
        note="" if data else "whether a max-pool follows its first convolution",
        **(BOLTS_CIFAR if data == "cifar10" else {}),
    )


BOLTS_CIFAR = {
    "mean": tuple(value / 255 for value in (125.3, 123.0, 113.9)),
    "std": tuple(value / 255 for value in (63.0, 62.1, 66.7)),
}


def bolts_stl10() -> Any:
    """What its STL-10 recipe saves: a 7x7 convolution without a max-pool."""
    content = bolts("stl10").content
    return {**content, "hyper_parameters": {"dataset": "stl10", "maxpool1": False}}


SIMCLR: dict[str, Callable[[], Case]] = {
    "sthalles/SimCLR": sthalles,
    "sthalles/SimCLR, bottlenecks": lambda: sthalles(BOTTLENECK),
    "sthalles/SimCLR before 2021": sthalles_before_2021,
    "Spijkervet/SimCLR": spijkervet,
    "Spijkervet/SimCLR, Lightning": lambda: spijkervet(by_lightning=True),
    "lightning-bolts SimCLR": lambda: bolts("imagenet"),
    "lightning-bolts SimCLR, CIFAR-10": lambda: bolts("cifar10", stem="cifar"),
    "lightning-bolts SimCLR, state dict": lambda: bolts(None),
}
