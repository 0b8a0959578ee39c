"""`visrep svm weights=encoder.safetensors data=scenes out=DIR`: linear SVMs on frozen features.

One against all, the cost by cross-validation on data.train, data.test looked at once. Data with one
label for each image gives the accuracy; data with several (data=voc07_labels) average precision
per class and its mean, the cost being chosen for each class, as in the VOC07 benchmark of Goyal et
al. (arXiv 1905.01235). `output=layers` is Exemplar-CNN's protocol, `output=head` NPID's own 128-d.
"""

import logging
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from visrep.data.voc_labels import MultiLabelImages, shared_targets
from visrep.engine.evaluation import accuracies, shared_classes
from visrep.errors import ConfigError
from visrep.transfer.frozen.linear_svm import (
    Chosen,
    Features,
    Normaliser,
    accuracy,
    average_precision,
    choose_cost,
    fit,
    require_normalisation,
    scores_of,
)
from visrep.transfer.frozen.opening import open_frozen

log = logging.getLogger("visrep")


def main(cfg: DictConfig) -> None:
    """Extract features, choose the cost, fit, record."""
    _check(cfg)
    opening = open_frozen(cfg)
    run, several = opening.run, isinstance(opening.train, MultiLabelImages)
    matched = shared_targets if several else shared_classes
    classes, opening.test = matched(opening.train, opening.test)
    bank, queries = (found.double().numpy() for found in opening.features())
    train, test = opening.train, opening.test
    normalise = Normaliser.of(cfg.normalize, bank)
    settings: dict[str, Any] = {
        "costs": [float(cost) for cost in cfg.costs],
        "folds": int(cfg.folds),
        "seed": run.seed,
        "tolerance": float(cfg.tolerance),
        "max_iter": int(cfg.max_iter),
    }
    kept, held = (
        Part(normalise(x), (part.targets if several else part.labels).numpy())
        for x, part in ((bank, train), (queries, test))
    )
    if several:
        weight = float(cfg.positive_weight)
        measured = _several_labels(kept, held, classes, settings, positive_weight=weight)
    else:
        measured = _one_label(kept, held, classes, settings)
    for found, about in measured:
        run.record_all(
            found,
            task="svm",
            dataset=test.name,
            of=cfg.init,
            weights=opening.sha256,
            init=cfg.init,
            output=cfg.output,
            normalize=cfg.normalize,
            dimensions=bank.shape[1],
            folds=settings["folds"],
            **about,
        )


@dataclass(frozen=True)
class Part:
    """Train or test: N x D features and their labels, N, or targets, N x C."""

    x: Features
    y: np.ndarray


# Metric -> value, and what the numbers mean nothing without.
Measured = tuple[dict[str, float], dict[str, Any]]


def _check(cfg: DictConfig) -> None:
    if not cfg.costs or min(cfg.costs) <= 0 or cfg.folds < 2 or cfg.positive_weight <= 0:
        raise ConfigError(
            f"costs={list(cfg.costs)} folds={cfg.folds} positive_weight={cfg.positive_weight}: "
            "need positive costs and weight, and 2 folds or more"
        )
    require_normalisation(cfg.normalize)


def _one_label(
    train: Part, test: Part, classes: list[str], settings: dict[str, Any]
) -> list[Measured]:
    """Top-1 (and top-5) accuracy; one cost for all classes."""
    chosen = choose_cost(train.x, train.y, score=accuracy, **settings)
    _say(chosen, "top1")
    svm = fit(train.x, train.y, cost=chosen.cost, **_of_fit(settings))
    scores = np.full((len(test.x), len(classes)), -np.inf)
    scores[:, svm.classes_] = scores_of(svm, test.x)  # a class may be missing from the train set
    found = accuracies(torch.from_numpy(scores), torch.from_numpy(test.y))
    return [(found, {"cost": chosen.cost, "held_out_top1": chosen.scores[chosen.cost]})]


def _several_labels(
    train: Part,
    test: Part,
    classes: list[str],
    settings: dict[str, Any],
    *,
    positive_weight: float,
) -> list[Measured]:
    """Mean average precision over the classes; targets 1, -1, and 0 for images left out."""
    found: dict[str, dict[str, float]] = {}
    costs = {}
    for i, name in enumerate(classes):
        kept, held = train.y[:, i] != 0, test.y[:, i] != 0
        x, present = train.x[kept], (train.y[kept, i] > 0).astype(np.int64)
        if min(present.sum(), len(present) - present.sum()) < settings["folds"]:
            raise ConfigError(
                f"folds={settings['folds']}: class {name} has {present.sum()} positive and "
                f"{len(present) - present.sum()} negative train images; choose fewer folds"
            )
        weighted = settings | {"positive_weight": positive_weight}
        chosen = choose_cost(x, present, score=_area, **weighted)
        svm = fit(x, present, cost=chosen.cost, **_of_fit(weighted))
        scores = svm.decision_function(test.x[held])
        found[name] = average_precision(scores, (test.y[held, i] > 0).astype(np.int64))
        costs[name] = chosen.cost
        log.info("%-14s AP %6.2f  cost %g", name, found[name]["area"], chosen.cost)
    measured: list[Measured] = []
    for metric, form in (("mAP", "area"), ("mAP_11point", "11point")):
        per_class = {name: ap[form] for name, ap in found.items() if not math.isnan(ap[form])}
        about = {"per_class": per_class, "costs": costs, "positive_weight": positive_weight}
        measured.append(({metric: float(np.mean(list(per_class.values())))}, about))
    return measured


def _of_fit(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in settings.items() if key not in ("costs", "folds")}


def _area(scores: Features, present: np.ndarray) -> float:
    return average_precision(scores[:, 1], present)["area"]


def _say(chosen: Chosen, metric: str) -> None:
    for cost, score in chosen.scores.items():
        log.info("cost %-8g held-out %s %.2f %%", cost, metric, score)
    if len(chosen.scores) > 1 and chosen.cost in (min(chosen.scores), max(chosen.scores)):
        log.info("cost %g is at the end of the grid: a wider costs= may do better", chosen.cost)
