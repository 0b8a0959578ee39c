"""Step counts, learning rates and curve of the released SimCLR v2 checkpoints."""

import pytest
import torch
from torch import nn

from tests.small_data import pictures, preprocess
from visrep.config import compose
from visrep.data.dataset import MemoryImages
from visrep.data.order import total_steps
from visrep.distill.classifier_training import measure, parameters
from visrep.engine import optim


def recipe(command: str, *overrides: str) -> dict:
    required = {"finetune": ["weights=x"], "distill": ["teacher=x", "student=y"]}[command]
    cfg, _ = compose(command, ["out=x", "data=imagenet", "data.root=x", *required, *overrides])
    return cfg


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc = nn.Linear(2, 2)
        self.body = nn.Conv2d(1, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(1)


def test_imagenet_finetune_is_the_papers() -> None:
    cfg = recipe("finetune")
    assert (cfg.batch_size, cfg.train_head) == (1024, True)
    assert (cfg.views.flip_p, list(cfg.views.scale)) == (0.5, [0.08, 1.0])
    assert "jitter_p" not in cfg.views
    optimizer, schedule = optim.build(
        Net(), batch_size=1024, steps_per_epoch=12811 / 1024, total_steps=751, **cfg.optim
    )
    assert isinstance(optimizer, optim.LARS)
    adapted, plain = sorted(optimizer.param_groups, key=lambda group: not group["adapt"])
    assert [p.shape for p in adapted["params"]] == [(1, 1, 1, 1)]
    assert len(plain["params"]) == 4  # classifier and norm: plain momentum at the full rate
    for group in (adapted, plain):
        assert group["lr"] == pytest.approx(0.16)
        assert group["weight_decay"] == 0
    curve = {0: 0.16, 1: 0.1599993, 375: 0.0801673, 750: 7.0e-7}
    for step, rate in curve.items():
        assert 0.16 * schedule(step / 751) == pytest.approx(rate, rel=1e-2, abs=1e-7)


def test_imagenet_distillation_is_the_papers() -> None:
    cfg = recipe("distill")
    steps = total_steps(1281167, epochs=cfg.epochs, batch_size=cfg.batch_size)
    optimizer, schedule = optim.build(
        Net(),
        batch_size=cfg.batch_size,
        steps_per_epoch=1281167 / cfg.batch_size,
        total_steps=steps,
        **cfg.optim,
    )
    assert optimizer.param_groups[0]["lr"] == pytest.approx(6.4)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0, 1e-4]
    assert schedule(0.0) == 0
    assert schedule(6255 / steps) == 1
    assert (cfg.temperature, cfg.alpha, cfg.tau_squared) == (1.0, 1.0, False)


def test_data_with_a_recipe_of_its_own_brings_it() -> None:
    scenes, _ = compose("finetune", ["data=scenes", "out=x", "weights=x"])
    assert scenes.views.flip_p == 0  # a mirrored 2 is no 2
    typed, _ = compose("finetune", ["data=scenes", "out=x", "weights=x", "epochs=7"])
    assert typed.epochs == 7


def test_measure_and_parameters() -> None:
    images, labels = pictures(30, seed=0)
    data = MemoryImages(name="x/test", images=images, labels=labels, classes=["b", "g", "r"])

    class Brightest(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.mean(dim=(2, 3)).flip(1)  # class 0 is blue

    assert measure(Brightest(), data, preprocess(), max_broken=0.0, device="cpu")["top1"] > 90
    assert parameters(Net()) == 6 + 1 + 2
