"""The loss against its plain form and published values; standardisation; two processes."""

import pytest
import torch

from tests.oracles import redundancy
from tests.pretrain.methods.steps import (
    assert_same,
    assert_same_loss,
    batch_of,
    tiny_encoder,
    train,
)
from tests.processes import run_on_two
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.pretrain.methods.barlow_twins import BarlowTwins, correlation, parts


def make() -> BarlowTwins:
    return BarlowTwins(encoder=tiny_encoder(), out_dim=8, off_diagonal_weight=0.01)


def loss_of(a: torch.Tensor, b: torch.Tensor, weight: float = 0.0051) -> float:
    """The loss of embeddings, B x D."""
    standardize = BatchNorm(a.shape[1], affine=False).to(a.dtype)
    on, off = parts(correlation(standardize(a), standardize(b)))
    return (on + weight * off).item()


def test_loss_and_gradient_equal_the_oracle() -> None:
    torch.manual_seed(0)
    task = make().double().train()
    for size in (2, 6):
        leaves = torch.randn(2, size, 8, dtype=torch.float64, requires_grad=True)
        want = redundancy.barlow_twins(leaves[0], leaves[1], 0.01)
        (want_gradient,) = torch.autograd.grad(want, leaves)
        a, b = task.standardize(leaves[0]), task.standardize(leaves[1])
        on, off = parts(correlation(a, b))
        got = on + 0.01 * off
        (gradient,) = torch.autograd.grad(got, leaves)
        torch.testing.assert_close(got, want)
        torch.testing.assert_close(gradient, want_gradient, atol=1e-8, rtol=1e-6)


H = {
    "plus": (1.0, -1, 1, -1),
    "halves": (1.0, 1, -1, -1),
    "ends": (1.0, -1, -1, 1),
}


def columns(*names: str) -> torch.Tensor:
    return torch.tensor([H[name] for name in names], dtype=torch.float64).T


@pytest.mark.parametrize(
    ("a", "b", "want"),
    [
        (columns("plus", "halves"), columns("plus", "halves"), 0.0),
        (columns("plus", "plus"), columns("plus", "plus"), 0.0102),
        (columns("plus", "halves"), -columns("plus", "halves"), 8.0),
        (columns("plus", "halves"), columns("halves", "plus"), 2.0102),
        (columns("halves", "plus"), columns("halves", "ends"), 1.0),
    ],
)
def test_known_values(a: torch.Tensor, b: torch.Tensor, want: float) -> None:
    # 1e-4: batch norm's eps takes 1e-5 off the diagonal.
    assert loss_of(a, b) == pytest.approx(want, abs=2e-4)
    assert loss_of(3 * a + 7, b) == pytest.approx(want, abs=2e-4)  # scale and offset do not matter


def test_the_variance_is_biased() -> None:
    a = columns("plus", "halves")
    standardize = BatchNorm(2, affine=False).double()
    c = correlation(standardize(a), standardize(a))
    torch.testing.assert_close(c.diagonal(), torch.ones(2, dtype=torch.float64), atol=2e-5, rtol=0)


def test_known_values_of_independent_features() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 256, 2048)
    assert loss_of(a, b) == pytest.approx(2139.5, rel=0.01)
    levels = BarlowTwins(encoder=tiny_encoder(), out_dim=2048).reference_levels(256)
    chance = levels.others["on_diagonal_chance"] + 0.0051 * levels.others["off_diagonal_chance"]
    assert chance == pytest.approx(2139.5, rel=1e-3)


def test_known_values_of_independent_features_at_full_size() -> None:
    """D (1 + 1/B) on the diagonal and D (D - 1) / B beside it, as measured on a smaller size."""

    def expected(dim: int, batch: int) -> float:
        return dim * (1 + 1 / batch) + 0.0051 * dim * (dim - 1) / batch

    torch.manual_seed(0)
    a, b = torch.randn(2, 64, 512)
    assert loss_of(a, b) == pytest.approx(expected(512, 64), rel=0.01)
    assert expected(2048, 256) == pytest.approx(2139.5, abs=0.5)
    assert expected(8192, 2048) == pytest.approx(8363, abs=0.5)


def test_known_values_of_equal_dimensions() -> None:
    on, off = parts(torch.ones(2048, 2048))
    assert on == 0
    assert 0.0051 * off.item() == pytest.approx(21380.5, rel=1e-5)
    for dim, want in ((2048, 21380.5), (8192, 342213)):
        task = BarlowTwins(encoder=tiny_encoder(), out_dim=dim, projector_layers=1)
        levels = task.reference_levels(256)
        assert levels.others["loss_equal_dimensions"] == pytest.approx(want, rel=1e-5)
        assert levels.loss_collapsed == dim  # a constant, which is the cheaper one here


def test_the_projector_and_the_standardisation() -> None:
    task = BarlowTwins(encoder=tiny_encoder(), out_dim=64)
    first, second, last = task.head.layers
    for layer in (first, second):
        assert layer.linear.bias is None and isinstance(layer.norm, BatchNorm)
        assert layer.norm.bias is not None
    assert last.linear.bias is None and not isinstance(last.norm, BatchNorm)
    assert not list(task.standardize.parameters())
    assert len(BarlowTwins(encoder=tiny_encoder(), projector_layers=2).head.layers) == 2


def test_forward_is_the_loss_of_both_views() -> None:
    task = make().double().train()
    batch = batch_of(0)
    out = task(batch)
    z_a, z_b = (task.head(task.encoder(view)) for view in batch["views"])  # no unit length
    want = redundancy.barlow_twins(z_a, z_b, 0.01)
    assert torch.equal(out["embeddings"], z_a) and not out["embeddings"].requires_grad
    assert_same_loss(task, out["loss"], want)
    torch.testing.assert_close(out["on_diagonal"] + 0.01 * out["off_diagonal"], want.detach())
    task.loss_scale = 0.024
    torch.testing.assert_close(task(batch)["loss"], 0.024 * want)
    with pytest.raises(ConfigError, match="makes 1"):
        task(batch_of(0, sizes=(16,)))


def test_the_loss_stays_in_full_precision_under_autocast() -> None:
    task = make().train()
    batch = batch_of(0)
    batch["views"] = [view.float() for view in batch["views"]]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        z_a, z_b = (task.head(task.encoder(view)) for view in batch["views"])
        out = task(batch)
    assert z_a.dtype == torch.bfloat16 and out["loss"].dtype == torch.float32
    want = redundancy.barlow_twins(z_a.double(), z_b.double(), 0.01)
    assert out["loss"].item() == pytest.approx(want.item(), rel=1e-5)


def work() -> dict[str, torch.Tensor]:
    return train(make, batchnorm="sync", lr=0.01)


def test_two_processes_equal_one() -> None:
    one = train(make, batchnorm="sync", lr=0.01)
    for other in run_on_two(work):
        assert_same(one, other)


def test_it_learns() -> None:
    task = make().double().train()
    optimizer = torch.optim.SGD(task.parameters(), 0.01, 0.9)
    losses = []
    for step in range(40):
        out = task(batch_of(step % 4))
        optimizer.zero_grad()
        out["loss"].backward()
        optimizer.step()
        losses.append(out["loss"].item())
    assert sum(losses[-4:]) < 0.5 * sum(losses[:4])
