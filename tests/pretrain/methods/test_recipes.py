"""Every `configs/method/*.yaml` composes, builds, trains two steps, and says what is published."""

import functools
import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.pretrain.methods.steps import Now, batch_of, tiny_encoder
from visrep.config import compose, instantiate
from visrep.engine import optim, snapshot
from visrep.engine.hooks import Hook
from visrep.engine.trainer import Trainer
from visrep.groups import choices
from visrep.nn.embeddings import effective_rank, spread
from visrep.pretrain.method import require_contract

# Widths and lengths that would only cost time here.
SHRUNK = {
    "barlow_twins": ["method.out_dim=32"],
    "barlow_twins_small": ["method.out_dim=32"],
    "byol": ["method.hidden_dim=64"],
    "exemplar": ["method.classes=64"],
    "exemplar_small": ["method.classes=64"],
    "moco_v1": ["method.queue_size=1024"],
    "moco_v2": ["method.queue_size=1024"],
    "npid": ["method.images=64", "method.negatives=32"],
    "npid_small": ["method.images=64"],
    "npid_scenes": ["method.images=64"],
    "simsiam": ["method.out_dim=128", "method.predictor_dim=32"],
    "simsiam_small": ["method.out_dim=128", "method.predictor_dim=32"],
}


@functools.cache
def composed(name: str, *overrides: str) -> object:
    cfg, _ = compose("pretrain", [f"method={name}", "out=unused", *overrides])
    return cfg


def optimizer_of(cfg: object, task: torch.nn.Module, steps_per_epoch: int = 10) -> tuple:
    return optim.build(
        task,
        **cfg.optim,
        batch_size=cfg.batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=steps_per_epoch * cfg.epochs,
    )


class Run:
    """A recipe on the tiny net, step by step."""

    def __init__(self, name: str, *overrides: str) -> None:
        self.cfg = composed(name, *SHRUNK.get(name, []), *overrides)
        views = instantiate(self.cfg.views).views
        # The sizes of the crops differ where the recipe's do; small ones, for the tiny net.
        self.sizes = tuple(16 if view.size == views[0].size else 8 for view in views)
        self.task = instantiate(self.cfg.method, encoder=tiny_encoder()).train()
        self.optimizer, self.schedule = optimizer_of(self.cfg, self.task)

    def step(self, step: int) -> dict[str, torch.Tensor]:
        # Past the warm-up, whose first rate is 0.
        optim.set_learning_rate(self.optimizer, self.schedule(0.3 + step / 1000))
        batch = batch_of(step, sizes=self.sizes)
        batch["views"] = [view.float() for view in batch["views"]]
        out = self.task(batch)
        self.optimizer.zero_grad()
        out["loss"].backward()
        self.task.before_update(Now(step, 100))
        self.optimizer.step()
        self.task.after_update(Now(step + 1, 100))
        return out


@pytest.mark.parametrize("name", choices("method"))
def test_a_recipe_builds_and_trains_two_steps(name: str) -> None:
    run = Run(name)
    assert run.cfg.name == name
    task = run.task
    before = {key: p.clone() for key, p in task.encoder.named_parameters()}
    for step in range(2):
        out = run.step(step)
        assert out["loss"].isfinite() and out["loss"].dim() == 0
        assert not any(value.requires_grad for key, value in out.items() if key != "loss")
    embeddings = out.pop("embeddings")
    assert 0 < spread(embeddings) <= 1.01 and 1 < effective_rank(embeddings) <= len(embeddings)
    assert all(not torch.equal(p, before[key]) for key, p in task.encoder.named_parameters())
    levels = task.reference_levels(run.cfg.batch_size)
    assert all(key.partition("_chance")[0] in out for key in levels.others if "chance" in key)
    assert levels.loss_collapsed != levels.loss_apart and levels.knob.count("optim.lr") == 1
    assert all(value.dim() == 0 for value in task.measures().values())
    assert all(value.dim() == 0 for value in out.values())
    require_contract(task, batch_size=run.cfg.batch_size)
    assert task.head.spec["layers"]


# Small memories, so that they turn over within a few steps.
RESUMED = {
    "simclr_v2": ["method.memory_size=16"],
    "moco_v1": ["method.queue_size=16"],
    "moco_v2": ["method.queue_size=16"],
    "moco_small": ["method.queue_size=16"],
    "moco_v1_small": ["method.queue_size=16"],
    "swav": ["method.queue_size=16", "method.queue_start=1", "method.freeze_steps=2"],
    "byol_small": ["method.final_momentum=1.0"],
}


class Stop(Hook):
    """Ends a run in the middle, as a kill would."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            raise KeyboardInterrupt


class Batches:
    """The batches of `steps.batch_of`, in float32."""

    def __init__(self, sizes: tuple[int, ...]) -> None:
        self.sizes = sizes

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        for step in itertools.count(start_step):
            batch = batch_of(step, sizes=self.sizes)
            views = [view.float() for view in batch["views"]]
            yield {**batch, "views": views, "size": len(batch["index"])}


def fit(name: str, out: Path, *hooks: Hook) -> dict[str, Any]:
    """Six steps of the engine's loop, past the warm-up; the final snapshot."""
    run = Run(name, *RESUMED.get(name, []))
    Trainer(
        task=run.task,
        optimizer=run.optimizer,
        schedule=lambda where: run.schedule(0.3 + where / 100),
        batches=Batches(run.sizes),
        total_steps=6,
        out=out,
        precision="fp32",
        snapshot_every=3,
        hooks=hooks,
    ).fit()
    step, state = snapshot.latest(out / "snapshots")
    assert step == 6
    return state


@pytest.mark.parametrize("name", choices("method"))
def test_a_resumed_run_is_bit_exact(name: str, tmp_path: Path) -> None:
    """Queue, bank, prototypes, memory, moving averages and their momentum, through the file."""
    torch.manual_seed(5)
    whole = fit(name, tmp_path / "whole")
    torch.manual_seed(5)
    with pytest.raises(KeyboardInterrupt):
        fit(name, tmp_path / "cut", Stop(5))
    assert snapshot.latest(tmp_path / "cut" / "snapshots")[0] == 3
    torch.manual_seed(99)  # nothing may depend on what a new process would draw
    resumed = fit(name, tmp_path / "cut")
    for key, value in whole["task"].items():
        assert torch.equal(resumed["task"][key], value), key
    one, other = (state["optimizer"]["state"] for state in (whole, resumed))
    assert one.keys() == other.keys() and one
    for key, buffers in one.items():
        for kind, value in buffers.items():
            assert torch.equal(torch.as_tensor(other[key][kind]), torch.as_tensor(value)), kind


# Peak rate, weight decay, epochs, batch, temperature, as published.
PUBLISHED = {
    "simclr": (4.8, 1e-6, 1000, 4096, 0.1),
    "simclr_v2": (6.4, 1e-4, 800, 4096, 0.1),
    "moco_v1": (0.03, 1e-4, 200, 256, 0.07),
    "moco_v2": (0.03, 1e-4, 200, 256, 0.2),
    "moco_small": (0.06, 5e-4, 200, 512, 0.1),
    "swav": (4.8, 1e-6, 800, 4096, 0.1),
    "byol": (3.2, 1.5e-6, 1000, 4096, None),
    "simsiam": (0.1, 1e-4, 100, 512, None),
    "simsiam_small": (0.06, 5e-4, 800, 512, None),
    "barlow_twins": (1.6, 1e-6, 1000, 2048, None),
    "npid": (0.03, 1e-4, 200, 256, 0.07),
    "npid_small": (0.03, 5e-4, 200, 128, 0.1),
    "simclr_small": (0.24, 5e-4, 200, 512, 0.5),
    "simclr_v2_small": (2.0, 1e-4, 1000, 512, 0.5),
    "moco_v1_small": (0.06, 5e-4, 200, 512, 0.1),
    "barlow_twins_small": (0.24, 5e-4, 200, 512, None),
    "exemplar": (0.01, 5e-4, 60, 128, None),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_recipe_has_the_published_values(name: str) -> None:
    rate, decay, epochs, batch, temperature = PUBLISHED[name]
    cfg = composed(name)
    optimizer, _ = optimizer_of(cfg, tiny_predictor())
    assert optimizer.param_groups[0]["lr"] == pytest.approx(rate)
    assert optimizer.param_groups[0]["weight_decay"] == decay
    assert (cfg.epochs, cfg.batch_size) == (epochs, batch)
    assert cfg.method.get("temperature") == temperature
    assert all(group["momentum"] == 0.9 for group in optimizer.param_groups)


def tiny_predictor() -> torch.nn.Module:
    """Some weights, with the one name that a recipe mentions."""
    task = torch.nn.Module()
    task.encoder, task.predictor = tiny_encoder(), torch.nn.Linear(2, 2)
    return task


def values(name: str, *epochs: float) -> list[float]:
    """The schedule's values at the start of `epochs`."""
    cfg = composed(name)
    _, schedule = optimizer_of(cfg, tiny_predictor(), steps_per_epoch=100)
    return [schedule(epoch / cfg.epochs) for epoch in epochs]


def test_the_published_schedules() -> None:
    for name in ("simclr", "byol", "barlow_twins"):
        assert values(name, 0, 5, 10) == pytest.approx([0, 0.5, 1])
    assert values("simclr_v2", 0, 20, 40, 420) == pytest.approx([0, 0.5, 1, 0.5])
    assert values("swav", 0, 10, 799.99) == pytest.approx([0.3 / 4.8, 1, 0.001], rel=1e-3)
    assert values("barlow_twins", 999.99) == pytest.approx([0.001], rel=1e-3)
    for name in ("moco_v1", "npid", "npid_small"):
        assert values(name, 0, 119.99, 120, 160) == pytest.approx([1, 1, 0.1, 0.01])
    for name in ("moco_v2", "moco_small"):
        assert values(name, 0, 0.5, 100, 100.5) == pytest.approx([1, 1, 0.5, 0.5])
    assert values("simsiam", 0, 50, 50.5) == pytest.approx([1, 0.5, 0.5])


def linear(out: int, *, bias: bool, norm: str = "none", relu: bool = False) -> dict[str, object]:
    return {"out": out, "bias": bias, "norm": norm, "relu": relu}


@dataclass(frozen=True)
class Built:
    """What the objects of an ImageNet recipe must be, at full size.

    Attributes:
        batchnorm: whose statistics.
        head, predictor: layers.
        rates: peak rate of weights; of norms and biases.
        decays: the same two.
        lars: None for SGD; else whether the rate enters the momentum, and whether norms and biases
            are scaled, too.
        zero_init: the last gamma of a block starts at 0.
    """

    batchnorm: str
    head: list[dict[str, object]]
    rates: tuple[float, float]
    decays: tuple[float, float]
    lars: tuple[bool, bool] | None = None
    zero_init: bool = False
    predictor: list[dict[str, object]] | None = None
    coupled: bool = False


LINEAR = [linear(128, bias=True)]
INNER = linear(2048, bias=False, norm="affine", relu=True)
WIDE = linear(8192, bias=False, norm="affine", relu=True)
BYOL = [linear(4096, bias=True, norm="affine", relu=True), linear(256, bias=False)]
LAST = linear(128, bias=False, norm="scale")

BUILT = {
    "npid": Built("local", LINEAR, (0.03, 0.03), (1e-4, 1e-4)),
    "moco_v1": Built("shuffle", LINEAR, (0.03, 0.03), (1e-4, 1e-4)),
    "moco_v2": Built(
        "shuffle", [linear(2048, bias=True, relu=True), *LINEAR], (0.03, 0.03), (1e-4, 1e-4)
    ),
    "simclr": Built(
        "sync", [INNER, LAST], (4.8, 4.8), (1e-6, 0), (True, False), zero_init=True, coupled=True
    ),
    "simclr_v2": Built(
        "sync", [INNER, INNER, LAST], (6.4, 6.4), (1e-4, 0), (True, False), zero_init=True,
        coupled=True,
    ),
    "swav": Built(
        "sync",
        [linear(2048, bias=True, norm="affine", relu=True), *LINEAR],
        (4.8, 4.8), (1e-6, 1e-6), (False, True), coupled=True,
    ),
    "byol": Built("sync", BYOL, (3.2, 3.2), (1.5e-6, 0), (False, False), predictor=BYOL),
    "simsiam": Built(
        "sync",
        [INNER, INNER, linear(2048, bias=False, norm="plain")],
        (0.1, 0.1), (1e-4, 1e-4), zero_init=True,
        predictor=[
            linear(512, bias=False, norm="affine", relu=True),
            linear(2048, bias=True),
        ],
    ),
    "barlow_twins": Built(
        "sync",
        [WIDE, WIDE, linear(8192, bias=False)],
        # 0.0048 * 2048 / 256 for gradients that are smaller by the number of processes, 16.
        (1.6, 0.0048 * 8 / 16), (1e-6, 0), (False, False), zero_init=True, coupled=True,
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", BUILT)
def test_the_objects_of_a_recipe_are_the_papers(name: str) -> None:
    want, cfg = BUILT[name], composed(name)
    with torch.device("meta"):
        counts = {"images": 1281167} if name == "npid" else {}
        task = instantiate(cfg.method, encoder=instantiate(cfg.backbone), **counts)
    assert (task.batchnorm, task.coupled) == (want.batchnorm, want.coupled)
    assert task.encoder.spec["depth"] == 50 and task.encoder.out_dim == 2048
    assert task.head.spec["layers"] == want.head
    if want.predictor is not None:
        assert task.predictor.spec["layers"] == want.predictor
    optimizer, _ = optimizer_of(cfg, task)
    assert isinstance(optimizer, optim.LARS if want.lars else torch.optim.SGD)
    weight = task.encoder.layer1[0].conv1.weight
    last = task.head.layers[-1].linear.bias
    for kind, parameters in (
        (0, [weight, task.head.layers[0].linear.weight]),
        (1, [task.encoder.bn1.weight, task.encoder.bn1.bias, *([] if last is None else [last])]),
    ):
        for parameter in parameters:
            group = group_of(optimizer, parameter)
            assert group["lr"] == pytest.approx(want.rates[kind])
            assert group["weight_decay"] == want.decays[kind]
            assert group["momentum"] == 0.9
            if want.lars is not None:
                assert group["adapt"] is (kind == 0 or want.lars[1])
                assert group["lr_in_buffer"] is want.lars[0] and group["trust"] == 0.001
            else:
                assert not group["nesterov"] and group["dampening"] == 0
    # Every parameter that learns is in a group, and nothing else.
    grouped = [p for group in optimizer.param_groups for p in group["params"]]
    assert {id(p) for p in grouped} == {id(p) for p in task.parameters() if p.requires_grad}


def group_of(optimizer: torch.optim.Optimizer, parameter: torch.Tensor) -> dict:
    (group,) = [g for g in optimizer.param_groups if any(p is parameter for p in g["params"])]
    return group


@pytest.mark.parametrize("name", BUILT)
def test_how_the_blocks_of_a_recipe_start(name: str) -> None:
    encoder = instantiate(composed(name).backbone, depth=18, width=1 / 16)
    gammas = [
        block.last_norm.weight for layer in (encoder.layer1, encoder.layer4) for block in layer
    ]
    for gamma in gammas:
        assert torch.equal(gamma, torch.full_like(gamma, float(not BUILT[name].zero_init)))


def test_only_simsiams_predictor_keeps_its_rate() -> None:
    for name in BUILT:
        cfg = composed(name)
        with torch.device("meta"):
            counts = {"images": 10} if name == "npid" else {}
            task = instantiate(cfg.method, encoder=instantiate(cfg.backbone), **counts)
        optimizer, schedule = optimizer_of(cfg, task)
        optim.set_learning_rate(optimizer, schedule(1 - 1e-9))
        fixed = {id(p) for g in optimizer.param_groups if g["lr"] > 0.5 * g["initial_lr"]
                 for p in g["params"]}  # fmt: skip
        want = task.predictor.parameters() if name == "simsiam" else []
        assert fixed == {id(p) for p in want}, name


def test_the_constants_of_the_losses() -> None:
    """What the built method holds, against the papers; not what a yaml says."""

    def built(name: str) -> torch.nn.Module:
        with torch.device("meta"):
            cfg = composed(name)
            counts = {"images": 1281167} if name == "npid" else {}
            return instantiate(cfg.method, encoder=instantiate(cfg.backbone), **counts)

    npid = built("npid")
    assert (npid.temperature, npid.negatives, npid.momentum, npid.proximal) == (0.07, 4096, 0.5, 0)
    assert npid.bank.shape == (1281167, 128)
    for name, temperature in (("moco_v1", 0.07), ("moco_v2", 0.2)):
        moco = built(name)
        assert (moco.temperature, moco.momentum, moco.symmetric) == (temperature, 0.999, False)
        assert moco.queue.keys.shape == (65536, 128)
    for name in ("simclr", "simclr_v2"):
        assert built(name).temperature == 0.1 and built(name).memory is None
    swav = built("swav")
    assert (swav.temperature, swav.epsilon, swav.iterations) == (0.1, 0.05, 3)
    assert swav.prototypes.weight.shape == (3000, 128)
    byol = built("byol")
    assert (byol.momentum_at(0), byol.momentum_at(1)) == (0.996, 1.0)
    barlow = built("barlow_twins")
    assert (barlow.off_diagonal_weight, barlow.loss_scale) == (0.0051, 1.0)


def test_exemplars_recipe() -> None:
    cfg = composed("exemplar")
    with torch.device("meta"):
        task = instantiate(cfg.method, encoder=instantiate(cfg.backbone))
    assert task.encoder.spec == {"net": "large"} and task.batchnorm == "local"
    assert task.head.spec == {"in_dim": 512, "layers": [linear(8000, bias=True)]}
    views = instantiate(cfg.views)
    assert (views.classes, views.samples, task.dropout) == (8000, 100, 0.5)
    optimizer, schedule = optimizer_of(cfg, task)
    (group,) = optimizer.param_groups
    assert (group["lr"], group["momentum"], group["weight_decay"]) == (0.01, 0.9, 5e-4)
    assert [schedule(epoch / 60) for epoch in (0, 30, 40, 50)] == pytest.approx(
        [1, 1 / 3, 1 / 9, 1 / 27], rel=1e-6
    )
    # Another net, and a ResNet: each is one setting.
    assert instantiate(composed("exemplar", "backbone.net=small").backbone).out_dim == 128
    assert instantiate(composed("exemplar", "backbone=resnet18_small").backbone).out_dim == 512
