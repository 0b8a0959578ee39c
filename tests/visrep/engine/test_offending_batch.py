"""The first step that is not finite, on any process; its batch; what to do about it."""

import pytest
import torch
from torch import nn

from tests.processes import run_on_two
from visrep import dist
from visrep.engine.offending_batch import FiniteWatch, advice, keep_batch
from visrep.engine.optim import LARS

CPU = torch.device("cpu")


def watched() -> tuple[nn.Module, FiniteWatch]:
    net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
    for p in net.parameters():
        p.grad = torch.zeros_like(p)
    return net, FiniteWatch(net, CPU)


def test_all_is_well() -> None:
    net, watch = watched()
    for step in range(3):
        watch.mark(step, torch.tensor(1.0))
    net[0].weight.grad = None  # frozen at this step
    watch.mark(3, torch.tensor(-1e30, dtype=torch.float64))
    assert watch.found(4) is None


@pytest.mark.parametrize("bad", [torch.nan, torch.inf, -torch.inf])
def test_the_first_step_counts_though_it_is_looked_for_later(bad: float) -> None:
    _, watch = watched()
    for step, loss in enumerate([1.0, 2.0, bad, 1.0, bad]):
        watch.mark(step, torch.tensor(loss))
    assert watch.found(5) == (2, "the loss is")


def test_gradients_and_what_they_leave_are_looked_at() -> None:
    net, watch = watched()
    watch.mark(0, torch.tensor(1.0))
    net[1].bias.grad[1] = torch.inf
    watch.mark(1, torch.tensor(1.0))
    net[1].bias.grad.zero_()
    watch.mark(2, torch.tensor(torch.nan))
    assert watch.found(3) == (1, "the gradients are")
    net, watch = watched()
    net[1].running_var[0] = torch.nan
    assert watch.found(7) == (6, "the weights are")


class Batches:
    def iterate(self, start_step):
        step = start_step
        while True:
            view = torch.full((2, 3), float(step))
            view[0, 0] = torch.nan if step == 5 and dist.rank() == dist.world_size() - 1 else 0.0
            yield {"views": [view], "index": torch.tensor([step]), "seed": 100 + step, "size": 2}
            step += 1


def test_the_batch_is_made_again(tmp_path) -> None:
    assert not keep_batch(tmp_path, batches=Batches(), step=2, accumulate=2)
    saved = torch.load(tmp_path / "offending_batch.pt", weights_only=True)
    assert saved["step"] == 2 and saved["rank"] == 0
    assert [batch["seed"] for batch in saved["micro_batches"]] == [104, 105]
    assert saved["micro_batches"][0]["index"].tolist() == [4]
    assert saved["micro_batches"][1]["views"][0][0, 0].isnan()
    assert keep_batch(None, batches=Batches(), step=4, accumulate=1)
    assert [path.name for path in tmp_path.iterdir()] == ["offending_batch.pt"]


def test_advice_names_the_knob() -> None:
    net = nn.Linear(2, 3)
    sgd = torch.optim.SGD(net.parameters(), lr=1.0)
    assert "the batch itself is not finite" in advice(sgd, batch_is_finite=False)
    assert "optim.lr" in advice(sgd, batch_is_finite=True)
    assert "optim.exclude=[norm,bias]" in advice(
        LARS(net.parameters(), lr=1.0), batch_is_finite=True
    )
    apart = [
        {"params": [net.weight], "adapt": True},
        {"params": [net.bias], "adapt": False},
    ]
    assert "exclude" not in advice(LARS(apart, lr=1.0), batch_is_finite=True)


def on_one_of_two(folder) -> tuple:
    _, watch = watched()
    for step in range(4):
        bad = dist.rank() == 1 and step == 2
        watch.mark(step, torch.tensor(torch.nan if bad else 1.0))
    return watch.found(4), keep_batch(folder, batches=Batches(), step=5, accumulate=1)


def test_every_process_hears_of_it(tmp_path) -> None:
    assert run_on_two(on_one_of_two, tmp_path) == (((2, "the loss is"), False),) * 2
    names = sorted(path.name for path in tmp_path.iterdir())
    assert names == ["offending_batch.pt", "offending_batch.rank1.pt"]
    share = torch.load(tmp_path / names[1], weights_only=True)
    assert share["rank"] == 1 and share["micro_batches"][0]["views"][0].isnan().any()
