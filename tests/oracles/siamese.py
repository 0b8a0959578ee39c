"""BYOL and SimSiam as the papers write them, one sample and one dimension at a time."""

from torch import Tensor


def norm(a: Tensor) -> Tensor:
    return sum(x * x for x in a) ** 0.5


def byol(p_a: Tensor, p_b: Tensor, t_a: Tensor, t_b: Tensor) -> Tensor:
    """Equation 2 and its mirror image, summed. p: predictions, t: targets, n x D, of views a, b."""
    total = p_a.new_zeros(())
    for p, t in ((p_a, t_b), (p_b, t_a)):
        for i in range(len(p)):
            target = t[i].detach()
            for d in range(p.shape[1]):
                total = total + (p[i, d] / norm(p[i]) - target[d] / norm(target)) ** 2
    return total / len(p_a)


def simsiam(p_a: Tensor, p_b: Tensor, z_a: Tensor, z_b: Tensor) -> Tensor:
    """Equations 1 to 4. p: predictions, z: projections."""
    total = p_a.new_zeros(())
    for p, z in ((p_a, z_b), (p_b, z_a)):
        for i in range(len(p)):
            target = z[i].detach()
            dot = sum(p[i, d] * target[d] for d in range(p.shape[1]))
            total = total - dot / (norm(p[i]) * norm(target)) / 2
    return total / len(p_a)
