"""SwAV: Unsupervised Learning of Visual Features by Contrasting Cluster Assignments.

Caron et al. 2020, arXiv 2006.09882, equations 1 to 5, appendix A.1 (algorithm 1).

    n  images on this process   B  images on all   V  crops of an image   D  embedding width
    z  unit embeddings   C  prototypes, unit rows   K  their number   s = z C^T  scores
    q  codes   T  temperature   eps  smoothness of the codes
"""

import math
from itertools import groupby
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn.embeddings import full_precision, spread, unit
from visrep.nn.heads import MLP
from visrep.nn.queues import Queue
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Plan, Progress

ASSIGNED = 2  # the first two crops get codes, which all other crops predict


class SwAV(Method):
    """Predict from every crop of an image the cluster code that another crop of it gets.

    Codes spread the whole batch evenly over the prototypes (Sinkhorn); they carry no gradient.

    Args:
        encoder: what is trained.
        hidden_dim: of the head.
        out_dim: D.
        prototypes: K.
        temperature: T.
        epsilon: eps of the codes; larger is smoother.
        iterations: of Sinkhorn.
        freeze_steps: first steps in which the prototypes stay as they are drawn: about an epoch.
        queue_size: embeddings of earlier steps, per assigned crop and over all processes, that
            join the batch when codes are made; 0 for none, a multiple of the total batch size.
        queue_start: step at which the queue begins to fill; it is used once it is full.
    """

    title = "SwAV"
    views = None  # two crops or more

    def __init__(
        self,
        *,
        encoder: ResNet,
        hidden_dim: int = 2048,
        out_dim: int = 128,
        prototypes: int = 3000,
        temperature: float = 0.1,
        epsilon: float = 0.05,
        iterations: int = 3,
        freeze_steps: int = 313,
        queue_size: int = 0,
        queue_start: int = 0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = MLP(
            in_dim=encoder.out_dim,
            layers=[
                {"out": hidden_dim, "bias": True, "norm": "affine", "relu": True},
                {"out": out_dim, "bias": True, "norm": "none", "relu": False},
            ],
        )
        self.prototypes = nn.Linear(out_dim, prototypes, bias=False)
        # One row holds an image's embeddings of both assigned crops, side by side.
        self.queue: Queue | None = None
        if queue_size:
            self.queue = Queue(size=queue_size, dim=ASSIGNED * out_dim)
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.freeze_steps = freeze_steps
        self.queue_start = queue_start
        self.queued = 0  # images that the queue has taken; part of the state
        self.new_keys: Tensor | None = None  # wait for the end of the step

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The mean cross entropy between codes and predictions of this process' images."""
        views = batch["views"]
        if len(views) < ASSIGNED:
            raise ConfigError(f"SwAV compares two crops or more; views= makes {len(views)}")
        n = len(views[0])
        if self.queue is not None:
            self.queue.check(n * dist.world_size())
        self.normalize_prototypes()
        # Crops of one size go through the encoder together, all crops through the head.
        groups = [torch.cat(list(same)) for _, same in groupby(views, lambda view: view.shape[-1])]
        z = unit(self.head(torch.cat([self.encoder(crops) for crops in groups])))  # V n x D
        scores = similarity(z, self.prototypes.weight)  # V n x K
        codes = [self._codes(scores[a * n : (a + 1) * n], a) for a in range(ASSIGNED)]
        loss = swapped_prediction(scores.view(len(views), n, -1), codes, self.temperature)
        if self.training:
            self.new_keys = torch.cat(list(z.detach().split(n)[:ASSIGNED]), dim=1)  # n x 2D
        return {
            "loss": loss,
            "embeddings": z[:n].detach(),
            "prototype_use": used_share(scores[:n], self.temperature),
        }

    @torch.no_grad()
    def normalize_prototypes(self) -> None:
        """Rows of unit length again, in place; before every forward."""
        self.prototypes.weight.copy_(unit(self.prototypes.weight))

    @torch.no_grad()
    def _codes(self, scores: Tensor, crop: int) -> Tensor:
        """q of one assigned crop, n x K; the queue's rows take part and are left out again."""
        n = len(scores)
        if self.queue is not None and self.queued >= len(self.queue.keys):
            # The queue is the same everywhere: each process brings its share of it.
            keys = self.queue.keys.chunk(ASSIGNED, dim=1)[crop]
            keys = keys.tensor_split(dist.world_size())[dist.rank()]
            scores = torch.cat([similarity(keys, self.prototypes.weight), scores])
        return sinkhorn(scores, epsilon=self.epsilon, iterations=self.iterations)[-n:]

    def before_update(self, progress: Progress) -> None:
        """No gradient, and so no momentum and no decay, for prototypes that are still frozen."""
        if progress.step < self.freeze_steps:
            self.prototypes.weight.grad = None

    def after_update(self, progress: Progress) -> None:
        """The queue takes the embeddings of the assigned crops."""
        if self.queue is not None and self.new_keys is not None:
            if progress.step > self.queue_start:
                self.queue.push(dist.gather(self.new_keys))
                self.queued += len(self.new_keys) * dist.world_size()
            self.new_keys = None

    def get_extra_state(self) -> Tensor:
        """How full the queue is, for `state_dict`."""
        return torch.tensor(self.queued)

    def set_extra_state(self, state: Tensor) -> None:
        """Inverse of `get_extra_state`."""
        self.queued = int(state)

    def measures(self) -> dict[str, Tensor]:
        """How far the prototypes are spread, 1 at the start; how full the queue is."""
        measures = {"prototype_spread": spread(self.prototypes.weight.detach())}
        if self.queue is not None:
            share = min(1.0, self.queued / len(self.queue.keys))
            measures["queue_filled"] = torch.tensor(share)
        return measures

    def check(self, plan: Plan) -> list[str]:
        """Refuse a single crop and a queue that the batch does not fill evenly."""
        if plan.views < ASSIGNED:
            raise ConfigError(
                f"SwAV compares two crops of an image or more, but views= makes {plan.views}"
            )
        size = 0 if self.queue is None else len(self.queue.keys)
        if self.queue is not None:
            self.queue.check(plan.batch_size)
        prototypes, lines = self.prototypes.out_features, []
        if plan.batch_size + size < prototypes:
            lines.append(
                f"batch_size={plan.batch_size} with method.queue_size={size} is less than "
                f"method.prototypes={prototypes}, over which the codes are spread evenly: use a "
                "queue or fewer prototypes"
            )
        if self.freeze_steps >= plan.steps:
            lines.append(
                f"method.freeze_steps={self.freeze_steps}: the prototypes are never trained in "
                f"{plan.steps} steps; about an epoch is meant"
            )
        filled = self.queue_start + -(-size // plan.batch_size)
        if size and filled >= plan.steps:
            lines.append(
                f"the queue is full at step {filled}, and so never used in {plan.steps} steps: "
                "lower method.queue_start or method.queue_size"
            )
        return lines

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of codes that say nothing; the use of one prototype alone."""
        return Levels(
            loss_collapsed=math.log(self.prototypes.out_features),
            stuck=True,
            knob="method.epsilon=0.03, more method.freeze_steps, a later method.queue_start or a "
            "lower optim.lr; prototypes must be of unit length",
            others={"prototype_use_collapsed": 1 / self.prototypes.out_features},
        )


@full_precision
def similarity(z: Tensor, prototypes: Tensor) -> Tensor:
    """Scores z C^T, in full precision: exp(1 / eps) is beyond float16."""
    return z @ prototypes.T


@torch.no_grad()
@full_precision
def sinkhorn(scores: Tensor, *, epsilon: float, iterations: int) -> Tensor:
    """Codes of all processes' samples: each sums to 1, all prototypes are used alike (equation 4).

    scores: n x K of this process; returns n x K. Sums over samples run over all processes.
    """
    count = len(scores) * dist.world_size()  # B
    q = (scores / epsilon).exp()  # n x K
    q = q / dist.sum(q.sum())
    for _ in range(iterations):
        q = q / dist.sum(q.sum(dim=0)) / q.shape[1]  # every prototype has 1 / K of the mass
        q = q / q.sum(dim=1, keepdim=True) / count  # every sample has 1 / B
    return q * count


@full_precision
def swapped_prediction(scores: Tensor, codes: list[Tensor], temperature: float) -> Tensor:
    """Cross entropy of every crop's prediction with the code of another crop, equation 2.

    scores: V x n x K; codes: of the first crops, n x K each. Mean over images, over the V - 1
    crops that predict a code, and over the codes.
    """
    predictions = (scores / temperature).log_softmax(dim=2)
    loss = scores.new_zeros(())
    for a, q in enumerate(codes):
        others = [v for v in range(len(scores)) if v != a]
        for v in others:
            loss = loss - (q * predictions[v]).sum(dim=1).mean() / len(others)
    return loss / len(codes)


@torch.no_grad()
@full_precision
def used_share(scores: Tensor, temperature: float) -> Tensor:
    """Prototypes in use: the perplexity of the batch's mean assignment, as a share of K."""
    mean = F.softmax(scores / temperature, dim=1).mean(dim=0)
    return torch.special.entr(mean).sum().exp() / len(mean)
