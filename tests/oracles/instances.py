"""NPID's losses and bank, one image and one noise sample at a time."""

import torch
from torch import Tensor


def dot(a: Tensor, b: Tensor) -> Tensor:
    return sum(x * y for x, y in zip(a, b, strict=True))


def noise_contrastive(
    f: Tensor, bank: Tensor, chosen: Tensor, temperature: float, z: float, eps: float = 1e-7
) -> Tensor:
    """Equations 5 to 7. chosen: n x (1 + K) rows of the bank, the image itself first."""
    images, k = len(bank), chosen.shape[1] - 1
    total = f.new_zeros(())
    for i in range(len(f)):
        for column, row in enumerate(chosen[i].tolist()):
            p = (dot(f[i], bank[row]) / temperature).exp() / z
            noise = k / images
            if column == 0:
                total = total - torch.log(p / (p + noise + eps))
            else:
                total = total - torch.log(noise / (p + noise + eps))
    return total / len(f)


def exact_softmax(f: Tensor, bank: Tensor, index: Tensor, temperature: float) -> Tensor:
    """Equation 2."""
    total = f.new_zeros(())
    for i, own in enumerate(index.tolist()):
        exps = [(dot(f[i], row) / temperature).exp() for row in bank]
        total = total - torch.log(exps[own] / sum(exps))
    return total / len(f)


def proximity(f: Tensor, rows: Tensor) -> Tensor:
    """The proximal term of equation 9, mean over images."""
    total = f.new_zeros(())
    for i in range(len(f)):
        total = total + sum((x - y) ** 2 for x, y in zip(f[i], rows[i], strict=True))
    return total / len(f)


def moved(row: Tensor, f: Tensor, momentum: float) -> Tensor:
    """A row of the bank after its image was seen."""
    mixed = [momentum * x + (1 - momentum) * y for x, y in zip(row, f, strict=True)]
    length = sum(x * x for x in mixed) ** 0.5
    return torch.stack([x / length for x in mixed])
