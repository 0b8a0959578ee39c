"""Distillation with soft targets (SimCLR v2, arXiv 2006.10029, equations 2 and 3).

    N  images   C  classes   tau  temperature   a  weight of the soft targets

    P(y | x; tau) = softmax(f(x) / tau)_y
    L_soft = - mean_x sum_y P_T(y | x; tau) log P_S(y | x; tau)
    L      = (1 - a) * CE(labelled images, tau = 1) + a * L_soft(all images)

The smallest value of L_soft is the teacher's entropy, not 0; KL = L_soft - H(P_T) is what shows
progress, so it is logged beside the loss. The paper's formula has no factor tau^2, the authors'
notebook has one: `tau_squared`, off unless asked for.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from visrep.engine.task import Task
from visrep.errors import ConfigError
from visrep.nn.classifier import Classifier


def soft_cross_entropy(student: Tensor, teacher: Tensor, *, temperature: float) -> Tensor:
    """L_soft of N x C logits, mean over the batch; both softmaxes in float32 or wider.

    At tau = 0.1 the logits grow tenfold and bfloat16 would lose two digits of them.
    """
    target = _log_softmax(teacher, temperature).exp()  # N x C
    return -(target * _log_softmax(student, temperature)).sum(dim=1).mean()


def entropy(logits: Tensor, *, temperature: float) -> Tensor:
    """H(P) of N x C logits in nats, mean over the batch."""
    return soft_cross_entropy(logits, logits, temperature=temperature)


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    wide = logits if logits.dtype == torch.float64 else logits.float()
    return F.log_softmax(wide / temperature, dim=1)


def distillation_loss(
    student: Tensor,
    teacher: Tensor,
    labels: Tensor | None = None,
    *,
    temperature: float = 1.0,
    alpha: float = 1.0,
    tau_squared: bool = False,
) -> dict[str, Tensor]:
    """The mixed loss and its parts.

    Args:
        student: N x C logits.
        teacher: N x C logits; no gradient reaches them.
        labels: N int64, -1 where an image has no label. Unused at alpha = 1.
        temperature: tau, divides the logits of both nets.
        alpha: a in [0, 1].
        tau_squared: multiply L_soft by tau^2, as the authors' notebook does.

    Returns:
        `loss`, `kl` (L_soft - H(P_T) without tau^2) and, when alpha < 1, `ce` (0 when no image of
        the batch has a label).

    Raises:
        ConfigError: temperature or alpha is out of range, or alpha < 1 comes without labels.
    """
    if temperature <= 0 or not 0 <= alpha <= 1:
        raise ConfigError(
            f"temperature={temperature} alpha={alpha}: need temperature > 0 and alpha from 0 to 1"
        )
    teacher = teacher.detach()
    soft = soft_cross_entropy(student, teacher, temperature=temperature)
    kl = (soft - entropy(teacher, temperature=temperature)).detach()
    if tau_squared:
        soft = soft * temperature**2
    if alpha == 1:
        return {"loss": soft, "kl": kl}
    if labels is None:
        raise ConfigError("alpha < 1 mixes in labels, but there are none: set alpha=1")
    known = labels >= 0
    wide = student if student.dtype == torch.float64 else student.float()
    each = F.cross_entropy(wide, labels, ignore_index=-1, reduction="sum")
    hard = each / known.sum().clamp(min=1)
    return {"loss": (1 - alpha) * hard + alpha * soft, "kl": kl, "ce": hard.detach()}


class Distillation(Task):
    """A student learns a frozen teacher's answers on the same augmented images.

    The teacher runs in inference mode. It is an input, not state: no submodule, so that snapshots,
    optimizers and gradient reduction never see it; whoever makes the task moves it to the device.

    Args:
        teacher, student: N x 3 x H x W -> N x C logits.
        temperature, alpha, tau_squared: as in `distillation_loss`.
        labels: int64, one for each image of the data set, -1 where it may not be used; needed for
            alpha < 1 only.
    """

    coupled = False
    labels: Tensor | None

    def __init__(
        self,
        *,
        teacher: Classifier,
        student: Classifier,
        temperature: float = 1.0,
        alpha: float = 1.0,
        tau_squared: bool = False,
        labels: Tensor | None = None,
    ) -> None:
        super().__init__()
        self.student = student
        self._teacher = (teacher.eval().requires_grad_(False),)
        self.temperature, self.alpha, self.tau_squared = temperature, alpha, tau_squared
        self.register_buffer("labels", labels, persistent=False)

    @property
    def teacher(self) -> Classifier:
        """The frozen net."""
        return self._teacher[0]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        (x,) = batch["views"]  # N x 3 x H x W
        with torch.no_grad():
            t = self.teacher(x)  # N x C
        s = self.student(x)  # N x C
        values = distillation_loss(
            s,
            t,
            None if self.labels is None else self.labels[batch["index"]],
            temperature=self.temperature,
            alpha=self.alpha,
            tau_squared=self.tau_squared,
        )
        same = s.detach().argmax(dim=1) == t.argmax(dim=1)
        return {**values, "agreement": 100 * same.float().mean()}
