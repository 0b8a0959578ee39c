"""`visrep linear weights=encoder.safetensors data=scenes out=DIR`: a linear classifier on top.

The encoder stays frozen in eval mode. One classifier per learning rate is trained at once, on the
same features; a held-out part of the TRAIN set chooses among them, the chosen one is trained again
on all of it, and the test set is looked at once.

Features are standardised with the train set's mean and deviation, so that one grid of learning
rates fits encoders whose features differ in scale by orders of magnitude. Un-augmented features
come from the cache; with `augment=true` each epoch costs one forward pass, for all rates together.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from omegaconf import DictConfig
from torch import Tensor, nn

from visrep.config import instantiate
from visrep.data.loader import Loader
from visrep.data.splits import label_subset
from visrep.engine.assembly import assemble
from visrep.engine.evaluation import accuracies, input_of, shared_classes, top_k
from visrep.engine.task import Task
from visrep.errors import ConfigError
from visrep.seeds import epoch_order
from visrep.transfer.frozen.opening import open_frozen


class LinearProbe(Task):
    """H linear classifiers of the same features, trained side by side.

    Args:
        rates: H learning rates.
        classes: C.
        mean, std: D, of the train set's features.
        encoder: a frozen net N x 3 x H x W -> N x D, or None when the batches hold features. It is
            no part of the state, and stays in eval mode.
    """

    coupled = False
    mean: Tensor
    scale: Tensor

    def __init__(
        self,
        *,
        rates: Sequence[float],
        classes: int,
        mean: Tensor,
        std: Tensor,
        encoder: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.rates = list(rates)
        self._encoder = (encoder,)  # a tuple hides it from state_dict and train()
        self.register_buffer("mean", mean)
        # A feature that never varies says nothing; dividing by its rounding noise would shout it.
        self.register_buffer("scale", torch.where(std > 1e-6 * std.max(), 1 / std, 0.0))
        self.weights = nn.ParameterList(torch.zeros(classes, len(mean)) for _ in self.rates)
        self.biases = nn.ParameterList(torch.zeros(classes) for _ in self.rates)

    def logits(self, features: Tensor) -> Tensor:
        """N x D -> H x N x C."""
        x = (features - self.mean) * self.scale
        weight, bias = torch.stack(list(self.weights)), torch.stack(list(self.biases))
        return torch.einsum("nd,hcd->hnc", x, weight) + bias[:, None]

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        (x,) = batch["views"]
        (encoder,) = self._encoder
        if encoder is not None:
            with torch.no_grad():
                x = encoder(x)
        logits = self.logits(x.float())  # H x N x C
        heads, n, classes = logits.shape
        labels = batch["label"].expand(heads, n).reshape(-1)
        losses = F.cross_entropy(logits.reshape(-1, classes), labels, reduction="none")
        # The sum over heads: each gets the gradient of its own mean loss, whatever H is.
        losses = losses.view(heads, n).mean(dim=1)
        return {"loss": losses.sum(), "best_loss": losses.min()}

    def optim(self, *, momentum: float, weight_decay: float) -> dict[str, Any]:
        """Arguments of `optim.build`: SGD, a cosine to 0, for each classifier its own rate."""
        rates = [
            (f"{part}.{i}", rate)
            for part in ("weights", "biases")
            for i, rate in enumerate(self.rates)
        ]
        return {
            "name": "sgd",
            "lr": 1.0,
            "lr_rule": "none",
            "lr_factors": rates,
            "momentum": momentum,
            "weight_decay": weight_decay,
        }


class FeatureBatches:
    """Endless batches of rows of `features`, shuffled anew every epoch; a function of the step."""

    def __init__(self, features: Tensor, labels: Tensor, *, batch_size: int, seed: int) -> None:
        self.features, self.labels = features, labels
        self.batch_size = min(batch_size, len(features))
        self.steps_per_epoch = len(features) // self.batch_size
        self.seed = seed

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """Batches from `start_step` on: views holds one tensor n x D."""
        step = start_step
        while True:
            epoch, batch = divmod(step, self.steps_per_epoch)
            order = epoch_order(len(self.features), seed=self.seed, epoch=epoch)
            rows = order[batch * self.batch_size :][: self.batch_size].to(self.features.device)
            yield {"views": [self.features[rows]], "label": self.labels[rows], "size": len(rows)}
            step += 1


def main(cfg: DictConfig) -> None:
    """Choose the learning rate, train, record."""
    if not 0 < cfg.held_out < 1:
        raise ConfigError(f"held_out={cfg.held_out}: a share of the train set between 0 and 1")
    if not cfg.lrs or min(cfg.lrs) <= 0 or cfg.epochs < 1:
        raise ConfigError(f"lrs={list(cfg.lrs)} epochs={cfg.epochs}: need rates and epochs above 0")
    opening = open_frozen(cfg)
    run = opening.run
    classes, opening.test = shared_classes(opening.train, opening.test)
    bank, queries = (found.to(run.device) for found in opening.features())
    train, test = opening.train, opening.test
    labels = train.labels.to(run.device)
    batch_size = int(cfg.batch_size)

    def trained(rates: Sequence[float], rows: Tensor, label: str | None) -> LinearProbe:
        rows = rows.to(run.device)
        probe = LinearProbe(
            rates=rates,
            classes=len(classes),
            mean=bank[rows].mean(dim=0),
            std=bank[rows].std(dim=0),
            encoder=opening.net if cfg.augment else None,
        )
        source: Any
        if cfg.augment:
            source = Loader(
                train,
                views=instantiate(cfg.views, **input_of(opening.preprocess)),
                batch_size=min(batch_size, len(rows)),
                seed=run.seed,
                workers=int(cfg.workers),
                device=run.device,
                indices=rows.cpu(),
                max_broken=opening.max_broken,
            )
        else:
            source = FeatureBatches(bank[rows], labels[rows], batch_size=batch_size, seed=run.seed)
        total_steps = int(cfg.epochs) * source.steps_per_epoch
        assemble(
            probe,
            settings={
                "optim": probe.optim(
                    momentum=float(cfg.momentum), weight_decay=float(cfg.weight_decay)
                ),
                "batch_size": batch_size,
                "precision": "fp32",
                "log_every": max(1, total_steps // 20),
            },
            run=run,
            batches=source,
            total_steps=total_steps,
            steps_per_epoch=source.steps_per_epoch,
            label=label,
        ).fit()
        return probe.eval()

    held = label_subset(train, fraction=float(cfg.held_out), seed=run.seed)
    kept = torch.ones(len(train), dtype=torch.bool).index_fill_(0, held, False).nonzero()[:, 0]
    rates = [float(rate) for rate in cfg.lrs]
    candidates = trained(rates, kept, None)
    with torch.no_grad():
        logits = candidates.logits(bank[held.to(run.device)])
    shares = [top_k(of_rate, labels[held]) for of_rate in logits]
    losses = [F.cross_entropy(of_rate, labels[held]).item() for of_rate in logits]
    best = max(range(len(rates)), key=lambda i: (shares[i], -losses[i]))
    for rate, share in zip(rates, shares, strict=True):
        run.log.info("lr %-8g held-out top1 %.2f %%", rate, share)
    if len(rates) > 1 and rates[best] in (min(rates), max(rates)):
        run.log.info("lr %g is at the end of the grid: a wider lrs= may do better", rates[best])

    probe = trained([rates[best]], torch.arange(len(train)), "linear")
    with torch.no_grad():
        scores = probe.logits(queries)[0].cpu()
    run.record_all(
        accuracies(scores, test.labels),
        task="linear",
        dataset=test.name,
        of=cfg.init,
        weights=opening.sha256,
        init=cfg.init,
        lr=rates[best],
        held_out_top1=shares[best],
        output=cfg.output,
        augment=bool(cfg.augment),
    )
