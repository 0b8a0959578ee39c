"""Checkpoints of lightly-train. LIGHTLY_TRAIN lists them: name -> function."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.checkpoints.case import Case, fresh, lightning, named
from tests.oracles.checkpoints.resnets import Torchvision, mlp

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class OnFeatures(nn.Module):
    """A 1x1 convolution of the maps, as it is on their mean, and what follows."""

    def __init__(self, conv: nn.Conv2d, then: nn.Module) -> None:
        super().__init__()
        self.conv, self.then = conv, then

    def forward(self, x: Tensor) -> Tensor:
        return self.then(self.conv(x[..., None, None]).flatten(1))


def exported(*, part: str, embed: bool = False, library: str = "_features") -> Case:
    """part: the prefix of the wrapped model in what is exported."""
    net, conv = fresh(Torchvision()), fresh(nn.Conv2d(32, 8, 1))
    state = named(f"{part}{library}.", net)
    if embed:
        state |= named("embed_head.", conv)
    if library == "_model":
        state |= named(f"{part}_model.fc.", nn.Linear(32, 10))
    head = OnFeatures(conv, nn.Identity()) if embed else None
    return Case(format="lightly-train", content=state, features=net, head=head)


def checkpoint(state: dict[str, Tensor], module: nn.Module, **case: Any) -> Case:
    """With whole modules beside the state dict, as the callback stores them."""
    models = {"model": module, "wrapped_model": module, "embedding_model": module}
    info = {
        "version": "0.14.0",
        "date": "2026-01-01T00:00:00+00:00",
        "models": models,
        "normalize_args": {"mean": list(MEAN), "std": list(STD)},
        "license_info": None,
    }
    return Case(
        format="lightly-train",
        content=lightning(state, lightly_train=info),
        mean=MEAN,
        std=STD,
        **case,
    )


def simclr(*, embed: bool = False) -> Case:
    net, conv = fresh(Torchvision()), fresh(nn.Conv2d(32, 8, 1))
    head = fresh(mlp(8 if embed else 32, 16, 8, norms="bb"))
    state = named("embedding_model.wrapped_model._features.", net)
    state |= named("projection_head.layers.", head)
    if embed:
        state |= named("embedding_model.embed_head.", conv)
    kept = OnFeatures(conv, head) if embed else head
    return checkpoint(state, net, features=net, head=kept)


def dino() -> Case:
    nets = {name: fresh(Torchvision(), i) for i, name in enumerate(("teacher", "student"))}
    state: dict[str, Tensor] = {"criterion.center": torch.zeros(1, 20)}
    for name, net in nets.items():
        state |= named(f"{name}_embedding_model.wrapped_model._features.", net)
        state |= named(f"{name}_projection_head.layers.", fresh(mlp(32, 16, 16, 8)))
        state[f"{name}_projection_head.last_layer.weight_g"] = torch.ones(20, 1)
    return checkpoint(
        state,
        nets["teacher"],
        features=nets["teacher"],
        encoder="teacher",
        others={"student": nets["student"]},
    )


def distillation(*, with_teacher: bool = False) -> Case:
    net = fresh(Torchvision())
    state = named("student_embedding_model.wrapped_model._features.", net)
    state |= named("student_projection_head.", fresh(nn.Linear(32, 16)))
    state["teacher_queue"] = torch.zeros(8, 16)
    if with_teacher:
        teacher = fresh(Torchvision(), 1)
        state |= named("teacher_embedding_model.wrapped_model._features.", teacher)
    return checkpoint(state, net, features=net, encoder="student")


def densecl() -> Case:
    nets = {name: fresh(Torchvision(), i) for i, name in enumerate(("query", "key"))}
    head = fresh(mlp(32, 16, 8))
    state: dict[str, Tensor] = {"memory_bank.bank": torch.zeros(8, 8)}
    for name, net in nets.items():
        state |= named(f"{name}_encoder.embedding_model.wrapped_model._features.", net)
        for kind in ("local", "global"):
            state |= named(f"{name}_encoder.{kind}_projection_head.layers.", head)
    return checkpoint(
        state,
        nets["query"],
        features=nets["query"],
        head=head,
        encoder="query",
        others={"key": nets["key"]},
    )


LIGHTLY_TRAIN: dict[str, Callable[[], Case]] = {
    "lightly-train, wrapped model": lambda: exported(part=""),
    "lightly-train, wrapped model of timm": lambda: exported(part="", library="_model"),
    "lightly-train, embedding model": lambda: exported(part="wrapped_model.", embed=True),
    "lightly-train, embedding model without head": lambda: exported(part="wrapped_model."),
    "lightly-train, SimCLR": simclr,
    "lightly-train, SimCLR on an embedding": lambda: simclr(embed=True),
    "lightly-train, DINO": dino,
    "lightly-train, distillation": distillation,
    "lightly-train, distillation with its teacher": lambda: distillation(with_teacher=True),
    "lightly-train, DenseCL": densecl,
}
