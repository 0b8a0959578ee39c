"""BYOL: Bootstrap Your Own Latent, a New Approach to Self-Supervised Learning.

Grill et al. 2020, arXiv 2006.07733, equations 1 to 3 and algorithm 1.

    n  images on this process   D  embedding width   tau  momentum of the target network
    z  projections of the online network   p  its predictions   t  projections of the target
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep.nn import ema
from visrep.nn.embeddings import full_precision, two_views
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Progress


class BYOL(Method):
    """From one view, predict what a moving average of the network makes of the other.

    The target network has no predictor and starts as a copy of the online one. (The published code
    draws it from another seed, which does as well.) Its batch statistics are its own, in train
    mode. Each view goes through each network alone, as in the published code.

    Args:
        encoder: what is trained, the online network.
        hidden_dim: of projector and predictor.
        out_dim: D.
        momentum: tau at the first step.
        final_momentum: tau at the end; a cosine leads there.
        predictor: False makes both networks collapse to a point (section 5).
    """

    title = "BYOL"
    coupled = False

    def __init__(
        self,
        *,
        encoder: ResNet,
        hidden_dim: int = 4096,
        out_dim: int = 256,
        momentum: float = 0.996,
        final_momentum: float = 1.0,
        predictor: bool = True,
    ) -> None:
        super().__init__()
        layers = [
            {"out": hidden_dim, "bias": True, "norm": "affine", "relu": True},
            {"out": out_dim, "bias": False, "norm": "none", "relu": False},
        ]
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=layers)
        self.predictor = MLP(in_dim=out_dim, layers=layers) if predictor else nn.Identity()
        self.target_encoder = ema.copy_of(self.encoder)
        self.target_head = ema.copy_of(self.head)
        self.momentum = momentum
        self.final_momentum = final_momentum

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The squared distances of both directions, summed: 0 to 8."""
        views = two_views(batch)  # n x 3 x h x w each
        z_a, z_b = (self.head(self.encoder(view)) for view in views)  # n x D
        p_a, p_b = self.predictor(z_a), self.predictor(z_b)
        with torch.no_grad():
            t_a, t_b = (self.target_head(self.target_encoder(view)) for view in views)
        loss = distance(p_a, t_b) + distance(p_b, t_a)
        return {"loss": loss, "embeddings": z_a.detach()}

    def after_update(self, progress: Progress) -> None:
        """The target follows the new weights; parameters only."""
        # Step k of K, the first being 0, has tau(k / K); by now it has been counted.
        tau = self.momentum_at((progress.step - 1) / progress.total)
        ema.update(self.target_encoder, self.encoder, momentum=tau)
        ema.update(self.target_head, self.head, momentum=tau)

    def momentum_at(self, fraction: float) -> float:
        """tau = tau_end - (tau_end - tau_0) (cos(pi k / K) + 1) / 2."""
        gap = self.final_momentum - self.momentum
        return self.final_momentum - gap * (math.cos(math.pi * fraction) + 1) / 2

    def passes(self, areas: Sequence[float]) -> float:
        """Both networks see all views."""
        return 4 * sum(areas)

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of collapsed and of unrelated features."""
        return Levels(
            loss_collapsed=0.0,
            loss_apart=4.0,
            knob="method.momentum nearer 1 and a lower optim.lr"
            if isinstance(self.predictor, MLP)
            else "method.predictor=true: without a predictor the two networks agree on a constant",
        )


@full_precision
def distance(prediction: Tensor, target: Tensor) -> Tensor:
    """|p/|p| - t/|t||^2 = 2 - 2 cos(p, t), equation 2: summed over D, mean over the n rows."""
    return 2 - 2 * F.cosine_similarity(prediction, target.detach(), dim=1).mean()
