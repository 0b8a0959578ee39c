"""NT-Xent against its plain form and published values; the parts and traps of SimCLR."""

import math

import pytest
import torch

from tests.oracles import contrastive
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
from visrep.nn.embeddings import unit
from visrep.pretrain.methods.simclr import SimCLR, nt_xent


def loss_of(z: torch.Tensor, temperature: float, **kwargs: object) -> torch.Tensor:
    return nt_xent(z, z, temperature=temperature, **kwargs)[0]


def orthogonal_pairs(count: int) -> torch.Tensor:
    return torch.eye(count, dtype=torch.float64).repeat(2, 1)


@pytest.mark.parametrize("memory", [None, 3])
def test_loss_and_gradient_equal_the_oracle(memory: int | None) -> None:
    torch.manual_seed(0)
    z = torch.randn(2, 5, 4, dtype=torch.float64, requires_grad=True)  # of any length
    bank = None if memory is None else torch.randn(memory, 4, dtype=torch.float64)
    want = contrastive.nt_xent(z[0], z[1], 0.3, bank)
    (want_gradient,) = torch.autograd.grad(want, z)
    got = loss_of(unit(z.flatten(0, 1)), 0.3, memory=None if bank is None else unit(bank))
    (gradient,) = torch.autograd.grad(got, z)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(gradient, want_gradient)


@pytest.mark.parametrize(
    ("count", "temperature", "want"),
    [(2, 0.5, 0.239545), (2, 1.0, 0.551445), (2, 0.1, 9.0796e-5), (4, 0.5, 0.594438)],
)
def test_known_values_of_orthogonal_pairs(count: int, temperature: float, want: float) -> None:
    loss = loss_of(orthogonal_pairs(count), temperature)
    assert loss.item() == pytest.approx(want, rel=1e-5)


@pytest.mark.parametrize(("count", "want"), [(4, 1.94591), (256, 6.23637)])
def test_known_values_of_collapsed_features(count: int, want: float) -> None:
    z = unit(torch.ones(2 * count, 8, dtype=torch.float64))
    assert loss_of(z, 0.1).item() == pytest.approx(want, abs=5e-6)
    levels = SimCLR(encoder=tiny_encoder()).reference_levels(count)
    assert levels.loss_collapsed == pytest.approx(want, abs=5e-6) and not levels.minimal


def test_known_value_of_collapsed_features_at_4096() -> None:
    z = unit(torch.ones(8192, 8, dtype=torch.float64))
    loss, _ = nt_xent(z[:4], z, temperature=0.1)  # a share of the anchors: all are alike
    assert loss.item() == pytest.approx(9.01079, abs=5e-6)


@pytest.mark.parametrize(("count", "temperature", "want"), [(512, 0.5, 6.946), (4096, 0.1, 9.401)])
def test_known_values_of_random_features(count: int, temperature: float, want: float) -> None:
    torch.manual_seed(0)
    z = unit(torch.randn(2 * count, 128))
    loss, _ = nt_xent(z[:1024], z, temperature=temperature)
    assert loss.item() == pytest.approx(want, abs=0.1)


def test_an_anchor_is_not_its_own_negative() -> None:
    z = orthogonal_pairs(1)  # one image: the partner is the only choice
    assert loss_of(z, 0.1).item() == pytest.approx(0, abs=1e-12)


def test_the_order_of_the_batch_does_not_matter() -> None:
    torch.manual_seed(0)
    z = unit(torch.randn(2, 6, 8, dtype=torch.float64).flatten(0, 1))
    order = torch.randperm(6)
    swapped = torch.cat([z[6:][order], z[:6][order]])  # the two views change places, too
    torch.testing.assert_close(loss_of(z, 0.2), loss_of(swapped, 0.2))


def test_shares_of_the_anchors_average_to_the_whole() -> None:
    torch.manual_seed(0)
    shares = [unit(torch.randn(4, 8, dtype=torch.float64)) for _ in range(3)]  # 3 processes, n = 2
    everyone = torch.cat(shares)
    losses = [
        nt_xent(z, everyone, first=4 * rank, temperature=0.2)[0] for rank, z in enumerate(shares)
    ]
    first = torch.cat([z[:2] for z in shares])
    second = torch.cat([z[2:] for z in shares])
    want = contrastive.nt_xent(first, second, 0.2)
    torch.testing.assert_close(torch.stack(losses).mean(), want)


def test_accuracy_counts_partners_found() -> None:
    assert nt_xent(orthogonal_pairs(4), orthogonal_pairs(4), temperature=0.1)[1] == 1.0
    z = torch.eye(4, dtype=torch.float64)[[0, 1, 2, 0, 1, 3]]  # the third pair does not match
    torch.testing.assert_close(nt_xent(z, z, temperature=0.1)[1].item(), 4 / 6)


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    z = unit(torch.randn(16, 128))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = loss_of(z, 0.1)
        coarse = unit(z.bfloat16())
    assert inside.dtype == coarse.dtype == torch.float32
    assert torch.equal(inside, loss_of(z, 0.1))


def test_the_heads_of_v1_and_v2() -> None:
    for layers in (2, 3):
        head = SimCLR(encoder=tiny_encoder(), head_layers=layers).head
        assert [layer["out"] for layer in head.spec["layers"]] == [32] * (layers - 1) + [128]
        assert not any(layer.linear.bias is not None for layer in head.layers)
        inner, last = head.layers[0].norm, head.layers[-1].norm
        assert isinstance(inner, BatchNorm) and inner.bias is not None
        assert last.weight is not None and last.bias is None
        assert head(torch.randn(4, 32)).min() < 0  # no ReLU at the end


def test_forward_is_the_loss_of_both_views_in_one_pass() -> None:
    task = SimCLR(encoder=tiny_encoder(), out_dim=8, temperature=0.2).double().train()
    batch = batch_of(0)
    out = task(batch)
    assert task.encoder.bn1.num_batches_tracked == 1  # joint statistics
    z = task.head(task.encoder(torch.cat(batch["views"])))
    assert_same_loss(task, out["loss"], contrastive.nt_xent(z[:8], z[8:], 0.2))
    torch.testing.assert_close(out["embeddings"], unit(z))
    assert not out["accuracy"].requires_grad and not out["embeddings"].requires_grad


def test_three_views_are_refused() -> None:
    task = SimCLR(encoder=tiny_encoder()).double()
    with pytest.raises(ConfigError, match="views= makes 3"):
        task(batch_of(0, sizes=(16, 16, 16)))


def make() -> SimCLR:
    return SimCLR(encoder=tiny_encoder(), temperature=0.2)


def make_v2() -> SimCLR:
    return SimCLR(
        encoder=tiny_encoder(), head_layers=3, memory_size=16, memory_momentum=0.9, out_dim=8
    )


def work(maker: object) -> dict[str, torch.Tensor]:
    return train(maker, batchnorm="sync")


@pytest.mark.parametrize("maker", [make, make_v2])
def test_two_processes_equal_one(maker: object) -> None:
    one = train(maker, batchnorm="sync")
    first, second = run_on_two(work, maker)
    assert_same(one, first)
    assert_same(one, second)


def test_the_memory_holds_the_last_keys_and_comes_after_the_loss() -> None:
    task = make_v2().double().train()
    task.memory.keys.copy_(unit(task.memory.keys))  # unit in float64, too
    before = task.memory.keys.clone()
    batch = batch_of(0)
    out = task(batch)
    z = task.head(task.encoder(torch.cat(batch["views"])))
    assert_same_loss(task, out["loss"], contrastive.nt_xent(z[:8], z[8:], 0.1, before))
    assert torch.equal(task.memory.keys, before)
    keys = unit(task.key_head(task.key_encoder(batch["views"][0])))
    task.after_update(Now(1, 2))
    torch.testing.assert_close(task.memory.keys[:8], keys)
    assert torch.equal(task.memory.keys[8:], before[8:])
    assert not any(p.requires_grad for p in task.key_encoder.parameters())


def test_the_memory_must_fit_the_batch() -> None:
    task = SimCLR(encoder=tiny_encoder(), memory_size=12).double()
    with pytest.raises(ConfigError, match=r"12.*8"):
        task(batch_of(0))


def test_it_learns() -> None:
    task = SimCLR(encoder=tiny_encoder(), temperature=0.2).double().train()
    optimizer = torch.optim.SGD(task.parameters(), lr=0.3, momentum=0.9)
    for step in range(40):
        out = task(batch_of(step % 4))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
    assert out["loss"] < 0.5 * math.log(15)
    assert out["accuracy"] > 0.9
