"""Checkpoints of lightly. LIGHTLY lists them: name -> function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.checkpoints.case import Case, fresh, lightning, named
from tests.oracles.checkpoints.resnets import (
    BASIC,
    BOTTLENECK,
    Cifar,
    SplitNorm,
    Torchvision,
    mlp,
)


def benchmark(*, second: str = "", encoder: str = "", other: str = "") -> Case:
    """A ResNet-50 under torchvision's names. second: prefix of a further encoder, `encoder` and
    `other`: what the two are; a student is DINO's, whose heads end in normalised prototypes."""
    nets = [fresh(Torchvision(kind=BOTTLENECK), seed) for seed in (0, 1)]
    head, classifier = fresh(mlp(128, 64, 16, norms="b-")), fresh(nn.Linear(128, 10))
    dino = other == "student"
    state = named("online_classifier.classification_head.", classifier)
    for prefix, net in zip(["backbone.", second][: 2 if second else 1], nets, strict=False):
        start = prefix.replace("backbone", "projection_head")
        state |= named(prefix, net) | named(f"{start}layers.", head)
        if dino:
            state[f"{start}last_layer.weight_g"] = torch.ones(20, 1)
            state[f"{start}last_layer.weight_v"] = torch.ones(20, 16)
            state["criterion.center"] = torch.zeros(1, 1, 20)
    if other == "target":
        state |= named("prediction_head.layers.", fresh(mlp(16, 64, 16, norms="b-")))
    return Case(
        format="lightly",
        content=lightning(state, hyper_parameters={"num_classes": 10}),
        features=nets[0],
        head=None if dino else head,
        classifier=classifier if dino else None,
        encoder=encoder,
        others={other: nets[1]} if other else {},
    )


def example(*, dino: bool = False) -> Case:
    """torchvision's children in a row, and a momentum encoder or DINO's two."""
    nets = [fresh(Torchvision(), seed) for seed in (0, 1)]
    head = fresh(mlp(32, 16, 8, norms="b-"))
    prefixes = ["teacher_backbone.", "student_backbone."]
    heads = ["teacher_head.", "student_head."]
    if not dino:
        prefixes = ["backbone.", "backbone_momentum."]
        heads = ["projection_head.", "projection_head_momentum."]
    state: dict[str, Tensor] = {}
    for net, prefix, start in zip(nets, prefixes, heads, strict=True):
        state |= named(prefix, nn.Sequential(*list(net.children())[:-1]))
        state |= named(f"{start}layers.", head)
        if dino:
            state[f"{start}last_layer.weight_g"] = torch.ones(20, 1)
    return Case(
        format="lightly",
        content=lightning(state),
        features=nets[0],
        head=None if dino else head,
        encoder="teacher" if dino else "online",
        others={"student" if dino else "momentum": nets[1]},
    )


def small(*, kind: Any = BASIC, norm: Any = nn.BatchNorm2d) -> Case:
    """The CIFAR-10 benchmark: children of lightly's ResNet, so that no ReLU follows the stem."""
    backbone = fresh(nn.Sequential(*list(Cifar(kind=kind, norm=norm).children())[:-1]))
    head = fresh(mlp(128 if kind is BOTTLENECK else 32, 16, 8))
    return Case(
        format="lightly",
        content=lightning(named("backbone.", backbone) | named("projection_head.layers.", head)),
        features=lambda x: backbone(x).mean((2, 3)),
        head=head,
        expected={"stem": "cifar", "stem_relu": False},
    )


class CliHead(nn.Module):
    """What the command line's models do with the pooled maps: 1x1 convolution, projection."""

    def __init__(self, conv: nn.Conv2d, projection: nn.Module) -> None:
        super().__init__()
        self.conv, self.projection = conv, projection

    def forward(self, x: Tensor) -> Tensor:
        return self.projection(self.conv(x[..., None, None]).flatten(1))


def cli(*, older: bool = False, moco: bool = False) -> Case:
    """The model zoo and the command line: batch norm, ResNet, 1x1 convolution, pooling; one gamma
    of the batch norm is negative."""
    norm = SplitNorm if moco else nn.BatchNorm2d
    rows, projection = [], fresh(mlp(12, 12, 8))
    for seed in (0, 1):
        children = list(Cifar(norm=norm).children())[:-1]
        row = fresh(nn.Sequential(nn.BatchNorm2d(3), *children, nn.Conv2d(32, 12, 1)), seed)
        with torch.no_grad():
            row[0].weight[1] *= -1
        rows.append(row)
    name, layers = ("features", "") if older else ("backbone", "layers.")
    state = named(f"model.{name}.", rows[0]) | named(f"model.projection_head.{layers}", projection)
    if moco:
        state |= named("model.momentum_backbone.", rows[1])
        state |= named("model.momentum_projection_head.layers.", projection)
        state["criterion.memory_bank.bank"] = torch.ones(8, 4)
    return Case(
        format="lightly",
        content={"state_dict": state} if older else lightning(state),
        features=lambda x: rows[0][:-1](x).mean((2, 3)),
        head=CliHead(rows[0][-1], projection),
        encoder="online" if moco else "",
        others={"momentum": lambda x: rows[1][:-1](x).mean((2, 3))} if moco else {},
        expected={"stem": "cifar", "stem_relu": False},
    )


LIGHTLY: dict[str, Callable[[], Case]] = {
    "lightly, SimCLR": benchmark,
    "lightly, BYOL": lambda: benchmark(
        second="teacher_backbone.", encoder="online", other="target"
    ),
    "lightly, MoCo": lambda: benchmark(second="key_backbone.", encoder="query", other="key"),
    "lightly, TiCo": lambda: benchmark(
        second="backbone_momentum.", encoder="online", other="momentum"
    ),
    "lightly, DINO": lambda: benchmark(
        second="student_backbone.", encoder="teacher", other="student"
    ),
    "lightly, example": example,
    "lightly, example of DINO": lambda: example(dino=True),
    "lightly, CIFAR-10": small,
    "lightly, CIFAR-10, bottlenecks": lambda: small(kind=BOTTLENECK),
    "lightly, CIFAR-10, split batch norm": lambda: small(norm=SplitNorm),
    "lightly, command line": cli,
    "lightly, before 1.0.6": lambda: cli(older=True),
    "lightly, command line's MoCo": lambda: cli(moco=True),
}
