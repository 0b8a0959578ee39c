"""The distance against its plain form and published values; the target network; collapse."""

import pytest
import torch
from torch import nn

from tests.oracles import siamese
from tests.pretrain.methods.steps import (
    Now,
    assert_same,
    assert_same_loss,
    batch_of,
    tiny_encoder,
    train,
)
from tests.processes import run_on_two
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.pretrain.methods.byol import BYOL, distance


def make() -> BYOL:
    return BYOL(encoder=tiny_encoder(), hidden_dim=24, out_dim=16, momentum=0.9)


def test_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    p_a, p_b, t_a, t_b = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    leaves = torch.randn(4, 3, 5, dtype=torch.float64, requires_grad=True)
    want = siamese.byol(*leaves)
    (want_gradient,) = torch.autograd.grad(want, leaves)
    got = distance(leaves[0], leaves[3]) + distance(leaves[1], leaves[2])
    (gradient,) = torch.autograd.grad(got, leaves)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradient, want_gradient)
    assert not gradient[2:].any()  # nothing to the targets
    assert p_a.shape == p_b.shape == t_a.shape == t_b.shape


def test_known_values() -> None:
    p = torch.tensor([[1.0, 0.0], [0.0, 2.0]], dtype=torch.float64)
    across = torch.tensor([[0.0, 3.0], [1.0, 0.0]], dtype=torch.float64)
    assert distance(p, p).item() == pytest.approx(0, abs=1e-12)
    assert distance(p, across).item() == pytest.approx(2, abs=1e-12)  # both directions: 4
    assert 2 * distance(p, -p).item() == pytest.approx(8, abs=1e-12)
    other = torch.tensor([[0.3, 0.4], [1.0, 1.0]], dtype=torch.float64)
    torch.testing.assert_close(distance(10 * p, other), distance(p, other))


@pytest.mark.parametrize(
    ("fraction", "tau"),
    [(0, 0.996), (0.25, 0.9965858), (0.5, 0.998), (0.75, 0.9994142), (1, 1.0)],
)
def test_known_values_of_the_momentum(fraction: float, tau: float) -> None:
    task = BYOL(encoder=tiny_encoder(), hidden_dim=8, out_dim=8)
    assert task.momentum_at(fraction) == pytest.approx(tau, abs=5e-8)


def test_a_constant_momentum() -> None:
    task = BYOL(encoder=tiny_encoder(), hidden_dim=8, momentum=0.99, final_momentum=0.99)
    assert task.momentum_at(0) == task.momentum_at(0.5) == task.momentum_at(1) == 0.99


def test_the_target_moves_after_the_step_by_the_momentum_of_that_step() -> None:
    task = make().double().train()
    before = task.target_encoder.conv1.weight.clone()
    assert torch.equal(before, task.encoder.conv1.weight)
    task(batch_of(0))["loss"].backward()
    task.before_update(Now(0, 4))
    with torch.no_grad():
        task.encoder.conv1.weight.add_(1.0)
    assert torch.equal(task.target_encoder.conv1.weight, before)
    task.after_update(Now(1, 4))  # step 0 of 4: tau is 0.9
    moved = task.target_encoder.conv1.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 0.1))
    task.after_update(Now(4, 4))  # step 3 of 4
    tau = 1 - 0.1 * (torch.tensor(0.75 * torch.pi).cos().item() + 1) / 2
    moved = task.target_encoder.conv1.weight - before
    torch.testing.assert_close(moved, torch.full_like(moved, 1 - tau * 0.9), rtol=0, atol=1e-7)
    with torch.no_grad():
        task.head.layers[1].linear.weight.fill_(0.0)
        task.target_head.layers[1].linear.weight.fill_(1.0)
    task.after_update(Now(1, 4))
    weight = task.target_head.layers[1].linear.weight
    torch.testing.assert_close(weight, torch.full_like(weight, 0.9))


def test_the_target_gets_no_gradient_and_its_own_statistics() -> None:
    task = make().double().train()
    task(batch_of(0))["loss"].backward()
    for net in (task.target_encoder, task.target_head):
        assert all(p.grad is None and not p.requires_grad for p in net.parameters())
        for module in net.modules():
            assert not isinstance(module, BatchNorm) or module.num_batches_tracked == 2
    assert all(p.grad is not None for p in task.predictor.parameters())
    assert not any("target_predictor" in name for name, _ in task.named_modules())


def test_the_networks() -> None:
    task = BYOL(encoder=tiny_encoder())
    for mlp, width in ((task.head, 32), (task.predictor, 256)):
        first, second = mlp.layers
        assert first.linear.weight.shape == (4096, width) and first.linear.bias is not None
        assert isinstance(first.norm, BatchNorm) and first.norm.bias is not None
        assert second.linear.weight.shape == (256, 4096) and second.linear.bias is None
        assert isinstance(second.norm, nn.Identity)


def test_forward_predicts_each_view_from_the_other() -> None:
    task = make().double().train()
    a, b = batch_of(0)["views"]
    out = task(batch_of(0))
    z_a, z_b = task.head(task.encoder(a)), task.head(task.encoder(b))  # a pass for each view
    t_a, t_b = (task.target_head(task.target_encoder(x)) for x in (a, b))
    want = siamese.byol(task.predictor(z_a), task.predictor(z_b), t_a, t_b)
    assert_same_loss(task, out["loss"], want)
    assert torch.equal(out["embeddings"], z_a) and not out["embeddings"].requires_grad
    levels = task.reference_levels(8)
    assert (levels.loss_collapsed, levels.loss_apart) == (0, 4) and levels.minimal
    with pytest.raises(ConfigError, match="makes 1"):
        task(batch_of(0, sizes=(16,)))


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    p, t = torch.randn(2, 4, 64).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got = distance(p, t)
    assert got.dtype == torch.float32 and torch.equal(got, distance(p.float(), t.float()))


def work() -> dict[str, torch.Tensor]:
    return train(make, batchnorm="sync")


def test_two_processes_equal_one() -> None:
    one = train(make, batchnorm="sync")
    for other in run_on_two(work):
        assert_same(one, other)


def run(task: BYOL, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([p for p in task.parameters() if p.requires_grad], 0.05, 0.9)
    losses = []
    for step in range(steps):
        out = task(batch_of(step % 4))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        task.after_update(Now(step + 1, steps))
        losses.append(out["loss"].item())
    return losses


def test_it_learns() -> None:
    task = make().double().train()
    losses = run(task, 40)
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
