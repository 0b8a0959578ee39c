"""NPID: Unsupervised Feature Learning via Non-Parametric Instance Discrimination.

Wu et al. 2018, arXiv 1805.01978, equations 2 to 10; values and order as in the authors' code.

    n  images on this process   B  images on all   N  training images   D  embedding width
    f  unit embeddings   M  memory bank   K  noise samples   T  temperature   Z  normaliser
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visrep import dist
from visrep.errors import ConfigError
from visrep.nn.embeddings import full_precision, spread, unit
from visrep.nn.heads import MLP, moco_head
from visrep.nn.resnet import ResNet
from visrep.pretrain.method import Levels, Method, Plan, Progress

EPSILON = 1e-7  # inside the logarithms of the noise-contrastive loss


class NPID(Method):
    """Every image is a class of its own, whose weights are its embedding of the epoch before.

    The bank takes the embeddings after the update, so that the loss compares an image with its
    last entry; a row becomes momentum * row + (1 - momentum) * f, of unit length again.

    Args:
        encoder: what is trained.
        images: N, the size of the training set.
        out_dim: D.
        temperature: T.
        negatives: K samples of noise for the contrastive estimate; 0 for the exact softmax over
            all N images.
        momentum: of the bank's rows.
        proximal: weight of |f - row|^2 (section 3.3); 0 in the authors' code.
    """

    title = "NPID"
    views = 1
    batchnorm = "local"
    coupled = False

    def __init__(
        self,
        *,
        encoder: ResNet,
        images: int,
        out_dim: int = 128,
        temperature: float = 0.07,
        negatives: int = 4096,
        momentum: float = 0.5,
        proximal: float = 0.0,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = MLP(in_dim=encoder.out_dim, layers=moco_head(out_dim=out_dim))
        # Rows are of length 1 in the mean, not each.
        bank = (2 * torch.rand(images, out_dim) - 1) * math.sqrt(3 / out_dim)
        self.bank: Tensor
        self.normalizer: Tensor  # Z; 0 until the first step sets it
        self.register_buffer("bank", bank)
        self.register_buffer("normalizer", torch.zeros(()))
        self.temperature = temperature
        self.negatives = negatives
        self.momentum = momentum
        self.proximal = proximal
        self.new_rows: list[tuple[Tensor, Tensor]] = []  # index, f: wait for the end of the step

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of this process' images against the bank."""
        if len(batch["views"]) != 1:
            raise ConfigError(
                f"NPID takes one view of an image; views= makes {len(batch['views'])}"
            )
        index = batch["index"].to(self.bank.device)  # n
        f = unit(self.head(self.encoder(batch["views"][0])))  # n x D
        if self.negatives:
            chosen = self._draw(index, batch["seed"])  # n x (1 + K), the image itself first
            logits = chosen_logits(f, self.bank[chosen], self.temperature)
            loss = noise_contrastive(logits, self._normalizer(logits), len(self.bank))
            found = logits.detach().argmax(dim=1) == 0
        else:
            loss, found = exact_softmax(f, self.bank, index, self.temperature)
        if self.proximal:
            loss = loss + self.proximal * proximity(f, self.bank[index])
        if self.training:
            self.new_rows.append((index, f.detach()))
        return {"loss": loss, "accuracy": found.float().mean(), "embeddings": f.detach()}

    def _draw(self, index: Tensor, seed: int) -> Tensor:
        """Noise from all N images alike, the image itself not excluded: n x (1 + K)."""
        # Drawn for the whole batch, so that the number of processes changes nothing.
        n, first = len(index), len(index) * dist.rank()
        shape = (n * dist.world_size(), 1 + self.negatives)
        generator = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(self.bank), shape, generator=generator)[first : first + n]
        chosen = drawn.to(index.device)
        chosen[:, 0] = index
        return chosen

    @torch.no_grad()
    def _normalizer(self, logits: Tensor) -> Tensor:
        """Z = N times the mean of exp over the whole first batch; constant from then on."""
        estimate = dist.mean(logits.exp().mean()) * len(self.bank)
        z = torch.where(self.normalizer > 0, self.normalizer, estimate)
        if self.training:
            self.normalizer.copy_(z)
        return z

    @torch.no_grad()
    def after_update(self, progress: Progress) -> None:
        """The rows of this step's images move; the same on all processes."""
        for index, f in self.new_rows:
            index, f = dist.gather(index), dist.gather(f)
            rows = self.momentum * self.bank[index] + (1 - self.momentum) * f
            self.bank.index_copy_(0, index, unit(rows).to(self.bank.dtype))
        self.new_rows.clear()

    def measures(self) -> dict[str, Tensor]:
        """How far the rows of the bank are spread: 1 at the start, which is random."""
        return {"bank_spread": spread(self.bank)}

    def check(self, plan: Plan) -> list[str]:
        """Refuse a bank of another number of rows than images."""
        lines = super().check(plan)
        n = len(self.bank)
        if n != plan.images:
            raise ConfigError(
                f"method.images={n}, but the data has {plan.images} images; leave it to the data "
                "(method.images=null)"
            )
        if self.negatives > n:
            lines.append(
                f"method.negatives={self.negatives} is more than there are images ({n}): the exact "
                "softmax over all of them costs less; set method.negatives=0"
            )
        return lines

    def reference_levels(self, batch_size: int) -> Levels:
        """The loss of an image that is no likelier than any other, and the accuracy of chance."""
        n, k = len(self.bank), self.negatives
        return Levels(
            loss_collapsed=math.log(k + 1) + k * math.log(1 + 1 / k) if k else math.log(n),
            knob="lower optim.lr, or a higher method.temperature",
            others={"accuracy_chance": 1 / (k + 1 if k else n)},
        )


@full_precision
def chosen_logits(f: Tensor, rows: Tensor, temperature: float) -> Tensor:
    """f . row / T of the chosen rows, n x (1 + K); f: n x D, rows: n x (1 + K) x D."""
    return (rows @ f[:, :, None]).squeeze(2) / temperature


@full_precision
def noise_contrastive(logits: Tensor, normalizer: Tensor, images: int) -> Tensor:
    """Equation 7: is a sample data or noise? Summed over the K of noise, averaged over the images.

    With P = exp(logit) / Z and noise density 1 / N, the posterior of data is P / (P + K / N).

    logits: n x (1 + K), data first.
    """
    noise = (logits.shape[1] - 1) / images  # K / N
    p = logits.exp() / normalizer
    data = (p[:, 0] / (p[:, 0] + noise + EPSILON)).log()  # n
    rest = (noise / (p[:, 1:] + noise + EPSILON)).log().sum(dim=1)  # n
    return -(data + rest).mean()


@full_precision
def exact_softmax(
    f: Tensor, bank: Tensor, index: Tensor, temperature: float
) -> tuple[Tensor, Tensor]:
    """Equation 2: cross entropy over all N images; and which of the n images are found."""
    logits = f @ bank.T / temperature  # n x N
    return F.cross_entropy(logits, index), logits.detach().argmax(dim=1) == index


@full_precision
def proximity(f: Tensor, rows: Tensor) -> Tensor:
    """|f - row|^2, the term of equation 9: mean over the n images."""
    return (f - rows).square().sum(dim=1).mean()
