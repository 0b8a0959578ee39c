"""SimCLR: A Simple Framework for Contrastive Learning of Visual Representations.

Chen et al. 2020, arXiv 2002.05709, algorithm 1; and v2, Big Self-Supervised Models are Strong
Semi-Supervised Learners, arXiv 2006.10029: a head of three layers, of which finetuning keeps the
first, and an optional memory of negatives.

    n  images on this process   B  images on all   D  embedding width   K  memory size
    z  unit embeddings          T  temperature
"""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn import ema
from visrep.nn.embeddings import full_precision, spread, two_views, unit
from visrep.nn.heads import MLP, simclr_head
from visrep.nn.queues import Queue
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Plan, Progress


class SimCLR(Method):
    """Two views of an image attract each other and repel all other views in the whole batch.

    Args:
        encoder: what is trained.
        head_layers: 2 (v1) or 3 (v2); its hidden width is the encoder's.
        out_dim: D.
        temperature: T.
        memory_size: K, 0 for none. SimCLR v2 adds negatives from a memory that a moving average
            of the network fills. The published code has no memory, and the paper does not say how
            it mixes with the batch; here its entries are K more negatives of every anchor, and
            each step adds the first views of the whole batch, after the loss.
        memory_momentum: of that moving average.
    """

    batchnorm = "sync"  # statistics of a process alone would give the partner away
    root_rule_below = 1024  # table B.1: the two rules agree at 4096

    def __init__(
        self,
        *,
        encoder: ResNet,
        head_layers: int = 2,
        out_dim: int = 128,
        temperature: float = 0.1,
        memory_size: int = 0,
        memory_momentum: float = 0.999,
    ) -> None:
        super().__init__()
        self.title = "SimCLR v2" if head_layers > 2 else "SimCLR"
        layers = simclr_head(hidden=encoder.out_dim, out_dim=out_dim, depth=head_layers)
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=layers)
        self.temperature = temperature
        self.memory: Queue | None = None
        self.new_keys: Tensor | None = None  # wait for the end of the step
        if memory_size:
            self.memory = Queue(size=memory_size, dim=out_dim)
            self.memory_momentum = memory_momentum
            self.key_encoder = ema.copy_of(self.encoder)
            self.key_head = ema.copy_of(self.head)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The NT-Xent loss of this process' anchors, 2n of 2B."""
        views = torch.cat(two_views(batch))  # 2n x 3 x h x w
        if self.memory is not None:
            self.memory.check(len(views) // 2 * dist.world_size())
        # One pass over both views: their batch statistics are joint (algorithm 1; SimCLR's code).
        z = unit(self.head(self.encoder(views)))  # 2n x D
        everyone = dist.gather_with_grad(z)  # 2B x D
        loss, accuracy = nt_xent(
            z,
            everyone,
            first=dist.rank() * len(z),
            temperature=self.temperature,
            memory=None if self.memory is None else self.memory.keys,
        )
        if self.memory is not None and self.training:
            with torch.no_grad():
                self.new_keys = unit(self.key_head(self.key_encoder(views.chunk(2)[0])))  # n x D
        return {"loss": loss, "accuracy": accuracy, "embeddings": z.detach()}

    def after_update(self, progress: Progress) -> None:
        """Fill the memory and move the average, both only where there is a memory."""
        if self.memory is None or self.new_keys is None:
            return
        self.memory.push(dist.gather(self.new_keys))
        self.new_keys = None
        ema.update(self.key_encoder, self.encoder, momentum=self.memory_momentum)
        ema.update(self.key_head, self.head, momentum=self.memory_momentum)

    def measures(self) -> dict[str, Tensor]:
        """How far the keys of the memory are spread: 1 at the start, which is random."""
        return {} if self.memory is None else {"memory_spread": spread(self.memory.keys)}

    def check(self, plan: Plan) -> list[str]:
        """Refuse a batch without negatives, and a memory that it does not fill evenly."""
        if plan.batch_size < 2:
            raise ConfigError(
                f"batch_size={plan.batch_size}: SimCLR's negatives are the other images of the "
                "batch; give at least 2"
            )
        if self.memory is not None:
            self.memory.check(plan.batch_size)
        return super().check(plan)

    def passes(self, areas: Sequence[float]) -> float:
        """All views are trained on; the first makes the keys of the memory, too."""
        return super().passes(areas) + (0 if self.memory is None else areas[0])

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss and the accuracy of features that say nothing."""
        negatives = 2 * batch_size - 2 + (0 if self.memory is None else len(self.memory.keys))
        return Levels(
            loss_collapsed=math.log(1 + negatives),
            knob="lower optim.lr or lengthen optim.warmup_epochs; a larger batch_size",
            others={"accuracy_chance": 1 / (1 + negatives)},
        )


@full_precision
def nt_xent(
    z: Tensor,
    everyone: Tensor,
    *,
    first: int = 0,
    temperature: float,
    memory: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The normalised temperature-scaled cross entropy, equation 1, and its accuracy.

    Anchor i has its partner among the 2B - 1 other embeddings (and K memory entries) to find:
    loss_i = -log( exp(z_i.z_p / T) / sum_{j != i} exp(z_i.z_j / T) ), averaged over the anchors.
    (The published code adds the means of the two halves: twice this value.)

    Args:
        z: 2n x D unit anchors of this process: first views, then second views.
        everyone: 2B x D, `z` of all processes one after the other.
        first: the row of `everyone` where `z` begins.
        temperature: T.
        memory: K x D unit negatives.
    """
    rows = torch.arange(len(z), device=z.device)
    partner = first + rows.roll(len(z) // 2)
    logits = z @ everyone.T / temperature  # 2n x 2B
    logits = logits.scatter(1, (first + rows)[:, None], -math.inf)  # an anchor is not its negative
    if memory is not None:
        logits = torch.cat([logits, z @ memory.T / temperature], dim=1)  # 2n x (2B + K)
    accuracy = (logits.detach().argmax(dim=1) == partner).float().mean()
    return F.cross_entropy(logits, partner), accuracy
