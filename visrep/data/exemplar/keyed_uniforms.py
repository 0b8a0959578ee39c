"""Uniform random numbers that are looked up, not drawn in turn.

Row k of a seed is a function of (seed, k): any rows can be had in any order, on any process, with
no table to keep and no generator to restore.
"""

import numpy as np

_GOLDEN = np.uint64(0x9E3779B97F4A7C15)
_MIX_1 = np.uint64(0xBF58476D1CE4E5B9)
_MIX_2 = np.uint64(0x94D049BB133111EB)


def keyed_uniforms(rows: np.ndarray, *, count: int, seed: int) -> np.ndarray:
    """`count` numbers in [0, 1) for each of the n `rows`: float64 n x count.

    The stream is SplitMix64 (Steele, Lea and Flood 2014) at position row * count + column.

    Args:
        rows: int64 n, none negative.
        seed: 0 <= seed < 2^64, well mixed (`visrep.seeds.derive_seed`).
    """
    column = np.arange(1, count + 1, dtype=np.uint64)
    x = rows.astype(np.uint64)[:, None] * np.uint64(count) + column
    x = x * _GOLDEN + np.uint64(seed)
    x = (x ^ (x >> np.uint64(30))) * _MIX_1
    x = (x ^ (x >> np.uint64(27))) * _MIX_2
    x ^= x >> np.uint64(31)
    return (x >> np.uint64(11)) * 2.0**-53
