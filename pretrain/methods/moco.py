"""MoCo: Momentum Contrast for Unsupervised Visual Representation Learning.

He et al. 2020, arXiv 1911.05722, algorithm 1; and v2, Improved Baselines with Momentum Contrastive
Learning, arXiv 2003.04297: an MLP head and T = 0.2 (and, in its yaml, other views and a cosine).

    n  images on this process   B  images on all   D  embedding width   K  queue size
    q  queries   k  keys (no gradient)   m  momentum   T  temperature
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visrep import dist
from visrep.nn import ema
from visrep.nn.embeddings import full_precision, spread, two_views, unit
from visrep.nn.heads import MLP, moco_head
from visrep.nn.queues import Queue
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Plan, Progress


class MoCo(Method):
    """A query finds its key, made by a moving average of the network, among a queue of old keys.

    The order of a step is the published one: query; key network moved to
    m * keys + (1 - m) * queries; keys of the shuffled batch, in train mode; logits against the
    queue; the queue takes the keys. The last waits until the weights have been updated, as does
    the moving average of the next step, whose weights are the same then: so the loss never sees
    its own keys among the negatives, and a forward has no lasting effect.

    Args:
        encoder: what is trained, the query network.
        mlp: head of two layers (v2) or one (v1).
        out_dim: D.
        queue_size: K, a multiple of the total batch size.
        momentum: m.
        temperature: T; 0.07 in v1, 0.2 in v2.
        symmetric: both views are queries once, the loss is the mean of the two directions, and the
            queue takes the keys of both (the authors' CIFAR recipe).
        shuffle: keys are normalised among other samples than their queries (section 3.3). False is
            plain batch norm, by which a query can tell its key.
    """

    batchnorm = "shuffle"  # statistics per process; keys are normalised among other samples
    coupled = False

    def __init__(
        self,
        *,
        encoder: ResNet,
        mlp: bool = True,
        out_dim: int = 128,
        queue_size: int = 65536,
        momentum: float = 0.999,
        temperature: float = 0.2,
        symmetric: bool = False,
        shuffle: bool = True,
    ) -> None:
        super().__init__()
        self.title = "MoCo v2" if mlp else "MoCo v1"
        layers = moco_head(hidden=encoder.out_dim if mlp else None, out_dim=out_dim)
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=layers)
        self.key_encoder = ema.copy_of(self.encoder)
        self.key_head = ema.copy_of(self.head)
        self.queue = Queue(size=queue_size, dim=out_dim)
        self.momentum = momentum
        self.temperature = temperature
        self.symmetric = symmetric
        self.shuffle = shuffle
        self.new_keys: list[Tensor] = []  # wait for the end of the step

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """InfoNCE of this process' queries against their keys and the queue."""
        view_q, view_k = two_views(batch)  # n x 3 x h x w
        self.queue.check(len(view_q) * dist.world_size())
        out = self._direction(view_q, view_k, batch["seed"])
        if self.symmetric:
            back = self._direction(view_k, view_q, batch["seed"] + 1)
            out |= {name: (out[name] + back[name]) / 2 for name in ("loss", "accuracy")}
        return out

    def _direction(self, view_q: Tensor, view_k: Tensor, seed: int) -> dict[str, Tensor]:
        q = unit(self.head(self.encoder(view_q)))  # n x D
        k = dist.shuffled(self._keys, view_k, seed) if self.shuffle else self._keys(view_k)
        loss, accuracy = info_nce(q, k, self.queue.keys, temperature=self.temperature)
        if self.training:
            self.new_keys.append(k)
        return {"loss": loss, "accuracy": accuracy, "embeddings": q.detach()}

    @torch.no_grad()
    def _keys(self, x: Tensor) -> Tensor:
        return unit(self.key_head(self.key_encoder(x)))  # n x D

    def after_update(self, progress: Progress) -> None:
        """The queue takes the keys of all processes; the key network follows the new weights."""
        for k in self.new_keys:
            self.queue.push(dist.gather(k))
        self.new_keys.clear()
        ema.update(self.key_encoder, self.encoder, momentum=self.momentum)
        ema.update(self.key_head, self.head, momentum=self.momentum)

    def measures(self) -> dict[str, Tensor]:
        """How far the keys of the queue are spread: 1 at the start, which is random."""
        return {"queue_spread": spread(self.queue.keys)}

    def check(self, plan: Plan) -> list[str]:
        """Refuse a queue that the batch does not fill evenly."""
        lines = super().check(plan)
        self.queue.check(plan.batch_size)
        size = len(self.queue.keys)
        if size > plan.images:
            lines.append(
                f"method.queue_size={size} holds more keys than there are images ({plan.images}): "
                "an image's own key of the last epoch is among its negatives; use a shorter queue"
            )
        return lines

    def passes(self, areas: Sequence[float]) -> float:
        """A query is trained on, a key is not; the symmetric form makes both of every view."""
        query, key = areas
        return 4 * (query + key) if self.symmetric else 3 * query + key

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss and the accuracy of features that say nothing."""
        negatives = len(self.queue.keys)
        return Levels(
            loss_collapsed=math.log(1 + negatives),
            knob="lower optim.lr, or method.momentum nearer 1 for keys that agree with the queue",
            others={"accuracy_chance": 1 / (1 + negatives)},
        )


@full_precision
def info_nce(q: Tensor, k: Tensor, queue: Tensor, *, temperature: float) -> tuple[Tensor, Tensor]:
    """-log( exp(q.k / T) / (exp(q.k / T) + sum_j exp(q.queue_j / T)) ), equation 1: mean, accuracy.

    q, k: n x D unit vectors, row i of k the key of row i of q; queue: K x D. Only q has a gradient.
    """
    positive = (q * k.detach()).sum(dim=1, keepdim=True)  # n x 1
    negative = q @ queue.T  # n x K
    logits = torch.cat([positive, negative], dim=1) / temperature  # n x (1 + K)
    target = torch.zeros(len(q), dtype=torch.int64, device=q.device)
    accuracy = (logits.detach().argmax(dim=1) == target).float().mean()
    return F.cross_entropy(logits, target), accuracy
