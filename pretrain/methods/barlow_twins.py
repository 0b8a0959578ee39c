"""Barlow Twins: Self-Supervised Learning via Redundancy Reduction.

Zbontar et al. 2021, arXiv 2103.03230, equations 1 and 2, algorithm 1.

    n  images on this process   B  images on all   D  embedding width
    a, b  embeddings of the two views, standardised over the whole batch   C  their correlation
"""

from typing import Any

from torch import Tensor

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.embeddings import full_precision, two_views, widen
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Plan


class BarlowTwins(Method):
    """Embedding dimensions agree between two views of an image and are independent of each other.

    Gradients are those of the loss of the whole batch, on any number of processes. (In the
    published code every process differentiates only its own part of C, so that its gradients are
    smaller by the number of processes; LARS cancels this for weights, not for biases and norms.)

    Args:
        encoder: what is trained.
        out_dim: D, and the hidden width.
        projector_layers: 3 on ImageNet; batch norm and ReLU after all but the last.
        off_diagonal_weight: lambda. It belongs to a width: off the diagonal are D (D - 1) terms.
        loss_scale: factor of the loss; 0.024 in the code of the paper's number, which had one
            learning rate for weights and biases.
    """

    title = "Barlow Twins"

    def __init__(
        self,
        *,
        encoder: ResNet,
        out_dim: int = 8192,
        projector_layers: int = 3,
        off_diagonal_weight: float = 0.0051,
        loss_scale: float = 1.0,
    ) -> None:
        super().__init__()
        inner = {"out": out_dim, "bias": False, "norm": "affine", "relu": True}
        last = {"out": out_dim, "bias": False, "norm": "none", "relu": False}
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=[inner] * (projector_layers - 1) + [last])
        self.standardize = BatchNorm(out_dim, affine=False)  # one for both views
        self.off_diagonal_weight = off_diagonal_weight
        self.loss_scale = loss_scale

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of the whole batch, the same on all processes."""
        view_a, view_b = two_views(batch)  # n x 3 x h x w
        z_a, z_b = self.head(self.encoder(view_a)), self.head(self.encoder(view_b))  # n x D
        a, b = self.standardize(widen(z_a)), self.standardize(widen(z_b))  # n x D
        c = correlation(a, b)  # D x D
        on, off = parts(c)
        loss = self.loss_scale * (on + self.off_diagonal_weight * off)
        return {
            "loss": loss,
            "on_diagonal": on.detach(),
            "off_diagonal": off.detach(),
            "embeddings": z_a.detach(),
        }

    def check(self, plan: Plan) -> list[str]:
        """Refuse a batch without a correlation."""
        if plan.batch_size < 2:
            raise ConfigError(
                f"batch_size={plan.batch_size}: Barlow Twins correlates dimensions over a batch; "
                "give at least 2"
            )
        return super().check(plan)

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of constant or of D equal dimensions, the terms of independent features."""
        dim = self.head.out_dim
        equal = self.off_diagonal_weight * dim * (dim - 1)
        return Levels(
            loss_collapsed=self.loss_scale * min(dim, equal),  # constant: C = 0
            knob="lower optim.lr (and optim.excluded_lr) or lengthen optim.warmup_epochs; "
            "method.off_diagonal_weight grows as method.out_dim shrinks",
            others={
                "loss_equal_dimensions": self.loss_scale * equal,
                "on_diagonal_chance": dim * (1 + 1 / batch_size),
                "off_diagonal_chance": dim * (dim - 1) / batch_size,
            },
        )


@full_precision
def correlation(a: Tensor, b: Tensor) -> Tensor:
    """C = a^T b / B over all processes, D x D, equation 2; a, b: n x D, standardised."""
    return dist.sum_with_grad(a.T @ b) / (len(a) * dist.world_size())


@full_precision
def parts(c: Tensor) -> tuple[Tensor, Tensor]:
    """The two terms of equation 1: sum_i (1 - C_ii)^2 and sum_{i != j} C_ij^2."""
    diagonal = c.diagonal()
    return (diagonal - 1).square().sum(), c.square().sum() - diagonal.square().sum()
