"""`visrep low_shot weights=encoder.safetensors data=scenes out=DIR`: few labelled images a class.

For 1, 2, 4, 8 and 16 examples of each class, drawn `draws` times: one-against-all linear SVMs on
frozen features, measured on all of data.test; mean and standard deviation over the draws. So few
examples leave none to choose a cost with, so it is fixed (features are of unit length). The
examples of a small number are among those of a larger one of the same draw.
"""

import numpy as np
import torch
from omegaconf import DictConfig
from torch import Tensor

from visrep.engine.evaluation import shared_classes
from visrep.errors import ConfigError
from visrep.seeds import generator
from visrep.transfer.frozen.linear_svm import (
    Features,
    Normaliser,
    accuracy,
    fit,
    require_normalisation,
    scores_of,
)
from visrep.transfer.frozen.opening import open_frozen


def main(cfg: DictConfig) -> None:
    """Extract features once, then draw, fit and measure."""
    shots = sorted({int(count) for count in cfg.shots})
    if not shots or shots[0] < 1 or cfg.draws < 1 or cfg.cost <= 0:
        raise ConfigError(
            f"shots={list(cfg.shots)} draws={cfg.draws} cost={cfg.cost}: all must be above 0"
        )
    require_normalisation(cfg.normalize)
    opening = open_frozen(cfg)
    run = opening.run
    classes, opening.test = shared_classes(opening.train, opening.test)
    bank, queries = (found.double().numpy() for found in opening.features())
    train, test = opening.train, opening.test
    _require_enough(train.labels, classes, shots[-1], train.name)
    wanted = test.labels.numpy()
    found: dict[int, list[float]] = {count: [] for count in shots}
    for draw in range(int(cfg.draws)):
        ranks = ranks_in_class(train.labels, seed=run.seed, draw=draw).numpy()
        for count in shots:
            rows = np.flatnonzero(ranks < count)
            scores = _scores(cfg, bank[rows], train.labels.numpy()[rows], queries, run.seed)
            found[count].append(accuracy(scores, wanted))
    for count, values in found.items():
        mean, deviation = float(np.mean(values)), _deviation(values)
        run.log.info(
            "low shot of %s on %s, %d a class: %.2f +- %.2f %% over %d draws",
            cfg.init,
            test.name,
            count,
            mean,
            deviation,
            len(values),
        )
        run.record(
            task="low_shot",
            dataset=test.name,
            metric="top1",
            value=mean,
            weights=opening.sha256,
            init=cfg.init,
            shots=count,
            deviation=deviation,
            values=values,
            cost=float(cfg.cost),
            output=cfg.output,
            normalize=cfg.normalize,
        )


def ranks_in_class(labels: Tensor, *, seed: int, draw: int) -> Tensor:
    """Every sample's place in a random order of its class, from 0: int64 N.

    Those below k are a draw of k examples of each class.
    """
    order = torch.randperm(len(labels), generator=generator(seed, "low shot", draw))
    ranks = torch.empty(len(labels), dtype=torch.int64)
    for label in labels.unique():
        members = order[labels[order] == label]
        ranks[members] = torch.arange(len(members))
    return ranks


def _scores(cfg: DictConfig, x: Features, y: np.ndarray, queries: Features, seed: int) -> Features:
    normalise = Normaliser.of(cfg.normalize, x)
    svm = fit(
        normalise(x),
        y,
        cost=float(cfg.cost),
        seed=seed,
        tolerance=float(cfg.tolerance),
        max_iter=int(cfg.max_iter),
    )
    return scores_of(svm, normalise(queries))


def _deviation(values: list[float]) -> float:
    """Of a sample, so divided by one less than its size; 0 for a single value."""
    return float(np.std(values, ddof=1)) if len(values) > 1 else 0.0


def _require_enough(labels: Tensor, classes: list[str], most: int, name: str) -> None:
    counts = torch.bincount(labels, minlength=len(classes))
    scarce = int(counts.argmin())
    if counts[scarce] < most:
        raise ConfigError(
            f"shots={most}: class {classes[scarce]} of {name} has only {int(counts[scarce])} "
            "images; lower shots="
        )
