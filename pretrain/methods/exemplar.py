"""Exemplar-CNN: Discriminative Unsupervised Feature Learning with Exemplar CNNs.

Dosovitskiy et al. 2014, arXiv 1406.6909 (v2).

    n  samples on this process   B  samples on all   N  surrogate classes   D  width of the features
    f  features   i  surrogate class of a sample

What a surrogate class is, and how its samples come about, is
`visrep.data.exemplar.surrogate_classes`.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn.embeddings import full_precision
from visrep.nn.heads import MLP, moco_head
from visrep.pretrain.method import Levels, Method, Plan


class Exemplar(Method):
    """Tell which seed a transformed patch was made from: softmax over the N surrogate classes.

    Args:
        encoder: what is trained.
        classes: N.
        dropout: share of the features that is dropped, on the paper's full layer.
    """

    title = "Exemplar-CNN"
    views = 1
    batchnorm = "local"
    coupled = False
    judge = "svm"  # the paper's

    def __init__(self, *, encoder: nn.Module, classes: int = 8000, dropout: float = 0.5) -> None:
        super().__init__()
        if not 0 <= dropout < 1:
            raise ConfigError(f"method.dropout={dropout}: give a share, 0 or more and less than 1")
        self.encoder = encoder
        self.dropout = dropout
        out_dim: int = encoder.out_dim  # type: ignore[assignment]
        self.head = MLP(in_dim=out_dim, layers=moco_head(out_dim=classes))
        # Small weights: the first loss is ln N.
        linear = self.head.layers[0].linear
        nn.init.normal_(linear.weight, std=0.01)  # type: ignore[union-attr,arg-type]
        nn.init.zeros_(linear.bias)  # type: ignore[union-attr,arg-type]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Cross entropy of this process' samples, whose classes are `index`."""
        if len(batch["views"]) != 1:
            raise ConfigError(
                f"Exemplar-CNN takes one sample at a time; views= makes {len(batch['views'])}"
            )
        x = batch["views"][0]
        index = batch["index"].to(x.device)  # n
        f = self.encoder(x)  # n x D
        logits = self.head(self._dropped(f, batch["seed"]))  # n x N
        return {
            "loss": surrogate_loss(logits, index),
            "accuracy": (logits.detach().argmax(dim=1) == index).float().mean(),
            "embeddings": f.detach(),
        }

    def _dropped(self, f: Tensor, seed: int) -> Tensor:
        if not self.training or not self.dropout:
            return f
        # Drawn for the whole batch from its seed, so that neither the number of processes nor a
        # resumed run changes anything.
        n, first = len(f), len(f) * dist.rank()
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.rand(n * dist.world_size(), f.shape[1], generator=generator)
        kept = (drawn[first : first + n] >= self.dropout).to(f.device, non_blocking=True)
        return f * kept / (1 - self.dropout)

    def check(self, plan: Plan) -> list[str]:
        """Refuse classes that the data does not have."""
        lines = super().check(plan)
        if plan.images != self.head.out_dim:
            raise ConfigError(
                f"method.classes={self.head.out_dim}, but the data has {plan.images} classes: set "
                "views.classes, which method.classes follows, in a recipe of views/exemplar"
            )
        return lines

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss and the accuracy of features that say nothing."""
        classes = self.head.out_dim
        return Levels(
            loss_collapsed=math.log(classes),
            knob="lower optim.lr, or begin with fewer classes (views.classes=)",
            others={"accuracy_chance": 1 / classes},
        )


@full_precision
def surrogate_loss(logits: Tensor, index: Tensor) -> Tensor:
    """-log softmax of the own class, mean over the n samples; logits n x N."""
    return F.cross_entropy(logits, index)
