"""Every `configs/method/*.yaml` composes, builds, trains two steps, and says what is published."""

import copy
import functools

import pytest
import torch

from tests.pretrain.methods.steps import Now, batch_of, tiny_encoder
from visrep import optim
from visrep.config import choices, compose, instantiate
from visrep.nn.embeddings import effective_rank, spread

# Widths and lengths that would only cost time here.
SHRUNK = {
    "barlow_twins": ["method.out_dim=32"],
    "barlow_twins_small": ["method.out_dim=32"],
    "byol": ["method.hidden_dim=64"],
    "moco_v1": ["method.queue_size=1024"],
    "moco_v2": ["method.queue_size=1024"],
    "npid": ["method.images=64", "method.negatives=32"],
    "npid_small": ["method.images=64"],
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
    assert all(value.dim() == 0 for value in getattr(task, "measures", dict)().values())
    assert all(value.dim() == 0 for value in out.values())
    assert task.batchnorm in ("sync", "shuffle", "local") and isinstance(task.coupled, bool)
    assert task.head.spec["layers"]


RESUMED = {
    "simclr_v2": ["method.memory_size=16"],
    "moco_small": ["method.queue_size=16"],
    "swav": ["method.queue_size=16", "method.queue_start=1", "method.freeze_steps=2"],
    "byol_small": ["method.final_momentum=1.0"],
    "npid": [],
    "npid_small": [],
    "simsiam_small": [],
    "barlow_twins_small": [],
}


@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_is_bit_exact(name: str) -> None:
    whole, first = Run(name, *RESUMED[name]), Run(name, *RESUMED[name])
    first.task.load_state_dict(whole.task.state_dict())
    for step in range(3):
        whole.step(step)
        first.step(step)
    state = copy.deepcopy((first.task.state_dict(), first.optimizer.state_dict()))
    torch.manual_seed(99)  # nothing may depend on what a new process would draw
    resumed = Run(name, *RESUMED[name])
    resumed.task.load_state_dict(state[0])
    resumed.optimizer.load_state_dict(state[1])
    for step in range(3, 6):
        assert torch.equal(resumed.step(step)["loss"], whole.step(step)["loss"])
    want = whole.task.state_dict()
    for key, value in resumed.task.state_dict().items():
        assert torch.equal(value, want[key]), key


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


def test_the_published_exclusions() -> None:
    for name, excluded in (
        ("simclr", True), ("simclr_v2", True), ("byol", True), ("barlow_twins", True),
        ("swav", False), ("moco_v1", False), ("simsiam", False), ("npid", False),
    ):  # fmt: skip
        cfg = composed(name)
        task = tiny_predictor()
        optimizer, _ = optimizer_of(cfg, task)
        gamma = task.encoder.bn1.weight
        (group,) = [g for g in optimizer.param_groups if any(p is gamma for p in g["params"])]
        assert (group["weight_decay"] == 0) == excluded, name
        if name == "barlow_twins":
            assert group["lr"] == pytest.approx(0.0048 * 8)
        if cfg.optim.name == "lars":
            assert group["adapt"] != excluded
            assert group["lr_in_buffer"] == name.startswith("simclr")
