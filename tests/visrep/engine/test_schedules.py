"""The schedules' published values, and what they refuse."""

import math

import pytest

from visrep.engine.schedules import multistep, warmup_cosine
from visrep.errors import ConfigError


def test_cosine_has_the_values_of_the_finetune() -> None:
    schedule = warmup_cosine(751)  # SimCLR v2's finetune
    values = {t: 0.16 * schedule(t / 751) for t in (0, 1, 375, 750)}
    assert values[0] == 0.16
    assert values[1] == pytest.approx(0.1599993, abs=5e-8)
    assert values[375] == pytest.approx(0.0801673, abs=5e-8)
    assert values[750] == pytest.approx(7.0e-7, rel=1e-2)


@pytest.mark.parametrize(("total", "warmup"), [(100, 10), (751, 7), (250228, 12511)])
def test_warmup_starts_at_zero_and_peaks_at_its_end(total: int, warmup: int) -> None:
    schedule = warmup_cosine(total, warmup)
    assert schedule(0.0) == 0.0
    assert schedule(1 / total) == pytest.approx(1 / warmup)
    assert schedule(warmup / total) == 1.0
    assert schedule((warmup - 1) / total) < 1.0
    assert schedule((warmup + 1) / total) < 1.0
    middle = warmup + (total - warmup) // 2
    assert schedule(middle / total) == pytest.approx(0.5, abs=2 / (total - warmup))


def test_swav_starts_and_ends_above_zero() -> None:
    schedule = warmup_cosine(1000, 100, final=0.001, start=0.0625)  # 4.8, from 0.3
    assert 4.8 * schedule(0.0) == pytest.approx(0.3)
    assert schedule(0.1) == 1.0
    assert 4.8 * schedule(0.999) == pytest.approx(0.0048, abs=2e-5)


def test_a_rate_per_epoch_is_held_within_the_epoch() -> None:
    schedule = warmup_cosine(30, every=10)  # three epochs of ten steps
    values = [schedule(t / 30) for t in range(30)]
    want = [0.5 * (1 + math.cos(math.pi * epoch / 3)) for epoch in range(3)]
    assert values == pytest.approx([v for v in want for _ in range(10)])


def test_multistep_drops_at_the_milestone() -> None:
    schedule = multistep(200, [120, 160], 0.1)  # MoCo v1, in epochs
    values = [schedule(t / 200) for t in (0, 119, 120, 159, 160, 199)]
    assert values == pytest.approx([1, 1, 0.1, 0.1, 0.01, 0.01])
    warm = multistep(24000, [18000, 22000], 0.1, warmup=100)  # the detection recipe
    assert [warm(t / 24000) for t in (0, 50, 100)] == [0, 0.5, 1]
    with pytest.raises(ConfigError, match="increase"):
        multistep(200, [160, 120])


def test_a_warmup_as_long_as_the_run_is_refused() -> None:
    with pytest.raises(ConfigError, match="warmup_epochs"):
        warmup_cosine(10, 10)
    with pytest.raises(ConfigError, match="warmup_epochs"):
        multistep(10, [5], 0.1, 10)
