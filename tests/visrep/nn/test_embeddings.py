"""Full precision under autocast, unit rows, and the spread that tells a collapse."""

import pytest
import torch

from visrep.errors import ConfigError
from visrep.nn.embeddings import full_precision, spread, two_views, unit


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


@pytest.mark.parametrize(("dim", "want"), [(128, 0.0884), (512, 0.0442), (2048, 0.0221)])
def test_spread_of_healthy_and_collapsed_embeddings(dim: int, want: float) -> None:
    torch.manual_seed(0)
    x = torch.randn(512, dim, requires_grad=True)
    assert spread(x).item() == pytest.approx(want, rel=0.01)
    assert not spread(x).requires_grad
    assert spread(torch.ones(16, dim) * 7).item() == pytest.approx(0, abs=1e-7)


def test_two_views_are_two() -> None:
    a, b = torch.zeros(2, 1), torch.ones(2, 1)
    assert two_views({"views": [a, b]}) == (a, b)
    with pytest.raises(ConfigError, match="makes 1"):
        two_views({"views": [a]})
