"""A checkpoint and what must come of it."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tests.oracles.encoders import stir


@dataclass
class Case:
    """A checkpoint and what must come of it.

    Attributes:
        format: NAME of the format.
        content: what is saved.
        features: N x 3 x H x W -> N x D, the source's own, of images normalised its way.
        head: N x D -> N x E, the source's projection head; None where it must not be kept.
        classifier: N x D -> N x C.
        others: name of a further encoder -> its features.
        encoder: name of the encoder taken.
        expected: what the backbone's description holds, among others.
        mean, std: of the source's own input.
        note: part of what the user must be told.
        beside: number of tensors that are counted though they are not in the state dict.
    """

    format: str
    content: Any
    features: Callable[[Tensor], Tensor]
    head: Callable[[Tensor], Tensor] | None = None
    classifier: Callable[[Tensor], Tensor] | None = None
    others: dict[str, Callable[[Tensor], Tensor]] = field(default_factory=dict)
    encoder: str = ""
    expected: dict[str, Any] = field(default_factory=dict)
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    note: str = ""
    beside: int = 0

    def save(self, path: Path) -> None:
        """Write the file."""
        torch.save(self.content, path)

    @property
    def state(self) -> dict[str, Tensor]:
        """The state dict in `content`."""
        return self.content[self.container] if self.container else self.content

    @property
    def container(self) -> str | None:
        return next((key for key in ("state_dict", "model", "net") if key in self.content), None)

    def with_state(self, state: dict[str, Tensor]) -> Any:
        """`content` with another state dict."""
        return {**self.content, self.container: state} if self.container else state


def fresh(module: nn.Module, seed: int = 0) -> nn.Module:
    return stir(module, seed).eval()


def named(prefix: str, module: nn.Module) -> dict[str, Tensor]:
    return {f"{prefix}{name}": tensor for name, tensor in module.state_dict().items()}


def optimizer() -> dict[str, Any]:
    """What SGD with momentum saves."""
    return {
        "state": {0: {"momentum_buffer": torch.ones(3)}},
        "param_groups": [{"lr": 0.03, "momentum": 0.9, "nesterov": False, "params": [0]}],
    }


def training(state: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    return {
        "epoch": 200,
        "arch": "resnet50",
        "state_dict": state,
        "optimizer": optimizer(),
        **more,
    }


def lightning(state: dict[str, Tensor], **more: Any) -> dict[str, Any]:
    """What Lightning saves."""
    return {
        "epoch": 99,
        "global_step": 1000,
        "pytorch-lightning_version": "2.6.0",
        "state_dict": state,
        "loops": {"fit_loop": {"state_dict": {}}},
        "callbacks": {"ModelCheckpoint": {"best_model_path": ""}},
        "optimizer_states": [optimizer()],
        "lr_schedulers": [],
        **more,
    }
