"""NT-Xent and InfoNCE as the papers write them: one anchor, one exponential at a time."""

from torch import Tensor


def cosine(a: Tensor, b: Tensor) -> Tensor:
    dot = sum(a[d] * b[d] for d in range(len(a)))
    return dot / (sum(x * x for x in a) ** 0.5 * sum(x * x for x in b) ** 0.5)


def nt_xent(
    first: Tensor, second: Tensor, temperature: float, memory: Tensor | None = None
) -> Tensor:
    """SimCLR, algorithm 1. first, second: B x D embeddings of any length, row i of one image."""
    views = [z for pair in zip(first, second, strict=True) for z in pair]  # 2k-1 and 2k: a pair
    total = first.new_zeros(())
    for i, z in enumerate(views):
        partner = i + 1 if i % 2 == 0 else i - 1
        denominator = first.new_zeros(())
        for j, other in enumerate(views):
            if j != i:
                denominator = denominator + (cosine(z, other) / temperature).exp()
        for other in memory if memory is not None else ():
            denominator = denominator + (cosine(z, other) / temperature).exp()
        numerator = (cosine(z, views[partner]) / temperature).exp()
        total = total - (numerator / denominator).log()
    return total / len(views)


def info_nce(q: Tensor, k: Tensor, queue: Tensor, temperature: float) -> Tensor:
    """MoCo, equation 1. q, k: n x D; queue: K x D."""
    total = q.new_zeros(())
    for i in range(len(q)):
        positive = (cosine(q[i], k[i].detach()) / temperature).exp()
        denominator = positive
        for entry in queue:
            denominator = denominator + (cosine(q[i], entry) / temperature).exp()
        total = total - (positive / denominator).log()
    return total / len(q)
