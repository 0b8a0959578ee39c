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
from visrep.engine.evaluation import accuracies, input_of, shared_classes, top_k
from visrep.engine.optim import warmup_cosine
from visrep.engine.run import Run, open_run
from visrep.engine.task import Task
from visrep.engine.trainer import Batches, Trainer
from visrep.errors import ConfigError
from visrep.seeds import epoch_order
from visrep.transfer.frozen import features
from visrep.transfer.frozen.outputs import frozen_output


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

    def groups(self, *, weight_decay: float) -> list[dict[str, Any]]:
        """Parameter groups, each classifier with its own learning rate."""
        return [
            {"params": [weight, bias], "lr": rate, "weight_decay": weight_decay}
            for weight, bias, rate in zip(self.weights, self.biases, self.rates, strict=True)
        ]


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


def fit(
    probe: LinearProbe,
    batches: Batches,
    *,
    total_steps: int,
    run: Run,
    momentum: float,
    weight_decay: float,
    label: str | None,
) -> None:
    """SGD with momentum and a cosine to 0; `label` None trains without a word."""
    optimizer = torch.optim.SGD(probe.groups(weight_decay=weight_decay), lr=1.0, momentum=momentum)
    Trainer(
        task=probe,
        optimizer=optimizer,
        schedule=warmup_cosine(total_steps),
        batches=batches,
        total_steps=total_steps,
        device=run.device,
        precision="fp32",
        log_every=max(1, total_steps // 20),
        writers=run.writers(total=total_steps, label=label) if label else (),
    ).fit()


def main(cfg: DictConfig) -> None:
    """Choose the learning rate, train, record."""
    if not 0 < cfg.held_out < 1:
        raise ConfigError(f"held_out={cfg.held_out}: a share of the train set between 0 and 1")
    if not cfg.lrs or min(cfg.lrs) <= 0 or cfg.epochs < 1:
        raise ConfigError(f"lrs={list(cfg.lrs)} epochs={cfg.epochs}: need rates and epochs above 0")
    encoder, preprocess, sha256 = frozen_output(
        cfg.weights,
        output=cfg.output,
        init=cfg.init,
        seed=int(cfg.seed),
        grids=cfg.grids,
        size=cfg.size,
    )
    run = open_run(cfg)
    train, test = instantiate(cfg.data.train), instantiate(cfg.data.test)
    classes = shared_classes(train, test)
    encoder.to(run.device)
    bank, queries = (
        features.cached(
            encoder,
            dataset,
            preprocess,
            device=run.device,
            batch_size=int(cfg.batch_size),
            workers=int(cfg.workers),
            precision=cfg.precision,
        ).to(run.device)
        for dataset in (train, test)
    )
    labels = train.labels.to(run.device)

    def trained(rates: Sequence[float], rows: Tensor, label: str | None) -> LinearProbe:
        rows = rows.to(run.device)
        probe = LinearProbe(
            rates=rates,
            classes=len(classes),
            mean=bank[rows].mean(dim=0),
            std=bank[rows].std(dim=0),
            encoder=encoder if cfg.augment else None,
        )
        source: Any
        if cfg.augment:
            source = Loader(
                train,
                views=instantiate(cfg.views, **input_of(preprocess)),
                batch_size=min(int(cfg.batch_size), len(rows)),
                seed=run.seed,
                workers=int(cfg.workers),
                device=run.device,
                indices=rows.cpu(),
            )
        else:
            source = FeatureBatches(
                bank[rows], labels[rows], batch_size=int(cfg.batch_size), seed=run.seed
            )
        fit(
            probe,
            source,
            total_steps=int(cfg.epochs) * source.steps_per_epoch,
            run=run,
            momentum=float(cfg.momentum),
            weight_decay=float(cfg.weight_decay),
            label=label,
        )
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
    for metric, value in accuracies(scores, test.labels).items():
        run.log.info("linear %s of %s on %s: %.2f %%", metric, cfg.init, test.name, value)
        run.record(
            task="linear",
            dataset=test.name,
            metric=metric,
            value=value,
            weights=sha256,
            init=cfg.init,
            lr=rates[best],
            held_out_top1=shares[best],
            output=cfg.output,
            augment=bool(cfg.augment),
        )
