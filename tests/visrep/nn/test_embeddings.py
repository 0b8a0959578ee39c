"""Full precision under autocast, unit rows, spread and rank, which tell a collapse."""

import math

import pytest
import torch

from visrep.errors import ConfigError
from visrep.nn.embeddings import effective_rank, full_precision, spread, two_views, unit


def test_full_precision_leaves_autocast_and_widens() -> None:
    @full_precision
    def product(a: torch.Tensor, b: torch.Tensor, *, count: int) -> torch.Tensor:
        return (a @ b) * count

    torch.manual_seed(0)
    a, b = torch.randn(8, 8), torch.randn(8, 8)
    want = (a @ b) * 2
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert (a @ b).dtype == torch.bfloat16
        assert torch.equal(product(a, b, count=2), want)
        assert product(a.bfloat16(), b=b, count=2).dtype == torch.float32
    assert product(a.double(), b.double(), count=1).dtype == torch.float64


def test_unit_rows() -> None:
    x = torch.tensor([[3.0, 4.0], [0.0, 0.0]])
    assert torch.equal(unit(x), torch.tensor([[0.6, 0.8], [0.0, 0.0]]))
    assert unit(x.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("dim", [128, 512, 2048])
def test_spread_of_healthy_and_collapsed_embeddings(dim: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(512, dim, requires_grad=True)
    assert spread(x).item() == pytest.approx(1, rel=0.01)
    assert not spread(x).requires_grad
    assert spread(torch.ones(16, dim) * 7).item() == pytest.approx(0, abs=1e-6)


def test_known_values_of_the_effective_rank() -> None:
    e = torch.eye(4)
    assert effective_rank(e).item() == pytest.approx(4)
    assert effective_rank(5 * e[[0] * 6]).item() == pytest.approx(1)
    assert effective_rank(torch.cat([e[:1], -2 * e[:1]])).item() == pytest.approx(1)  # a line
    assert effective_rank(e[[0, 0, 1, 1]]).item() == pytest.approx(2)
    # Three rows against one: singular values sqrt(3) and 1.
    a = 3**0.5 / (3**0.5 + 1)
    want = math.exp(-a * math.log(a) - (1 - a) * math.log(1 - a))
    assert effective_rank(e[[0, 0, 0, 1]]).item() == pytest.approx(want)
    assert effective_rank(e[[0, 0, 0, 1]].bfloat16()).item() == pytest.approx(want)
    torch.manual_seed(0)
    x = torch.randn(6, 50, dtype=torch.float64)
    turned = x @ torch.linalg.qr(torch.randn(50, 50, dtype=torch.float64))[0]
    torch.testing.assert_close(effective_rank(turned), effective_rank(x))
    torch.testing.assert_close(effective_rank(unit(x)), effective_rank(x))
    singular = torch.linalg.svdvals(unit(x))
    p = singular / singular.sum()
    torch.testing.assert_close(effective_rank(x), (-(p * p.log()).sum()).exp())


def test_the_effective_rank_of_what_is_not_finite_is_nan() -> None:
    x = torch.randn(4, 3)
    x[1, 2] = torch.nan
    assert effective_rank(x).isnan() and effective_rank(x.T).isnan()


def test_two_views_are_two() -> None:
    a, b = torch.zeros(2, 1), torch.ones(2, 1)
    assert two_views({"views": [a, b]}) == (a, b)
    with pytest.raises(ConfigError, match="makes 1"):
        two_views({"views": [a]})
