"""Randomness as a function: a seed for every (run seed, purpose, step), with no state to save."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor


def derive_seed(*parts: int | str) -> int:
    """A 63-bit seed from integers and words, well mixed: near inputs give unrelated seeds."""
    text = "/".join(str(part) for part in parts)
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


def generator(*parts: int | str) -> torch.Generator:
    """A CPU generator seeded by `derive_seed(*parts)`."""
    return torch.Generator().manual_seed(derive_seed(*parts))


@contextmanager
def seeded(*parts: int | str) -> Iterator[None]:
    """Torch's own draws on the CPU, such as fresh weights, come from `derive_seed(*parts)` inside
    and go on outside as if nothing had been drawn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(*parts))
        yield


def epoch_order(size: int, *, seed: int, epoch: int) -> Tensor:
    """The order of `size` samples in `epoch`: a permutation, int64."""
    return torch.randperm(size, generator=generator(seed, "epoch", epoch))
