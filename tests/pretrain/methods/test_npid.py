"""Both losses and the bank against their plain forms and published values."""

import math

import pytest
import torch

from tests.oracles import instances
from tests.pretrain.methods.steps import (
    Now,
    assert_same,
    assert_same_loss,
    batch_of,
    share_of,
    tiny_encoder,
    train,
)
from tests.processes import run_on_two
from visrep.errors import ConfigError
from visrep.nn.embeddings import unit
from visrep.pretrain.methods.npid import (
    NPID,
    chosen_logits,
    exact_softmax,
    noise_contrastive,
    proximity,
)

ONE = (16,)


def make() -> NPID:
    return NPID(encoder=tiny_encoder(), images=20, out_dim=16, negatives=12, proximal=0.5)


def make_exact() -> NPID:
    return NPID(encoder=tiny_encoder(), images=20, out_dim=16, negatives=0, temperature=0.1)


def test_noise_contrastive_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bank = torch.randn(9, 4, dtype=torch.float64)
    chosen = torch.randint(9, (3, 6))
    want = instances.noise_contrastive(f, bank, chosen, 0.5, 40.0)
    logits = chosen_logits(f, bank[chosen], 0.5)
    got = noise_contrastive(logits, torch.tensor(40.0, dtype=torch.float64), 9)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, f), torch.autograd.grad(want, f))


def test_exact_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    f = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    bank, index = torch.randn(9, 4, dtype=torch.float64), torch.tensor([8, 0, 3])
    want = instances.exact_softmax(f, bank, index, 0.5)
    got, found = exact_softmax(f, bank, index, 0.5)
    torch.testing.assert_close(got, want)
    torch.testing.assert_close(torch.autograd.grad(got, f), torch.autograd.grad(want, f))
    assert found.tolist() == (f @ bank.T).argmax(1).eq(index).tolist()


@pytest.mark.parametrize(("images", "want"), [(1281167, 9.44600), (50000, 9.32289)])
def test_known_values_of_equal_probabilities(images: int, want: float) -> None:
    logits = torch.zeros(2, 4097, dtype=torch.float64)  # P = 1 / Z = 1 / N
    z = torch.tensor(float(images), dtype=torch.float64)
    assert noise_contrastive(logits, z, images).item() == pytest.approx(want, abs=5e-6)


def test_known_value_of_equal_probabilities_without_epsilon() -> None:
    # e N vanishes for a small N; the sum over noise is a sum, not a mean.
    logits = torch.zeros(2, 4097, dtype=torch.float64)
    loss = noise_contrastive(logits, torch.tensor(2.0, dtype=torch.float64), 2)
    assert loss.item() == pytest.approx(9.31789, abs=1e-5)
    levels = NPID(encoder=tiny_encoder(), images=10).reference_levels(8)
    assert levels.loss_collapsed == pytest.approx(9.31789, abs=5e-6)


def test_known_values_of_the_first_step() -> None:
    torch.manual_seed(0)
    f, rows = unit(torch.randn(1024, 128)), unit(torch.randn(4097, 128))
    logits = f @ rows.T / 0.07
    images = 1000
    z = logits.exp().mean() * images
    assert (z / images).item() == pytest.approx(2.2, abs=0.05)
    assert noise_contrastive(logits, z, images).item() == pytest.approx(10.12, abs=0.12)


def test_known_values_of_the_exact_softmax() -> None:
    torch.manual_seed(0)
    bank = unit(torch.randn(50000, 128))
    f = unit(torch.randn(256, 128))
    index = torch.arange(256)
    assert exact_softmax(f, bank, index, 0.1)[0].item() == pytest.approx(11.2, abs=0.1)
    collapsed = torch.ones(4, 8, dtype=torch.float64)
    bank = torch.ones(50000, 8, dtype=torch.float64)
    loss, _ = exact_softmax(collapsed, bank, index[:4], 0.1)
    assert loss.item() == pytest.approx(10.8198, abs=5e-5)
    levels = NPID(encoder=tiny_encoder(), images=50000, negatives=0).reference_levels(8)
    assert levels.loss_collapsed == pytest.approx(10.8198, abs=5e-5)


def test_known_values_of_the_bank_and_the_proximal_term() -> None:
    task = NPID(encoder=tiny_encoder(), images=3, out_dim=2, negatives=0).double()
    task.bank.copy_(torch.tensor([[0.0, 1.0]] * 3))
    f = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    assert proximity(f, task.bank[1:2]).item() == 2.0
    task.new_rows.append((torch.tensor([1]), f))
    task.after_update(Now(1, 2))
    assert task.bank[1].tolist() == pytest.approx([0.7071, 0.7071], abs=5e-5)
    assert task.bank[0].tolist() == task.bank[2].tolist() == [0, 1]


def test_the_bank_starts_with_unit_length_in_the_mean() -> None:
    bank = NPID(encoder=tiny_encoder(), images=20000).bank
    assert bank.abs().max().item() == pytest.approx(math.sqrt(3 / 128), rel=1e-3)
    assert bank.square().sum(1).mean().item() == pytest.approx(1, rel=0.01)
    assert bank.norm(dim=1).std() > 0.01  # they are not normalised


@pytest.mark.parametrize("maker", [make, make_exact])
def test_a_step_in_order(maker: object) -> None:
    """The loss sees the old bank; the new rows come after; rows of other images stay."""
    task = maker().double().train()
    batch = batch_of(0, sizes=ONE)
    before, index = task.bank.clone(), batch["index"]
    out = task(batch)
    assert torch.equal(task.bank, before)
    f = unit(task.head(task.encoder(batch["views"][0])))
    if task.negatives:
        chosen = task._draw(index, batch["seed"])
        z = (f[:, None] * before[chosen]).sum(2).div(0.07).exp().mean().item() * 20
        assert task.normalizer.item() == pytest.approx(z)
        want = instances.noise_contrastive(f, before, chosen, 0.07, z)
        want = want + 0.5 * instances.proximity(f, before[index])
    else:
        want = instances.exact_softmax(f, before, index, 0.1)
    assert_same_loss(task, out["loss"], want)
    task.after_update(Now(1, 2))
    for row, own in enumerate(index.tolist()):
        torch.testing.assert_close(task.bank[own], instances.moved(before[own], f[row], 0.5))
    others = [i for i in range(20) if i not in index.tolist()]
    assert others and torch.equal(task.bank[others], before[others])
    assert not task.bank.requires_grad and not task.new_rows


def test_the_normaliser_is_set_once() -> None:
    task = make().double().train()
    task(batch_of(0, sizes=ONE))
    first = task.normalizer.clone()
    with torch.no_grad():
        task.head.layers[0].linear.weight.mul_(2)
    task(batch_of(1, sizes=ONE))
    assert torch.equal(task.normalizer, first) and first > 0


def test_noise_is_uniform_and_the_image_comes_first() -> None:
    task = NPID(encoder=tiny_encoder(), images=10, negatives=5000)
    index = torch.tensor([3, 7])
    chosen = task._draw(index, 5)
    assert torch.equal(chosen[:, 0], index)
    counts = torch.bincount(chosen[:, 1:].flatten(), minlength=10)
    assert counts.min() > 850 and counts.max() < 1150  # own images are not excluded
    assert torch.equal(task._draw(index, 5), chosen)
    assert not torch.equal(task._draw(index, 6), chosen)


def test_the_head_and_the_number_of_views() -> None:
    task = NPID(encoder=tiny_encoder(), images=10)
    (layer,) = task.head.layers
    assert layer.linear.weight.shape == (128, 32) and layer.linear.bias is not None
    with pytest.raises(ConfigError, match="makes 2"):
        task(batch_of(0))


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    torch.manual_seed(0)
    f, bank = unit(torch.randn(4, 128)), unit(torch.randn(50, 128))
    index = torch.arange(4)
    want, _ = exact_softmax(f, bank, index, 0.07)
    logits = chosen_logits(f, bank[index[:, None]], 0.07)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        got, _ = exact_softmax(f, bank, index, 0.07)
        assert torch.equal(chosen_logits(f, bank[index[:, None]], 0.07), logits)
    assert torch.equal(got, want)


def work(maker: object) -> dict[str, torch.Tensor]:
    return train(maker, batchnorm="local", sizes=ONE, lr=0.02, steps=4)


@pytest.mark.parametrize("maker", [make, make_exact])
def test_two_processes_equal_one_with_split_statistics(maker: object) -> None:
    one = train(maker, batchnorm="split", groups=2, sizes=ONE, lr=0.02, steps=4)
    for other in run_on_two(work, maker):
        assert_same(one, other)


def test_micro_batches_are_a_larger_batch() -> None:
    """Accumulation is allowed: in eval mode, where batch norm couples nothing, it is exact."""
    whole, parts = make_exact().double().eval(), make_exact().double().eval()
    batch = batch_of(0, sizes=ONE)
    whole(batch)["loss"].backward()
    for half in (slice(0, 4), slice(4, 8)):
        part = {**batch, "views": [batch["views"][0][half]], "index": batch["index"][half]}
        (parts(part)["loss"] / 2).backward()
    for p, q in zip(whole.parameters(), parts.parameters(), strict=True):
        torch.testing.assert_close(p.grad, q.grad)
    assert share_of(batch)["index"].tolist() == batch["index"].tolist()


def test_it_learns() -> None:
    task = NPID(encoder=tiny_encoder(), images=16, out_dim=16, negatives=0, temperature=0.2)
    task = task.double().train()
    optimizer = torch.optim.SGD(task.parameters(), 0.05, 0.9)
    losses = []
    for step in range(40):
        out = task(batch_of(step % 2, sizes=ONE) | {"index": torch.arange(8) + 8 * (step % 2)})
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        task.after_update(Now(step + 1, 40))
        losses.append(out["loss"].item())
    assert losses[-1] < 0.6 * math.log(16) and out["accuracy"] > 0.7
