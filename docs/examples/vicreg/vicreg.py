"""VICReg: Variance-Invariance-Covariance Regularization for Self-Supervised Learning.

Bardes, Ponce and LeCun 2022, arXiv 2105.04906, equations 1 to 6 and algorithm 1.

    n  images on this process   B  images on all   D  embedding width
    a, b  embeddings of the two views
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep import dist
from visrep.nn.embeddings import full_precision, two_views
from visrep.nn.heads import MLP
from visrep.pretrain.method import Levels, Method

EPSILON = 1e-4  # below the square root of the variance


class VICReg(Method):
    """Two views agree, while every dimension keeps a spread of 1 and none repeats another.

    Args:
        encoder: what is trained.
        out_dim: D, and the hidden width of the expander.
        invariance, variance, covariance: weights of the three terms.
    """

    title = "VICReg"

    def __init__(
        self,
        *,
        encoder: nn.Module,
        out_dim: int = 8192,
        invariance: float = 25.0,
        variance: float = 25.0,
        covariance: float = 1.0,
    ) -> None:
        super().__init__()
        inner = {"out": out_dim, "bias": True, "norm": "affine", "relu": True}
        last = {"out": out_dim, "bias": True, "norm": "none", "relu": False}
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=[inner, inner, last])
        self.weights = (invariance, variance, covariance)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of the whole batch, the same on all processes."""
        mine = [self.head(self.encoder(view)) for view in two_views(batch)]  # n x D each
        a, b = (dist.gather_with_grad(z) for z in mine)  # B x D
        spread, overlap = variance(a) + variance(b), covariance(a) + covariance(b)
        terms = torch.stack([invariance(a, b), spread, overlap])
        loss = (terms * terms.new_tensor(self.weights)).sum()
        names = ("invariance", "variance", "covariance")
        logged = dict(zip(names, terms.detach(), strict=True))
        return {"loss": loss, "embeddings": mine[0].detach(), **logged}

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of a constant, whose two variance terms are all there is."""
        constant = 2 * self.weights[1] * (1 - EPSILON**0.5)
        return Levels(loss_collapsed=constant, knob="lower optim.lr, or a larger method.variance")


@full_precision
def invariance(a: Tensor, b: Tensor) -> Tensor:
    """Equation 5, |a - b|^2: mean over the B images, and over D as in algorithm 1."""
    return F.mse_loss(a, b)


@full_precision
def variance(z: Tensor) -> Tensor:
    """Equations 1 and 2: how far the deviation of a dimension is below 1, mean over D."""
    return F.relu(1 - (z.var(dim=0) + EPSILON).sqrt()).mean()


@full_precision
def covariance(z: Tensor) -> Tensor:
    """Equations 3 and 4: squared covariances of two dimensions, summed over the pairs, over D."""
    z = z - z.mean(dim=0)
    c = z.T @ z / (len(z) - 1)  # D x D
    return (c.square().sum() - c.diagonal().square().sum()) / len(c)
