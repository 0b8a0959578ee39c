"""Weighted k-nearest-neighbour classification (Wu et al. 2018, arXiv 1805.01978, section 3.4).

    N  queries   M  bank entries   D  feature width   C  classes   k  neighbours   T  temperature

Each of the k nearest bank entries votes for its class with weight exp(s / T), s its cosine to the
query. The search is exact; only chunk x chunk similarities are in memory at a time.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


@torch.no_grad()
def nearest(bank: Tensor, queries: Tensor, *, k: int, chunk: int = 32768) -> tuple[Tensor, Tensor]:
    """The k nearest bank entries of each query: cosines N x k, falling, and indices N x k.

    On the bank's device; k is the whole bank when it holds fewer.

    Args:
        bank, queries: M x D and N x D, any length and floating type; normalised here in float32.
        chunk: bank entries per block. A block of queries is an eighth of it.

    Raises:
        ValueError: k or chunk is not positive, or the bank is empty.
    """
    if k < 1 or chunk < 1 or len(bank) == 0:
        raise ValueError(
            f"kNN needs a bank, k >= 1 and chunk >= 1; got {len(bank)} entries, k={k}, "
            f"chunk={chunk}"
        )
    bank = F.normalize(bank.float(), dim=1)  # M x D
    blocks = [
        _search(bank, F.normalize(block.to(bank.device).float(), dim=1), min(k, len(bank)), chunk)
        for block in queries.split(max(1, chunk // 8))
    ]
    if not blocks:
        return bank.new_zeros(0, k), torch.zeros(0, k, dtype=torch.int64, device=bank.device)
    return torch.cat([cosine for cosine, _ in blocks]), torch.cat([index for _, index in blocks])


@torch.no_grad()
def votes(cosine: Tensor, label: Tensor, *, temperature: float, classes: int) -> Tensor:
    """Shares of the votes: N x C, rows sum to 1; cosine, label: N x k, of the neighbours."""
    if temperature <= 0:
        raise ValueError(f"kNN needs a temperature above 0, not {temperature}")
    # A softmax over the neighbours is exp(s / T) up to a factor per query, and cannot overflow.
    weight = (cosine / temperature).softmax(dim=1)
    return weight.new_zeros(len(weight), classes).scatter_add_(1, label, weight)


def knn_scores(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    classes: int | None = None,
    chunk: int = 32768,
) -> Tensor:
    """Votes of the k nearest neighbours, on the bank's device: N x C float32, rows sum to 1.

    Args:
        bank, queries, k, chunk: as in `nearest`.
        labels: M, int64 in [0, classes).
        temperature: T > 0.
        classes: C; the largest label + 1 when not given.

    Raises:
        ValueError: k, temperature or chunk is not positive, or the bank is empty.
    """
    cosine, index = nearest(bank, queries, k=k, chunk=chunk)
    classes = int(labels.max()) + 1 if classes is None else classes
    label = labels.to(bank.device)[index]
    return votes(cosine, label, temperature=temperature, classes=classes)


def _search(bank: Tensor, queries: Tensor, k: int, chunk: int) -> tuple[Tensor, Tensor]:
    """Cosine and index of the k nearest entries of each query, all of unit length: n x k, n x k."""
    best = queries.new_empty(len(queries), 0)
    index = torch.empty(len(queries), 0, dtype=torch.int64, device=queries.device)
    for start in range(0, len(bank), chunk):
        entries = bank[start : start + chunk]
        similarity, where = (queries @ entries.T).topk(min(k, len(entries)), dim=1)
        best = torch.cat([best, similarity], dim=1)
        index = torch.cat([index, where + start], dim=1)
        best, kept = best.topk(min(k, best.shape[1]), dim=1)
        index = index.gather(1, kept)
    return best, index


def knn_predict(
    bank: Tensor,
    labels: Tensor,
    queries: Tensor,
    *,
    k: int = 200,
    temperature: float = 0.07,
    classes: int | None = None,
    chunk: int = 32768,
) -> Tensor:
    """The class with the largest vote, N int64; arguments as in `knn_scores`."""
    return knn_scores(
        bank, labels, queries, k=k, temperature=temperature, classes=classes, chunk=chunk
    ).argmax(dim=1)
