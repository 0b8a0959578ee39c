"""SVMs, their normalisation, the choice of their cost, average precision."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from visrep.errors import ConfigError
from visrep.transfer.frozen import linear_svm
from visrep.transfer.frozen.linear_svm import (
    Normaliser,
    accuracy,
    average_precision,
    choose_cost,
    fit,
    scores_of,
)


def blobs(n: int = 90, d: int = 5, classes: int = 3, *, seed: int = 0):
    rng = np.random.default_rng(seed)
    labels = np.arange(n) % classes
    x = rng.normal(size=(n, d))
    x[np.arange(n), labels] += 3
    return x, labels


def objective(w: np.ndarray, b: float, x: np.ndarray, y: np.ndarray, cost: float) -> float:
    """liblinear's primal: the bias is penalised as a weight of a constant feature."""
    margins = np.maximum(0, 1 - y * (x @ w + b))
    return 0.5 * (w @ w + b * b) + cost * float((margins**2).sum())


def test_one_against_all_minimises_the_squared_hinge_of_each_class() -> None:
    x, labels = blobs()
    svm = fit(x, labels, cost=0.3, seed=0, tolerance=1e-6, max_iter=100000)
    for i in range(3):
        y = np.where(labels == i, 1.0, -1.0)
        w, b = svm.coef_[i], float(svm.intercept_[i])
        best = objective(w, b, x, y, 0.3)
        rng = np.random.default_rng(i)
        for step in (1e-1, 1e-2, 1e-3):
            for _ in range(20):
                move = step * rng.normal(size=6)
                assert objective(w + move[:5], b + move[5], x, y, 0.3) > best
    np.testing.assert_allclose(scores_of(svm, x), x @ svm.coef_.T + svm.intercept_)
    assert accuracy(scores_of(svm, x), labels) > 90


def test_two_classes_have_two_columns() -> None:
    x, labels = blobs(classes=2)
    scores = scores_of(fit(x, labels, cost=1.0, seed=0), x)
    assert scores.shape == (90, 2) and accuracy(scores, labels) > 90
    np.testing.assert_array_equal(scores[:, 0], -scores[:, 1])


def test_weight_of_the_positives_and_a_single_class() -> None:
    x, labels = blobs(classes=2)
    even = fit(x, labels, cost=1.0, seed=0).decision_function(x)
    heavy = fit(x, labels, cost=1.0, seed=0, positive_weight=5.0).decision_function(x)
    assert heavy.mean() > even.mean() + 0.05
    with pytest.raises(ConfigError, match="two classes"):
        fit(x, np.zeros(90, dtype=int), cost=1.0, seed=0)


def test_normalisation_is_learnt_from_the_train_set() -> None:
    rng = np.random.default_rng(0)
    train, test = rng.normal(3, 2, (50, 4)), rng.normal(0, 1, (9, 4))
    train[:, 1] = test[:, 1] = 7.0  # it never varies
    standard = Normaliser.of("standard", train)
    got = standard(train)
    np.testing.assert_allclose(got.mean(axis=0), 0, atol=1e-12)
    np.testing.assert_allclose(got.std(axis=0), [0.5, 0, 0.5, 0.5])  # 1 / sqrt(D)
    want = (test - train.mean(axis=0))[:, 0] / train[:, 0].std() / 2
    np.testing.assert_allclose(standard(test)[:, 0], want)
    lengths = np.linalg.norm(Normaliser.of("l2", train)(test), axis=1)
    np.testing.assert_allclose(lengths, 1)
    assert np.array_equal(Normaliser.of("l2", train)(np.zeros((2, 4))), np.zeros((2, 4)))
    assert Normaliser.of("none", train)(test) is test
    with pytest.raises(ConfigError, match="normalize=max"):
        Normaliser.of("max", train)


def test_the_cost_is_the_best_on_held_out_folds(monkeypatch: pytest.MonkeyPatch) -> None:
    x, labels = blobs(n=60)
    seen: list[tuple[float, int]] = []
    real = linear_svm.fit

    def spy(some: np.ndarray, y: np.ndarray, *, cost: float, **settings: object):
        seen.append((cost, len(some)))
        return real(some, y, cost=cost, **settings)

    monkeypatch.setattr(linear_svm, "fit", spy)
    chosen = choose_cost(x, labels, costs=[1.0, 1e-9, 0.1], folds=3, seed=0, score=accuracy)
    assert sorted(seen) == [(cost, 40) for cost in (1e-9, 0.1, 1.0) for _ in range(3)]
    assert chosen.scores[chosen.cost] == max(chosen.scores.values())
    assert list(chosen.scores) == [1e-9, 0.1, 1.0]

    ties = choose_cost(x, labels, costs=[2.0, 1.0], folds=2, seed=0, score=lambda *_: 50.0)
    assert ties.cost == 1.0  # of equals the smaller


@pytest.mark.parametrize(
    ("costs", "folds", "message"),
    [([], 2, "costs="), ([0.0], 2, "costs="), ([1.0], 1, "folds=1"), ([1.0], 31, "choose 2 to 30")],
)
def test_a_choice_that_cannot_be_made(costs: list, folds: int, message: str) -> None:
    x, labels = blobs()
    with pytest.raises(ConfigError, match=message):
        choose_cost(x, labels, costs=costs, folds=folds, seed=0, score=accuracy)
    single = np.append(labels[:-1], 3)
    with pytest.raises(ConfigError, match="single example|costs="):
        choose_cost(x, single, costs=costs, folds=2, seed=0, score=accuracy)


def test_average_precision_of_both_forms() -> None:
    # By falling score: hit, miss, hit, miss; precision 1, 1/2, 2/3, 1/2 at recall .5, .5, 1, 1.
    ap = average_precision(np.array([0.9, 0.8, 0.7, 0.6]), np.array([1, 0, 1, 0]))
    assert ap["area"] == pytest.approx(100 * (0.5 * 1 + 0.5 * 2 / 3))
    assert ap["11point"] == pytest.approx(100 * (6 * 1 + 5 * 2 / 3) / 11)
    perfect = average_precision(np.array([0.1, 0.9]), np.array([0, 1]))
    assert perfect == {"area": pytest.approx(100), "11point": pytest.approx(100)}
    assert np.isnan(average_precision(np.array([0.1]), np.array([0]))["area"])
    rng = np.random.default_rng(0)
    present = rng.integers(0, 2, 200)
    scores = present + rng.normal(size=200)
    # scikit-learn's has no envelope, so it is at most as large, and close.
    theirs = 100 * average_precision_score(present, scores)
    assert theirs <= average_precision(scores, present)["area"] < theirs + 3
