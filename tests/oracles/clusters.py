"""SwAV's codes and loss in loops over samples, prototypes and crops."""

import math

import torch
from torch import Tensor


def sinkhorn(scores: list[list[float]], epsilon: float, iterations: int) -> list[list[float]]:
    """Codes of B samples over K prototypes: plain floats, rows are samples."""
    count, k = len(scores), len(scores[0])
    q = [[math.exp(s / epsilon) for s in row] for row in scores]
    for _ in range(iterations):
        for j in range(k):
            total = sum(q[i][j] for i in range(count))
            for i in range(count):
                q[i][j] /= total * k
        for i in range(count):
            total = sum(q[i])
            q[i] = [value / (total * count) for value in q[i]]
    return [[value * count for value in row] for row in q]


def swav(
    z: list[Tensor],
    prototypes: Tensor,
    *,
    temperature: float,
    epsilon: float,
    iterations: int,
    queues: list[Tensor] | None = None,
) -> Tensor:
    """Equation 1, summed over crops: z holds V tensors n x D of unit rows, prototypes K x D.

    `queues`: earlier embeddings of the two assigned crops, Q x D each.
    """
    n, k = len(z[0]), len(prototypes)

    def score(vector: Tensor, j: int) -> Tensor:
        return sum(vector[d] * prototypes[j, d] for d in range(len(vector)))

    total = z[0].new_zeros(())
    for a in (0, 1):
        rows = [*(queues[a] if queues else []), *z[a]]
        scores = [[score(row, j).item() for j in range(k)] for row in rows]
        codes = sinkhorn(scores, epsilon, iterations)[-n:]
        for v in range(len(z)):
            if v == a:
                continue
            for i in range(n):
                exps = [(score(z[v][i], j) / temperature).exp() for j in range(k)]
                for j in range(k):
                    term = codes[i][j] * torch.log(exps[j] / sum(exps))
                    total = total - term / n / (len(z) - 1) / 2
    return total
