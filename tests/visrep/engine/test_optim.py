"""LARS against a plain-Python oracle, the groups, and the schedules' published values."""

import math
from typing import Any

import pytest
import torch
from torch import nn

from tests.oracles.lars import Layer
from visrep.engine import optim
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm


def parameter(*values: float) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float64))


def test_lars_two_steps_of_the_published_example() -> None:
    w = parameter(3, 4)
    opt = optim.LARS([w], lr=0.16)
    for want in ((2.99952, 3.99936), (2.9986080768, 3.9981441024)):  # SimCLR v2's code
        w.grad = torch.tensor([0.6, 0.8], dtype=torch.float64)
        opt.step()
        torch.testing.assert_close(w.detach(), w.new_tensor(want), rtol=0, atol=1e-12)


def test_lars_decays_before_the_trust_ratio() -> None:
    w = parameter(3, 4)
    w.grad = torch.tensor([0.6, 0.8], dtype=torch.float64)
    optim.LARS([w], lr=6.4, weight_decay=1e-4).step()
    update = torch.tensor([3.0, 4.0], dtype=torch.float64) - w.detach()
    torch.testing.assert_close(update, update.new_tensor([0.0192, 0.0256]), rtol=0, atol=1e-12)
    # The trust ratio itself: update = lr * ratio * (g + wd w).
    ratio = update[0] / (6.4 * (0.6 + 1e-4 * 3))
    assert ratio.item() == pytest.approx(0.0049975, abs=5e-8)
    assert ratio.item() != pytest.approx(0.005, abs=5e-8)  # decay after the ratio


def test_lars_without_adaptation_is_plain_momentum() -> None:
    w, reference = parameter(3, 4), parameter(3, 4)
    opt = optim.LARS([{"params": [w], "adapt": False}], lr=0.5, lr_in_buffer=False)
    sgd = torch.optim.SGD([reference], lr=0.5, momentum=0.9)
    for step in range(4):
        for p in (w, reference):
            p.grad = torch.tensor([0.6, 0.8 - step], dtype=torch.float64)
        opt.step()
        sgd.step()
    torch.testing.assert_close(w, reference)


@pytest.mark.parametrize("lr_in_buffer", [True, False])
def test_lars_follows_the_oracle_while_lr_changes(lr_in_buffer: bool) -> None:
    torch.manual_seed(0)
    shapes = [(4, 3), (5,), (2, 2, 3)]
    weights = [nn.Parameter(torch.randn(s, dtype=torch.float64)) for s in shapes]
    weights.append(nn.Parameter(torch.zeros(3, dtype=torch.float64)))  # norm 0: trust is 1
    groups = [
        {"params": [weights[0], weights[2], weights[3]], "weight_decay": 0.1},
        {"params": [weights[1]], "adapt": False},
    ]
    opt = optim.LARS(groups, lr=1.0, lr_in_buffer=lr_in_buffer)
    layers = [Layer(w.detach().flatten().tolist()) for w in weights]
    for step in range(5):
        lr = 3.0 / (1 + step)
        for group in opt.param_groups:
            group["lr"] = lr
        for i, (w, layer) in enumerate(zip(weights, layers, strict=True)):
            w.grad = torch.randn_like(w)
            plain = i == 1
            layer.step(
                w.grad.flatten().tolist(),
                lr=lr,
                momentum=0.9,
                weight_decay=0.0 if plain else 0.1,
                trust=0.001,
                adapt=not plain,
                lr_in_buffer=lr_in_buffer,
            )
        opt.step()
        for w, layer in zip(weights, layers, strict=True):
            torch.testing.assert_close(w.detach().flatten(), w.new_tensor(layer.w))


def test_the_two_momentum_forms_part_when_lr_changes() -> None:
    ends = []
    for lr_in_buffer in (True, False):
        w = parameter(3, 4)
        opt = optim.LARS([w], lr=1.0, lr_in_buffer=lr_in_buffer)
        for lr in (1.0, 0.1):
            opt.param_groups[0]["lr"] = lr
            w.grad = torch.tensor([0.6, 0.8], dtype=torch.float64)
            opt.step()
        ends.append(w.detach())
    assert (ends[0] - ends[1]).abs().max() > 1e-3


def test_lars_leaves_a_tensor_without_gradient_alone_and_keeps_the_gradients() -> None:
    moving, frozen = parameter(1, 2), parameter(1, 2)
    opt = optim.LARS([moving, frozen], lr=1.0, weight_decay=0.1)
    moving.grad = torch.tensor([1.0, 1.0], dtype=torch.float64)
    opt.step()
    assert frozen.tolist() == [1, 2]
    assert moving.grad.tolist() == [1, 1]
    assert frozen not in opt.state


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = BatchNorm(4)
        self.head = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4))
        self.predictor = nn.Linear(4, 4)
        self.fc = nn.Linear(4, 2)
        self.frozen = nn.Linear(4, 2).requires_grad_(False)


def names_of(net: nn.Module, group: dict) -> set[str]:
    ids = {id(p) for p in group["params"]}
    return {name for name, p in net.named_parameters() if id(p) in ids}


def test_groups_exclude_norms_biases_and_the_classifier() -> None:
    net = Net()
    groups = optim.parameter_groups(net, lr=2.0, weight_decay=0.1, exclude=["norm", "bias", "fc"])
    decayed, excluded = groups
    assert names_of(net, decayed) == {"conv.weight", "head.0.weight", "predictor.weight"}
    assert names_of(net, excluded) == {
        "conv.bias", "bn.weight", "bn.bias", "head.0.bias", "head.1.weight", "head.1.bias",
        "predictor.bias", "fc.weight", "fc.bias",
    }  # fmt: skip
    assert (decayed["weight_decay"], decayed["adapt"]) == (0.1, True)
    assert (excluded["weight_decay"], excluded["adapt"]) == (0.0, False)
    assert decayed["lr"] == excluded["lr"] == 2.0


def test_groups_with_nothing_excluded_decay_everything() -> None:
    net = Net()
    (group,) = optim.parameter_groups(net, lr=1.0, weight_decay=0.1, exclude=())
    assert len(group["params"]) == sum(p.requires_grad for p in net.parameters())
    assert (group["weight_decay"], group["adapt"]) == (0.1, True)


def test_excluded_parameters_may_have_a_rate_of_their_own() -> None:
    net = Net()
    decayed, excluded = optim.parameter_groups(net, lr=0.2, weight_decay=0, excluded_lr=0.0048)
    assert (decayed["lr"], excluded["lr"]) == (0.2, 0.0048)
    assert "bn.weight" in names_of(net, excluded)


def test_a_fixed_rate_ignores_the_schedule() -> None:
    net = Net()
    groups = optim.parameter_groups(
        net, lr=0.5, weight_decay=1e-4, exclude=(), fixed_lr=["predictor"]
    )
    opt = torch.optim.SGD(groups, lr=0.5)
    optim.set_learning_rate(opt, 0.1)
    rates = {names_of(net, g) >= {"predictor.weight"}: g["lr"] for g in opt.param_groups}
    assert rates == {True: 0.5, False: 0.05}
    optim.set_learning_rate(opt, 0.2)
    assert opt.param_groups[0]["lr"] == 0.1  # of the peak, not of the last value


def test_a_submodule_may_have_a_multiple_of_the_rate() -> None:
    net = Net()
    groups = optim.parameter_groups(
        net, lr=0.5, weight_decay=0.1, exclude=["bias"], excluded_lr=0.25,
        fixed_lr=["fc"], lr_factors=[["predictor", 10], ["fc", 4], ["fc.bias", 0.5]],
    )  # fmt: skip
    rates = {name: g["lr"] for g in groups for name in names_of(net, g)}
    assert rates["conv.weight"] == rates["head.0.weight"] == rates["bn.weight"] == 0.5
    assert rates["conv.bias"] == 0.25
    assert (rates["predictor.weight"], rates["predictor.bias"]) == (5.0, 2.5)
    assert (rates["fc.weight"], rates["fc.bias"]) == (2.0, 0.5)  # the factors multiply
    opt = torch.optim.SGD(groups, lr=0.5)
    optim.set_learning_rate(opt, 0.1)
    rates = {name: g["lr"] for g in opt.param_groups for name in names_of(net, g)}
    assert rates["predictor.weight"] == pytest.approx(0.5)  # and the schedule applies
    assert rates["fc.weight"] == 2.0
    assert {g["weight_decay"] for g in groups if names_of(net, g) & {"predictor.weight"}} == {0.1}


@pytest.mark.parametrize(
    "pairs",
    [
        [("predictor", 0.0)], [("predictor", -1)], [("predictor", float("nan"))],
        [("predictor", float("inf"))], [("predictor", "much")], ["predictor", 2.0], ["fc"],
        [("predictor", 2.0), ("predictor", 3.0)], [("predictor", 2.0, 3.0)],
        3, {"predictor": 2.0},
    ],
)  # fmt: skip
def test_factors_of_the_rate_are_pairs_of_a_name_and_a_number_above_0(pairs: Any) -> None:
    with pytest.raises(ConfigError, match=r"optim\.lr_factors=.*\[name, factor\].*above 0"):
        optim.parameter_groups(Net(), lr=1, weight_decay=0, lr_factors=pairs)


def test_a_name_that_fits_nothing_is_an_error() -> None:
    with pytest.raises(ConfigError, match="classifier"):
        optim.parameter_groups(Net(), lr=1, weight_decay=0, exclude=["norm", "classifier"])
    with pytest.raises(ConfigError, match="predict"):  # a name, not the beginning of one
        optim.parameter_groups(Net(), lr=1, weight_decay=0, fixed_lr=["predict"])
    with pytest.raises(ConfigError, match="predict"):
        optim.parameter_groups(Net(), lr=1, weight_decay=0, lr_factors=[("predict", 2)])


def test_scaled_lr_of_the_published_runs() -> None:
    assert optim.scaled_lr(0.3, 4096, "linear") == pytest.approx(4.8)
    assert optim.scaled_lr(0.075, 4096, "sqrt") == pytest.approx(4.8)
    assert optim.scaled_lr(0.005, 1024, "sqrt") == pytest.approx(0.16)
    assert optim.scaled_lr(0.002, 1024, "sqrt") == pytest.approx(0.064)
    assert optim.scaled_lr(0.1, 4096, "sqrt") == pytest.approx(6.4)
    assert optim.scaled_lr(0.03, 128, "linear") == pytest.approx(0.015)
    assert optim.scaled_lr(0.03, 128, "none") == 0.03
    with pytest.raises(ConfigError, match="cubic"):
        optim.scaled_lr(0.03, 128, "cubic")


def build(**changes: object) -> tuple:
    values = {
        "name": "sgd", "lr": 0.03, "batch_size": 512, "steps_per_epoch": 10, "total_steps": 100,
    }  # fmt: skip
    return optim.build(Net(), **{**values, **changes})


def test_build_sgd() -> None:
    opt, schedule = build(weight_decay=1e-4, schedule="multistep", milestones=[6, 8])
    assert type(opt) is torch.optim.SGD
    (group,) = opt.param_groups
    assert group["lr"] == group["initial_lr"] == pytest.approx(0.06)
    assert (group["momentum"], group["weight_decay"], group["nesterov"]) == (0.9, 1e-4, False)
    assert [schedule(t / 100) for t in (59, 60, 80)] == pytest.approx([1, 0.1, 0.01])


def test_build_lars() -> None:
    opt, schedule = build(
        name="lars", lr=0.3, lr_rule="sqrt", exclude=["norm", "bias"], excluded_lr=0.1,
        weight_decay=1e-6, trust=0.02, lr_in_buffer=False, warmup_epochs=1, final=0.5,
    )  # fmt: skip
    assert type(opt) is optim.LARS
    decayed, excluded = opt.param_groups
    assert decayed["lr"] == pytest.approx(0.3 * math.sqrt(512))
    assert excluded["lr"] == pytest.approx(0.1 * math.sqrt(512))
    assert all(g["trust"] == 0.02 and g["lr_in_buffer"] is False for g in opt.param_groups)
    assert (decayed["adapt"], excluded["adapt"]) == (True, False)
    assert schedule(0.0) == 0 and schedule(0.1) == 1
    assert schedule(0.99) == pytest.approx(0.5, abs=2e-4)


def test_build_adam() -> None:
    opt, _ = build(name="adam", lr=1e-3, lr_rule="none", weight_decay=1e-6)
    assert type(opt) is torch.optim.Adam
    (group,) = opt.param_groups
    assert (group["lr"], group["weight_decay"]) == (1e-3, 1e-6)


def test_build_counts_warmup_steps_as_published() -> None:
    # 20 and 40 epochs of 1,281,167 images at 4096: 6255 and 12511 steps (SimCLR v2's code).
    for epochs, steps in ((20, 6255), (40, 12511)):
        total = 250228
        _, schedule = build(warmup_epochs=epochs, steps_per_epoch=1281167 / 4096, total_steps=total)
        assert schedule(steps / total) == 1.0
        assert schedule((steps - 1) / total) < 1.0


def test_build_refuses_what_does_not_fit() -> None:
    for changes, word in (
        ({"name": "adamw"}, "adamw"),
        ({"schedule": "exponential"}, "exponential"),
        ({"schedule": "multistep"}, "milestones"),
        ({"schedule": "constant", "milestones": [3]}, "milestones"),
        ({"name": "lars", "nesterov": True}, "nesterov"),
        ({"warmup_epochs": 10}, "warm-up"),
    ):
        with pytest.raises(ConfigError, match=word):
            build(**changes)


def test_a_state_dict_brings_the_buffers_and_rates_back() -> None:
    torch.manual_seed(0)
    ends = []
    for resume in (False, True):
        torch.manual_seed(1)
        w = nn.Parameter(torch.randn(3, 3))
        gradients = torch.randn(4, 3, 3)
        opt = optim.LARS([w], lr=1.0, weight_decay=0.01)
        for step, gradient in enumerate(gradients):
            if resume and step == 2:
                state = opt.state_dict()
                w = nn.Parameter(w.detach().clone())
                opt = optim.LARS([w], lr=9.0)
                opt.load_state_dict(state)
            w.grad = gradient
            opt.step()
        ends.append(w.detach())
    assert torch.equal(*ends)
