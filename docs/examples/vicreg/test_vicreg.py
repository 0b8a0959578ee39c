"""The three terms against plain loops, and a step of the whole method.

In this folder: python -m pytest test_vicreg.py
"""

import math

import pytest
import torch
from vicreg import EPSILON, VICReg, covariance, invariance, variance

from visrep.nn.resnet import ResNet
from visrep.pretrain.method import require_contract


def loops(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Equation 6 with the weights 25, 25, 1, number by number."""
    count, width = a.shape
    agree = sum((a[i, j] - b[i, j]) ** 2 for i in range(count) for j in range(width))
    loss = 25 * agree / (count * width)
    for z in (a, b):
        mean = [sum(z[i, j] for i in range(count)) / count for j in range(width)]
        for j in range(width):
            for k in range(width):
                terms = [(z[i, j] - mean[j]) * (z[i, k] - mean[k]) for i in range(count)]
                c = sum(terms) / (count - 1)
                if j == k:
                    short = 1 - (c + EPSILON).sqrt()
                    loss = loss + 25 * (short if short > 0 else 0 * short) / width
                else:
                    loss = loss + c**2 / width
    return loss


def test_loss_and_gradient_are_those_of_the_loops():
    torch.manual_seed(0)
    scale = torch.tensor([0.2, 0.7, 1.5, 3.0], dtype=torch.float64)  # on both sides of the hinge
    a, b = (scale * torch.randn(2, 6, 4, dtype=torch.float64)).requires_grad_()
    loss = 25 * invariance(a, b) + 25 * (variance(a) + variance(b)) + covariance(a) + covariance(b)
    torch.testing.assert_close(loss, loops(a, b))
    for got, want in zip(
        torch.autograd.grad(loss, (a, b)), torch.autograd.grad(loops(a, b), (a, b)), strict=True
    ):
        torch.testing.assert_close(got, want)


def test_known_values():
    constant = torch.ones(8, 3, dtype=torch.float64)
    assert variance(constant).item() == pytest.approx(1 - math.sqrt(EPSILON))
    assert covariance(constant).item() == 0 and invariance(constant, constant + 2).item() == 4
    twice = torch.tensor([[1.0, 1.0], [-1.0, -1.0]], dtype=torch.float64)  # covariance 2
    assert covariance(twice).item() == pytest.approx(2 * 2**2 / 2) and variance(twice).item() == 0


def test_the_method_keeps_the_contract_and_its_forward_is_the_loss():
    torch.manual_seed(0)
    encoder = ResNet(depth=18, width=1 / 16, stem="small", zero_init_residual=False)
    method = VICReg(encoder=encoder, out_dim=8).double().train()
    require_contract(method, batch_size=6)
    views = torch.rand(2, 6, 3, 16, 16, dtype=torch.float64)
    out = method({"views": list(views), "seed": 0})
    torch.testing.assert_close(out["loss"], loops(*(method.head(encoder(v)) for v in views)))
    assert not any(value.requires_grad for name, value in out.items() if name != "loss")
    constant = method.reference_levels(6).loss_collapsed
    assert constant == pytest.approx(loops(*torch.ones(2, 6, 8, dtype=torch.float64)).item())
