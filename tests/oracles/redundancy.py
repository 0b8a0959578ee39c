"""Barlow Twins as the paper writes it: equations 1 and 2 in loops."""

from torch import Tensor


def standardize(z: Tensor, eps: float = 1e-5) -> list[list[Tensor]]:
    """Every column of B x D to mean 0 and (biased) variance 1."""
    count, dim = z.shape
    out: list[list[Tensor]] = [[] for _ in range(count)]
    for d in range(dim):
        mean = sum(z[b, d] for b in range(count)) / count
        var = sum((z[b, d] - mean) ** 2 for b in range(count)) / count
        for b in range(count):
            out[b].append((z[b, d] - mean) / (var + eps) ** 0.5)
    return out


def barlow_twins(z_a: Tensor, z_b: Tensor, weight: float, eps: float = 1e-5) -> Tensor:
    """z_a, z_b: B x D embeddings before standardisation."""
    a, b = standardize(z_a, eps), standardize(z_b, eps)
    count, dim = z_a.shape
    loss = z_a.new_zeros(())
    for i in range(dim):
        for j in range(dim):
            c = sum(a[k][i] * b[k][j] for k in range(count)) / count
            loss = loss + ((1 - c) ** 2 if i == j else weight * c**2)
    return loss
