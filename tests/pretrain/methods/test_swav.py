"""Codes and loss against their plain forms and published values; prototypes, queue, crops."""

import math

import pytest
import torch

from tests.oracles import clusters
from tests.pretrain.methods.steps import (
    Now,
    assert_same,
    assert_same_loss,
    batch_of,
    tiny_encoder,
    train,
)
from tests.processes import run_on_two
from visrep import dist
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.embeddings import unit
from visrep.pretrain.methods.swav import SwAV, sinkhorn, swapped_prediction, used_share

SIZES = (16, 16, 8, 8)


def make(**changes: object) -> SwAV:
    values = {
        "hidden_dim": 24, "out_dim": 16, "prototypes": 6, "freeze_steps": 0, "epsilon": 0.2,
    }  # fmt: skip
    return SwAV(encoder=tiny_encoder(), **{**values, **changes})


def make_with_queue() -> SwAV:
    return make(queue_size=16, queue_start=1, freeze_steps=2)


def codes(scores: list[list[float]], epsilon: float, iterations: int = 3) -> torch.Tensor:
    rows = torch.tensor(scores, dtype=torch.float64)
    return sinkhorn(rows, epsilon=epsilon, iterations=iterations)


def test_codes_equal_the_oracle() -> None:
    torch.manual_seed(0)
    scores = torch.rand(7, 4, dtype=torch.float64)
    for epsilon, iterations in ((0.05, 3), (0.5, 1), (1.0, 5)):
        want = clusters.sinkhorn(scores.tolist(), epsilon, iterations)
        got = sinkhorn(scores, epsilon=epsilon, iterations=iterations)
        torch.testing.assert_close(got, torch.tensor(want, dtype=torch.float64))


def test_known_codes() -> None:
    uniform = codes([[0.3] * 4] * 5, 0.05)
    torch.testing.assert_close(uniform, torch.full_like(uniform, 0.25))
    eye = [[1.0, 0.0], [0.0, 1.0]]
    torch.testing.assert_close(codes(eye, 0.05), torch.eye(2).double(), atol=1e-8, rtol=0)
    soft = codes(eye, 1.0)
    assert soft[0].tolist() == pytest.approx([0.731059, 0.268941], abs=1e-6)
    uneven = [[1.0, 0.0], [1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]
    for iterations, first, last in (
        (1, 0.768172, 0.942783),
        (3, 0.668449, 0.964388),
        (200, 0.655444, 0.966332),
    ):
        q = codes(uneven, 0.5, iterations)
        assert (q[0, 0].item(), q[3, 1].item()) == pytest.approx((first, last), abs=1e-6)
    # Both prefer the first prototype; the codes are balanced all the same.
    q = codes([[0.9, 0.1], [0.8, 0.2]], 0.05)
    want = [0.880797, 0.119203, 0.119203, 0.880797]
    assert q.flatten().tolist() == pytest.approx(want, abs=1e-6)


def test_codes_sum_to_one_and_use_all_prototypes_alike() -> None:
    torch.manual_seed(0)
    q = sinkhorn(unit(torch.randn(64, 128)) @ unit(torch.randn(16, 128)).T, epsilon=0.05,
                 iterations=50)  # fmt: skip
    torch.testing.assert_close(q.sum(1), torch.ones(64))
    torch.testing.assert_close(q.sum(0), torch.full((16,), 4.0), rtol=0.02, atol=0)


def test_codes_do_not_overflow_under_autocast() -> None:
    scores = torch.tensor([[1.0, -1.0], [1.0, 1.0]])
    with torch.autocast("cpu", dtype=torch.float16):
        q = sinkhorn(scores.half(), epsilon=0.05, iterations=3)
    assert q.dtype == torch.float32 and q.isfinite().all()


def shared_codes(scores: torch.Tensor) -> torch.Tensor:
    mine = scores.tensor_split(dist.world_size())[dist.rank()]
    return dist.gather(sinkhorn(mine, epsilon=0.5, iterations=3))


def test_codes_are_those_of_the_whole_batch_on_two_processes() -> None:
    torch.manual_seed(0)
    scores = torch.rand(8, 4, dtype=torch.float64)
    want = sinkhorn(scores, epsilon=0.5, iterations=3)
    for got in run_on_two(shared_codes, scores):
        torch.testing.assert_close(got, want)
    alone = sinkhorn(scores[:4], epsilon=0.5, iterations=3)
    assert (alone - want[:4]).abs().max() > 1e-3  # local row sums would differ


@pytest.mark.parametrize("queued", [False, True])
def test_loss_and_gradient_equal_the_oracle(queued: bool) -> None:
    torch.manual_seed(0)
    task = make(queue_size=8 if queued else 0).double().train()
    batch = batch_of(0, sizes=SIZES)
    queues = None
    if queued:
        task.queue.keys.copy_(torch.cat([unit(part) for part in task.queue.keys.chunk(2, 1)], 1))
        queues = list(task.queue.keys.chunk(2, dim=1))
        task.queued = 8
    out = task(batch)
    large = task.encoder(torch.cat(batch["views"][:2]))  # a pass for each resolution
    small = task.encoder(torch.cat(batch["views"][2:]))
    z = unit(task.head(torch.cat([large, small]))).split(8)
    want = clusters.swav(
        list(z), task.prototypes.weight, temperature=0.1, epsilon=0.2, iterations=3, queues=queues
    )
    assert_same_loss(task, out["loss"], want)


def test_crops_of_one_size_share_statistics() -> None:
    task = make().double().train()
    task(batch_of(0, sizes=SIZES))
    assert task.encoder.bn1.num_batches_tracked == 2
    assert task.head.layers[0].norm.num_batches_tracked == 1


@pytest.mark.parametrize(("count", "want"), [(3000, 8.00637), (512, 6.23832)])
def test_known_values_of_collapse(count: int, want: float) -> None:
    scores = torch.zeros(2, 4, count, dtype=torch.float64)
    q = sinkhorn(scores[0], epsilon=0.05, iterations=3)
    assert swapped_prediction(scores, [q, q], 0.1).item() == pytest.approx(want, abs=5e-6)
    task = make(prototypes=count)
    assert task.reference_levels(8).loss_collapsed == pytest.approx(want, abs=5e-6)


def test_known_values_of_random_features() -> None:
    torch.manual_seed(0)
    prototypes = unit(torch.randn(3000, 128))
    z = unit(torch.randn(2, 512, 128).flatten(0, 1)).view(2, 512, 128)
    same, other = (z[0] @ prototypes.T), (z[1] @ prototypes.T)
    q = sinkhorn(same, epsilon=0.05, iterations=3)

    def cross_entropy(scores: torch.Tensor) -> float:
        return -(q * (scores / 0.1).log_softmax(1)).sum(1).mean().item()

    assert cross_entropy(same) == pytest.approx(6.9, abs=0.1)
    assert cross_entropy(other) == pytest.approx(8.39, abs=0.05)
    both = swapped_prediction(torch.stack([same, other]), [q], 0.1)
    assert both.item() == pytest.approx(cross_entropy(other), rel=1e-5)


def test_prototypes_are_of_unit_length_before_every_forward() -> None:
    task = make().double().train()
    with torch.no_grad():
        task.prototypes.weight.mul_(3)
    task(batch_of(0))
    torch.testing.assert_close(
        task.prototypes.weight.norm(dim=1), torch.ones(6, dtype=torch.float64)
    )


def test_frozen_prototypes_stand_still_with_momentum_and_decay() -> None:
    task = make(freeze_steps=2).double().train()
    optimizer = torch.optim.SGD(task.parameters(), 0.1, 0.9, weight_decay=0.1)
    task.normalize_prototypes()
    start = task.prototypes.weight.detach().clone()
    for step in range(3):
        optimizer.zero_grad()
        task(batch_of(step))["loss"].backward()
        task.before_update(Now(step, 3))
        optimizer.step()
        task.after_update(Now(step + 1, 3))
        moved = (task.prototypes.weight - start).abs().max().item()
        assert moved < 1e-12 if step < 2 else moved > 1e-3


def test_codes_carry_no_gradient() -> None:
    task = make().double().train()
    scores = torch.rand(8, 6, dtype=torch.float64, requires_grad=True)
    assert not task._codes(scores, 0).requires_grad


def test_the_queue_fills_from_its_start_and_is_used_once_full() -> None:
    task = make(queue_size=16, queue_start=2).double().train()
    plain = make().double().train()
    same = []
    for step in range(6):
        batch = batch_of(step)
        with_queue, without = task(batch), plain(batch)
        same.append(torch.equal(with_queue["loss"], without["loss"]))
        task.after_update(Now(step + 1, 6))
        assert task.queued == max(0, step - 1) * 8
    # Steps 2 and 3 fill it; step 4 is the first that finds it full.
    assert same == [True, True, True, True, False, False]
    views = torch.cat(batch_of(5)["views"])
    z = unit(task.head(task.encoder(views))).chunk(2)
    torch.testing.assert_close(task.queue.keys[8:], torch.cat(z, dim=1))  # rows 8 to 15 are last


def test_a_resumed_queue_knows_how_full_it_is() -> None:
    task, other = make_with_queue(), make_with_queue()
    task.queued = 16
    other.load_state_dict(task.state_dict())
    assert other.queued == 16 and isinstance(other.queued, int)


def test_use_of_prototypes() -> None:
    assert used_share(torch.zeros(4, 8), 0.1).item() == pytest.approx(1)
    one = torch.zeros(4, 8)
    one[:, 3] = 100.0
    assert used_share(one, 0.1).item() == pytest.approx(1 / 8)


def test_the_head() -> None:
    task = SwAV(encoder=tiny_encoder())
    first, second = task.head.layers
    assert first.linear.weight.shape == (2048, 32) and first.linear.bias is not None
    assert isinstance(first.norm, BatchNorm)
    assert second.linear.weight.shape == (128, 2048) and second.linear.bias is not None
    assert not isinstance(second.norm, BatchNorm)
    assert task.prototypes.weight.shape == (3000, 128) and task.prototypes.bias is None


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(ConfigError, match="makes 1"):
        make().double()(batch_of(0, sizes=(16,)))
    with pytest.raises(ConfigError, match=r"12.*8"):
        make(queue_size=12).double()(batch_of(0))


def work(maker: object) -> dict[str, torch.Tensor]:
    return train(maker, batchnorm="sync", sizes=SIZES, steps=5, lr=0.05)


@pytest.mark.parametrize("maker", [make, make_with_queue])
def test_two_processes_equal_one(maker: object) -> None:
    one = train(maker, batchnorm="sync", sizes=SIZES, steps=5, lr=0.05)
    for other in run_on_two(work, maker):
        assert_same(one, other)
    if maker is make_with_queue:
        assert one["state _extra_state"] == 32  # and it was used: 16 fill it


def run(task: SwAV, steps: int) -> list[float]:
    optimizer = torch.optim.SGD(task.parameters(), 0.1, 0.9)
    losses = []
    for step in range(steps):
        out = task(batch_of(step % 4))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    return losses


def test_it_learns() -> None:
    losses = run(make(epsilon=0.05).double().train(), 40)
    assert sum(losses[-4:]) / 4 < 0.7 * math.log(6)
