"""Known answers of the weighted vote, and a plain loop as oracle."""

import math

import pytest
import torch

from visrep.nn.knn import knn_predict, knn_scores


def unit(cosine: float) -> list[float]:
    return [cosine, math.sqrt(1 - cosine**2)]


def test_bank_queried_with_itself_is_perfect_at_k_1() -> None:
    bank = torch.randn(200, 16, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(200) % 7
    assert torch.equal(knn_predict(bank, labels, bank, k=1), labels)


@pytest.mark.parametrize(("temperature", "winner"), [(0.1, 0), (0.2, 1)])
def test_temperature_decides_between_one_near_and_two_far(temperature: float, winner: int) -> None:
    # cos 0.9 once against cos 0.8 twice: e^9 > 2 e^8 but e^4.5 < 2 e^4.
    bank = torch.tensor([unit(0.9), unit(0.8), unit(0.8)])
    labels = torch.tensor([0, 1, 1])
    query = torch.tensor([[3.0, 0.0]])  # its length must not matter
    scores = knn_scores(bank, labels, query, k=3, temperature=temperature)
    near, far = math.exp(0.9 / temperature), 2 * math.exp(0.8 / temperature)
    torch.testing.assert_close(scores, torch.tensor([[near, far]]) / (near + far))
    assert knn_predict(bank, labels, query, k=3, temperature=temperature).item() == winner


def test_matches_a_plain_loop_for_any_chunk() -> None:
    draw = torch.Generator().manual_seed(1)
    bank, queries = torch.randn(90, 8, generator=draw), torch.randn(40, 8, generator=draw)
    labels = torch.randint(0, 5, (90,), generator=draw)
    expected = torch.zeros(40, 5, dtype=torch.float64)
    for i, query in enumerate(queries.double()):
        cosine = [float(query @ b / (query.norm() * b.norm())) for b in bank.double()]
        for j in sorted(range(90), key=lambda j: -cosine[j])[:11]:
            expected[i, labels[j]] += math.exp(cosine[j] / 0.07)
    expected /= expected.sum(dim=1, keepdim=True)
    for chunk in (1, 7, 64, 32768):
        scores = knn_scores(bank, labels, queries, k=11, temperature=0.07, classes=5, chunk=chunk)
        torch.testing.assert_close(scores.double(), expected, rtol=1e-4, atol=1e-5)


def test_tiny_temperature_stays_finite() -> None:
    bank, labels = torch.eye(3), torch.arange(3)
    scores = knn_scores(bank, labels, bank, k=3, temperature=1e-3)
    torch.testing.assert_close(scores, torch.eye(3))


def test_k_larger_than_the_bank_asks_the_whole_bank() -> None:
    bank, labels = torch.eye(3), torch.tensor([0, 1, 1])
    query = torch.ones(1, 3)
    small = knn_scores(bank, labels, query, k=3)
    assert torch.equal(knn_scores(bank, labels, query, k=50), small)
    torch.testing.assert_close(small, torch.tensor([[1 / 3, 2 / 3]]))


@pytest.mark.parametrize("wrong", [{"k": 0}, {"temperature": 0.0}, {"chunk": 0}])
def test_wrong_arguments_are_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match="kNN needs"):
        knn_scores(torch.eye(2), torch.arange(2), torch.eye(2), **wrong)


def test_empty_bank_is_refused_and_no_query_is_no_answer() -> None:
    with pytest.raises(ValueError, match="kNN needs"):
        knn_scores(torch.empty(0, 2), torch.empty(0, dtype=torch.int64), torch.eye(2))
    assert knn_scores(torch.eye(2), torch.arange(2), torch.empty(0, 2)).shape == (0, 2)
