"""SimSiam: Exploring Simple Siamese Representation Learning.

Chen and He 2021, arXiv 2011.10566, algorithm 1.

    n  images on this process   D  embedding width
    z  projections   p  predictions
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor

from visrep.nn.embeddings import full_precision, two_views
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method


class SimSiam(Method):
    """From one view, predict the projection of the other, which receives no gradient.

    Args:
        encoder: what is trained.
        projector_layers: 3 on ImageNet, 2 on small images; all of width D, batch norm on each,
            the last one without gamma, beta and ReLU.
        out_dim: D.
        predictor_dim: hidden width of the predictor, a bottleneck.
        stop_gradient: False makes the network collapse to a point (section 4.1).
    """

    title = "SimSiam"
    coupled = False

    def __init__(
        self,
        *,
        encoder: ResNet,
        projector_layers: int = 3,
        out_dim: int = 2048,
        predictor_dim: int = 512,
        stop_gradient: bool = True,
    ) -> None:
        super().__init__()
        inner = {"out": out_dim, "bias": False, "norm": "affine", "relu": True}
        # The published code has a bias here and freezes it: batch norm takes it away again.
        last = {"out": out_dim, "bias": False, "norm": "plain", "relu": False}
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=[inner] * (projector_layers - 1) + [last])
        self.predictor = MLP(
            in_dim=out_dim,
            layers=[
                {"out": predictor_dim, "bias": False, "norm": "affine", "relu": True},
                {"out": out_dim, "bias": True, "norm": "none", "relu": False},
            ],
        )
        self.stop_gradient = stop_gradient

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mean negative cosine of both directions, -1 to 1."""
        view_a, view_b = two_views(batch)  # n x 3 x h x w
        z_a, z_b = self.head(self.encoder(view_a)), self.head(self.encoder(view_b))  # n x D
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)  # n x D
        t_a, t_b = (z_a.detach(), z_b.detach()) if self.stop_gradient else (z_a, z_b)
        loss = (negative_cosine(p_a, t_b) + negative_cosine(p_b, t_a)) / 2
        return {"loss": loss, "embeddings": z_a.detach()}

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of collapsed and of unrelated features."""
        return Levels(
            loss_collapsed=-1.0,
            loss_apart=0.0,
            knob="lower optim.lr; the predictor keeps its own (optim.fixed_lr=[predictor])"
            if self.stop_gradient
            else "method.stop_gradient=true: without it a constant is the best answer",
        )


@full_precision
def negative_cosine(p: Tensor, z: Tensor) -> Tensor:
    """-cos(p, z), equation 1: mean over the n rows."""
    return -F.cosine_similarity(p, z, dim=1).mean()
