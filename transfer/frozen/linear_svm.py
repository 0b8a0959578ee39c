"""One-against-all linear SVMs with their cost chosen by cross-validation (scikit-learn, liblinear).

    N  images   D  width of a feature   C  classes

Every classifier is an L2-regularised squared hinge loss, as liblinear has it.
"""

import logging
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import StratifiedKFold
from sklearn.svm import LinearSVC

from visrep.errors import ConfigError
from visrep.transfer.detection.evaluation.voc import ap_11_point, ap_area

log = logging.getLogger("visrep")

NORMALISATIONS = ("l2", "standard", "none")

Features = NDArray[np.float64]


@dataclass(frozen=True)
class Chosen:
    """A cost and how it was found.

    Attributes:
        cost: C of the SVM.
        scores: per cost, the mean over the folds, in percent.
    """

    cost: float
    scores: dict[float, float]


@dataclass(frozen=True)
class Normaliser:
    """What is done to features before an SVM sees them; learnt from the train set.

    Attributes:
        kind: l2 (unit length), standard (mean 0 and deviation 1 in each dimension, divided by
            sqrt(D), so that one range of costs fits both) or none.
        mean, scale: D; of `standard`.
    """

    kind: str
    mean: Features
    scale: Features

    @classmethod
    def of(cls, kind: str, train: Features) -> "Normaliser":
        """Learn it. Raises ConfigError on another kind."""
        require_normalisation(kind)
        deviation = train.std(axis=0)
        # A feature that never varies says nothing; dividing by its rounding noise would shout it.
        alive = deviation > 1e-6 * max(float(deviation.max()), 1e-300)
        scale = np.where(alive, 1 / np.where(alive, deviation, 1.0), 0.0)
        return cls(kind, train.mean(axis=0), scale / np.sqrt(train.shape[1]))

    def __call__(self, x: Features) -> Features:
        """N x D -> N x D, float64."""
        if self.kind == "standard":
            return (x - self.mean) * self.scale
        if self.kind == "l2":
            return x / np.maximum(np.linalg.norm(x, axis=1, keepdims=True), 1e-12)
        return x


def require_normalisation(kind: str) -> None:
    """Raise ConfigError unless `kind` is one."""
    if kind not in NORMALISATIONS:
        raise ConfigError(f"normalize={kind}: choose {', '.join(NORMALISATIONS)}")


def fit(
    x: Features,
    y: NDArray[np.int64],
    *,
    cost: float,
    seed: int,
    positive_weight: float = 1.0,
    tolerance: float = 0.1,
    max_iter: int = 1000,
) -> LinearSVC:
    """One-against-all SVMs of all classes in `y`; of two classes, one SVM of the larger label.

    Args:
        positive_weight: of the examples of label 1 against those of 0; two classes only.
        tolerance: of the stopping rule; 0.1 is liblinear's own for the dual problem. A tighter one
            costs several times as long and moves the accuracy by about 0.1 %.

    Raises:
        ConfigError: `y` holds a single class.
    """
    if len(np.unique(y)) < 2:
        raise ConfigError("an SVM needs examples of two classes or more; use other data")
    svm = LinearSVC(
        C=cost,
        # The dual: on dense features of unit length several times as fast as the primal.
        dual=True,
        tol=tolerance,
        max_iter=max_iter,
        random_state=seed % 2**32,
        class_weight=None if positive_weight == 1.0 else {0: 1.0, 1: positive_weight},
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", ConvergenceWarning)
        svm.fit(x, y)
    if any(issubclass(w.category, ConvergenceWarning) for w in caught):
        log.info(
            "SVM of cost %g: liblinear stopped after %d passes; raise max_iter", cost, max_iter
        )
    return svm


def scores_of(svm: LinearSVC, x: Features) -> Features:
    """N x C: each class' signed distance, in the order of `svm.classes_`."""
    scores = svm.decision_function(x)
    return np.stack([-scores, scores], axis=1) if scores.ndim == 1 else scores


def choose_cost(
    x: Features,
    y: NDArray[np.int64],
    *,
    costs: Sequence[float],
    folds: int,
    seed: int,
    score: Callable[[Features, NDArray[np.int64]], float],
    **settings: Any,
) -> Chosen:
    """The cost with the best mean score over stratified folds; of equals the smaller one.

    Args:
        score: of N x C scores and labels, in percent.
        settings: of `fit`.

    Raises:
        ConfigError: no positive cost, or a class has fewer examples than there are folds.
    """
    if not costs or min(costs) <= 0:
        raise ConfigError(f"costs={list(costs)}: give positive numbers")
    fewest = int(np.unique(y, return_counts=True)[1].min())
    if not 2 <= folds <= fewest:
        raise ConfigError(
            f"folds={folds}: choose 2 to {fewest}, the examples of the smallest class"
            if fewest >= 2
            else "a class has a single example: cross-validation needs two or more"
        )
    splits = list(StratifiedKFold(folds, shuffle=True, random_state=seed % 2**32).split(x, y))
    means = {}
    for cost in sorted(costs):
        found = [
            score(
                scores_of(fit(x[kept], y[kept], cost=cost, seed=seed, **settings), x[held]),
                y[held],
            )
            for kept, held in splits
        ]
        means[float(cost)] = float(np.mean(found))
    return Chosen(max(means, key=lambda cost: (means[cost], -cost)), means)


def accuracy(scores: Features, labels: NDArray[np.int64]) -> float:
    """Percent of the rows of N x C whose largest score is the label's."""
    return 100.0 * float((scores.argmax(axis=1) == labels).mean())


def average_precision(scores: Features, present: NDArray[np.int64]) -> dict[str, float]:
    """AP of one class, in percent, by both of VOC's forms.

    Args:
        scores: N.
        present: N, 1 or 0.

    Returns:
        area: under the curve made monotone (VOC 2010 on, and what benchmarks of self-supervised
        nets report for VOC07); 11point: VOC 2007's own. NaN without a positive.
    """
    if not present.any():
        return {"area": float("nan"), "11point": float("nan")}
    hits = np.cumsum(present[np.argsort(-scores, kind="stable")], dtype=np.float64)
    recall, precision = hits / present.sum(), hits / np.arange(1, len(hits) + 1)
    return {
        "area": 100.0 * ap_area(recall, precision),
        "11point": 100.0 * ap_11_point(recall, precision),
    }
