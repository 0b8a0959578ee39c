"""`visrep svm weights=encoder.safetensors data=scenes out=DIR`: linear SVMs on frozen features.

One against all, the cost by cross-validation on data.train, data.test looked at once. Data with one
label for each image gives the accuracy; data with several (data=voc07_labels) average precision
per class and its mean, the cost being chosen for each class, as in the VOC07 benchmark of Goyal et
al. (arXiv 1905.01235). `output=layers` is Exemplar-CNN's protocol, `output=head` NPID's own 128-d.
"""

import math
from typing import Any

import numpy as np
import torch
from omegaconf import DictConfig

from visrep.config import instantiate
from visrep.data.voc_labels import MultiLabelImages, shared_targets
from visrep.engine.evaluation import accuracies, shared_classes
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.transfer.frozen import features
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
from visrep.transfer.frozen.outputs import frozen_output


def main(cfg: DictConfig) -> None:
    """Extract features, choose the cost, fit, record."""
    _check(cfg)
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
    several = isinstance(train, MultiLabelImages)
    classes = shared_targets(train, test) if several else shared_classes(train, test)
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
        )
        .double()
        .numpy()
        for dataset in (train, test)
    )
    normalise = Normaliser.of(cfg.normalize, bank)
    settings: dict[str, Any] = {
        "costs": [float(cost) for cost in cfg.costs],
        "folds": int(cfg.folds),
        "seed": run.seed,
        "tolerance": float(cfg.tolerance),
        "max_iter": int(cfg.max_iter),
    }
    recorded = {
        "dataset": test.name,
        "weights": sha256,
        "init": cfg.init,
        "output": cfg.output,
        "normalize": cfg.normalize,
        "dimensions": bank.shape[1],
    }
    measure = _several_labels if several else _one_label
    targets = [d.targets if several else d.labels for d in (train, test)]
    y, wanted = (target.numpy() for target in targets)
    measure(run, recorded, classes, normalise(bank), y, normalise(queries), wanted, settings)


def _check(cfg: DictConfig) -> None:
    if not cfg.costs or min(cfg.costs) <= 0 or cfg.folds < 2 or cfg.positive_weight <= 0:
        raise ConfigError(
            f"costs={list(cfg.costs)} folds={cfg.folds} positive_weight={cfg.positive_weight}: "
            "need positive costs and weight, and 2 folds or more"
        )
    require_normalisation(cfg.normalize)


def _one_label(
    run: Run,
    recorded: dict[str, Any],
    classes: list[str],
    x: Features,
    y: np.ndarray,
    queries: Features,
    wanted: np.ndarray,
    settings: dict[str, Any],
) -> None:
    """Top-1 (and top-5) accuracy; one cost for all classes."""
    chosen = choose_cost(x, y, score=accuracy, **settings)
    _say(run, chosen, "top1")
    svm = fit(x, y, cost=chosen.cost, **_of_fit(settings))
    scores = np.full((len(queries), len(classes)), -np.inf)
    scores[:, svm.classes_] = scores_of(svm, queries)  # a class may be missing from the train set
    found = accuracies(torch.from_numpy(scores), torch.from_numpy(wanted))
    for metric, value in found.items():
        run.log.info(
            "SVM %s of %s on %s: %.2f %%", metric, recorded["init"], recorded["dataset"], value
        )
        run.record(
            task="svm",
            metric=metric,
            value=value,
            cost=chosen.cost,
            folds=settings["folds"],
            held_out_top1=chosen.scores[chosen.cost],
            **recorded,
        )


def _several_labels(
    run: Run,
    recorded: dict[str, Any],
    classes: list[str],
    x: Features,
    y: np.ndarray,
    queries: Features,
    wanted: np.ndarray,
    settings: dict[str, Any],
) -> None:
    """Mean average precision over the classes; targets 1, -1, and 0 for images left out."""
    found: dict[str, dict[str, float]] = {}
    costs = {}
    weight = float(run.config["positive_weight"])
    for i, name in enumerate(classes):
        kept, held = y[:, i] != 0, wanted[:, i] != 0
        present = (y[kept, i] > 0).astype(np.int64)
        if min(present.sum(), len(present) - present.sum()) < settings["folds"]:
            raise ConfigError(
                f"folds={settings['folds']}: class {name} has {present.sum()} positive and "
                f"{len(present) - present.sum()} negative train images; choose fewer folds"
            )
        chosen = choose_cost(x[kept], present, score=_area, positive_weight=weight, **settings)
        svm = fit(
            x[kept],
            present,
            cost=chosen.cost,
            positive_weight=weight,
            **_of_fit(settings),
        )
        scores = svm.decision_function(queries[held])
        found[name] = average_precision(scores, (wanted[held, i] > 0).astype(np.int64))
        costs[name] = chosen.cost
        run.log.info("%-14s AP %6.2f  cost %g", name, found[name]["area"], chosen.cost)
    for metric, form in (("mAP", "area"), ("mAP_11point", "11point")):
        per_class = {name: ap[form] for name, ap in found.items() if not math.isnan(ap[form])}
        value = float(np.mean(list(per_class.values())))
        run.log.info(
            "SVM %s of %s on %s: %.2f %%", metric, recorded["init"], recorded["dataset"], value
        )
        run.record(
            task="svm",
            metric=metric,
            value=value,
            per_class=per_class,
            costs=costs,
            folds=settings["folds"],
            positive_weight=weight,
            **recorded,
        )


def _of_fit(settings: dict[str, Any]) -> dict[str, Any]:
    return {key: settings[key] for key in ("seed", "tolerance", "max_iter")}


def _area(scores: Features, present: np.ndarray) -> float:
    return average_precision(scores[:, 1], present)["area"]


def _say(run: Run, chosen: Chosen, metric: str) -> None:
    for cost, score in chosen.scores.items():
        run.log.info("cost %-8g held-out %s %.2f %%", cost, metric, score)
    if len(chosen.scores) > 1 and chosen.cost in (min(chosen.scores), max(chosen.scores)):
        run.log.info("cost %g is at the end of the grid: a wider costs= may do better", chosen.cost)
