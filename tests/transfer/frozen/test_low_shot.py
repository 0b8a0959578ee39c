"""`visrep low_shot`: the draws and the command."""

from pathlib import Path

import numpy as np
import pytest
import torch

from tests.small_data import composed
from visrep import results
from visrep.errors import ConfigError
from visrep.transfer.frozen import low_shot
from visrep.transfer.frozen.low_shot import ranks_in_class


def test_a_draw_is_balanced_nested_and_a_function_of_seed_and_draw() -> None:
    labels = torch.tensor([0] * 30 + [1] * 9 + [2] * 20)[torch.randperm(59)]
    ranks = ranks_in_class(labels, seed=0, draw=1)
    for count in (1, 4, 9):
        assert torch.bincount(labels[ranks < count]).tolist() == [count] * 3
    assert set((ranks < 4).nonzero()[:, 0].tolist()) < set((ranks < 9).nonzero()[:, 0].tolist())
    assert torch.equal(ranks_in_class(labels, seed=0, draw=1), ranks)
    assert not torch.equal(ranks_in_class(labels, seed=0, draw=2), ranks)
    assert not torch.equal(ranks_in_class(labels, seed=1, draw=1), ranks)


def run(root: Path, out: str, *overrides: str) -> list[results.Record]:
    place = root.parent / out
    weights = f"weights={root.parent / 'encoder.safetensors'}"
    low_shot.main(composed("low_shot", root, weights, f"out={place}", *overrides))
    return results.read(place / "results.jsonl")


def test_mean_and_deviation_over_the_draws(root: Path) -> None:
    settings = ("shots=[1,4,16]", "draws=5", "output=layers", "normalize=standard")
    records = run(root, "a", *settings)
    assert [record.extra["shots"] for record in records] == [1, 4, 16]
    for record in records:
        values = record.extra["values"]
        assert (record.task, record.metric, len(values)) == ("low_shot", "top1", 5)
        assert record.value == pytest.approx(np.mean(values))
        assert record.extra["deviation"] == pytest.approx(np.std(values, ddof=1))
    assert len(set(records[0].extra["values"])) > 1
    assert records[2].value > records[0].value  # more labels are better
    assert [r.value for r in run(root, "b", *settings)] == [r.value for r in records]
    (single,) = run(root, "c", "shots=[2]", "draws=1")
    assert single.extra["deviation"] == 0


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("shots=[0,1]", "1 or more"),
        ("shots=[]", "1 or more"),
        ("draws=0", "1 or more"),
        ("cost=0", "above 0"),
        ("normalize=max", "normalize=max"),
        ("shots=[21]", "has only 20 images"),
    ],
)
def test_wrong_settings(root: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(root, "never", override)
