"""The cosine against its plain form and published values; stop-gradient; the two MLPs."""

import pytest
import torch
from torch import nn

from tests.oracles import siamese
from tests.pretrain.methods.steps import (
    assert_same,
    assert_same_loss,
    batch_of,
    tiny_encoder,
    train,
)
from tests.processes import run_on_two
from visrep.engine import optim
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.embeddings import spread
from visrep.pretrain.methods.simsiam import SimSiam, negative_cosine


def make() -> SimSiam:
    return SimSiam(encoder=tiny_encoder(), out_dim=32, predictor_dim=8)


def test_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    leaves = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    p_a, p_b, z_a, z_b = leaves
    want = siamese.simsiam(p_a, p_b, z_a, z_b)
    (want_gradient,) = torch.autograd.grad(want, leaves)
    got = (negative_cosine(p_a, z_b.detach()) + negative_cosine(p_b, z_a.detach())) / 2
    (gradient,) = torch.autograd.grad(got, leaves)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradient, want_gradient)


def test_known_values() -> None:
    p = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    assert negative_cosine(p, p).item() == pytest.approx(-1)
    assert negative_cosine(p, p.flip(0)).item() == pytest.approx(0, abs=1e-12)


def test_forward_and_its_stop_gradient() -> None:
    task = make().double().train()
    a, b = batch_of(0)["views"]
    out = task(batch_of(0))
    z_a, z_b = task.head(task.encoder(a)), task.head(task.encoder(b))  # a pass for each view
    want = siamese.simsiam(task.predictor(z_a), task.predictor(z_b), z_a, z_b)
    assert_same_loss(task, out["loss"], want)
    assert torch.equal(out["embeddings"], z_a) and not out["embeddings"].requires_grad
    levels = task.reference_levels(8)
    assert (levels.loss_collapsed, levels.loss_apart) == (-1, 0) and levels.minimal
    with pytest.raises(ConfigError, match="makes 1"):
        task(batch_of(0, sizes=(16,)))


def test_the_projector_and_the_predictor() -> None:
    task = SimSiam(encoder=tiny_encoder())
    assert [layer["out"] for layer in task.head.spec["layers"]] == [2048] * 3
    assert [layer["out"] for layer in task.predictor.spec["layers"]] == [512, 2048]
    norms = [m for m in task.head.modules() if isinstance(m, BatchNorm)]
    assert len(norms) == 3
    assert not list(norms[-1].parameters()) and list(norms[0].parameters())
    assert isinstance(task.head.layers[-1].relu, nn.Identity)
    assert len([m for m in task.predictor.modules() if isinstance(m, BatchNorm)]) == 1
    last = task.predictor.layers[-1]
    assert isinstance(last.norm, nn.Identity) and isinstance(last.relu, nn.Identity)
    assert last.linear.bias is not None
    small = SimSiam(encoder=tiny_encoder(), projector_layers=2)
    assert len(small.head.layers) == 2 and small.head.spec["layers"][-1]["norm"] == "plain"


def test_the_embeddings_fill_the_sphere_at_the_start() -> None:
    task = SimSiam(encoder=tiny_encoder()).double().train()
    out = task(batch_of(0, count=32))
    assert spread(out["embeddings"]).item() == pytest.approx(1, rel=0.15)
    assert spread(out["embeddings"]).item() / 2048**0.5 == pytest.approx(0.0221, rel=0.15)


def test_the_predictor_keeps_its_learning_rate() -> None:
    task = make()
    optimizer, schedule = optim.build(
        task, name="sgd", lr=0.05, weight_decay=1e-4, per_epoch=True, fixed_lr=["predictor"],
        batch_size=256, steps_per_epoch=10, total_steps=100,
    )  # fmt: skip
    predictor = {id(p) for p in task.predictor.parameters()}
    for step in (0, 99):
        optim.set_learning_rate(optimizer, schedule(step / 100))
        for group in optimizer.param_groups:
            fixed = {id(p) for p in group["params"]} == predictor
            assert group["weight_decay"] == 1e-4  # of all, batch norm's too
            if fixed:
                assert group["lr"] == pytest.approx(0.05)
            else:
                assert (group["lr"] < 0.01) == (step == 99)


def run(task: SimSiam, steps: int) -> tuple[float, float]:
    optimizer = torch.optim.SGD(task.parameters(), 0.05, 0.9)
    for step in range(steps):
        out = task(batch_of(step % 4))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    return out["loss"].item(), spread(out["embeddings"]).item()


def test_it_learns_and_without_stop_gradient_it_takes_the_short_way() -> None:
    loss, wide = run(make().double().train(), 60)
    assert loss < -0.3 and wide > 0.8
    task = SimSiam(encoder=tiny_encoder(), out_dim=32, predictor_dim=8, stop_gradient=False)
    shortcut, spread_then = run(task.double().train(), 60)
    assert shortcut < loss - 0.1 and spread_then < wide


def test_without_stop_gradient_both_sides_move() -> None:
    task = make().double().train()
    free = make().double().train()
    free.stop_gradient = False
    batch = batch_of(0)
    z_a, z_b = (free.head(free.encoder(view)) for view in batch["views"])
    sides = ((free.predictor(z_a), z_b), (free.predictor(z_b), z_a))
    want = sum(negative_cosine(p, z) for p, z in sides) / 2
    parameters = list(free.parameters())
    wanted = torch.autograd.grad(want, parameters)
    got = torch.autograd.grad(free(batch)["loss"], parameters)
    for gradient, other in zip(got, wanted, strict=True):
        torch.testing.assert_close(gradient, other, atol=1e-8, rtol=1e-6)
    stopped = torch.autograd.grad(task(batch)["loss"], list(task.parameters()))
    assert (stopped[0] - got[0]).abs().max() > 1e-3


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    p, z = torch.randn(2, 4, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = negative_cosine(p, z)
    assert got.dtype == torch.float32 and torch.equal(got, negative_cosine(p.float(), z.float()))


def work() -> dict[str, torch.Tensor]:
    return train(make, batchnorm="sync")


def test_two_processes_equal_one() -> None:
    one = train(make, batchnorm="sync")
    for other in run_on_two(work):
        assert_same(one, other)
