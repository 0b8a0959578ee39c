import pytest
import torch
from torch import Tensor

from tests.processes import WorkerError
from visrep import dist


def test_one_process_is_the_identity() -> None:
    x = torch.randn(4, 3, requires_grad=True)
    assert (dist.rank(), dist.world_size(), dist.is_main()) == (0, 1, True)
    dist.barrier()
    for fn in (dist.gather, dist.sum, dist.mean, dist.broadcast):
        assert torch.equal(fn(x), x)
        assert not fn(x).requires_grad
    for fn in (dist.gather_with_grad, dist.sum_with_grad):
        assert fn(x) is x


def test_one_process_shuffles_and_brings_home() -> None:
    x = torch.arange(10.0)[:, None]
    seen = []

    def less_first(batch: Tensor) -> Tensor:  # depends on the order within the batch
        seen.append(batch)
        return batch - torch.arange(10.0)[:, None]

    out = dist.shuffled(less_first, x, seed=3)
    order = seen[0][:, 0].long()
    assert sorted(order.tolist()) == list(range(10)) and order.tolist() != list(range(10))
    for place, sample in enumerate(order):
        assert out[sample] == sample - place
    dist.shuffled(less_first, x, seed=3)
    dist.shuffled(less_first, x, seed=4)
    assert torch.equal(seen[1], seen[0]) and not torch.equal(seen[2], seen[0])


def _collectives(x: Tensor) -> dict[str, object]:
    r = dist.rank()
    mine = x + 100 * r
    images = mine[:, :, None, None].expand(-1, -1, 2, 5).contiguous()
    images = images.contiguous(memory_format=torch.channels_last)
    gathered = dist.gather(images)
    dist.barrier()
    return {
        "place": (r, dist.world_size(), dist.is_main()),
        "gather": dist.gather(mine),
        "int": dist.gather(torch.tensor([r, r + 1])),
        "uneven": dist.gather(mine[: 2 + r], equal=False),
        "images": gathered,
        "channels_last": gathered.is_contiguous(memory_format=torch.channels_last),
        "sum": dist.sum(mine),
        "mean": dist.mean(mine),
        "broadcast": dist.broadcast(mine.t()),
        "unchanged": torch.equal(mine, x + 100 * r),
        "grad": any(f(mine.requires_grad_()).requires_grad for f in (dist.gather, dist.sum)),
    }


def test_two_processes(two_processes) -> None:
    x = torch.arange(12.0).view(4, 3)
    both = torch.cat([x, x + 100])
    for r, got in enumerate(two_processes(_collectives, x)):
        assert got["place"] == (r, 2, r == 0)
        assert torch.equal(got["gather"], both)
        assert got["int"].tolist() == [0, 1, 1, 2]
        assert torch.equal(got["uneven"], torch.cat([x[:2], x[:3] + 100]))
        assert torch.equal(got["images"], both[:, :, None, None].expand(-1, -1, 2, 5))
        assert got["channels_last"]
        assert torch.equal(got["sum"], 2 * x + 100)
        assert torch.equal(got["mean"], x + 50)
        assert torch.equal(got["broadcast"], x.t())
        assert got["unchanged"] and not got["grad"]


def _contrast(mine: Tensor, everything: Tensor, first: int) -> Tensor:
    """A loss of each row against all rows: every process's loss depends on all the others' rows."""
    logits = mine @ everything.t()
    target = (torch.arange(len(mine)) + first + 1) % len(everything)
    return torch.nn.functional.cross_entropy(logits, target, reduction="sum")


def _contrast_gradient(rows: list[Tensor]) -> Tensor:
    x = rows[dist.rank()].requires_grad_()
    everything = dist.gather_with_grad(x, equal=False)
    _contrast(x, everything, 0 if dist.rank() == 0 else len(rows[0])).backward()
    assert x.grad is not None
    return x.grad


@pytest.mark.parametrize("sizes", [(3, 3), (2, 4)])
def test_gather_with_grad_sums_the_gradients_of_all(two_processes, sizes: tuple[int, int]) -> None:
    rows = torch.randn(6, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = rows.clone().requires_grad_()
    _contrast(x, x, 0).backward()
    got = two_processes(_contrast_gradient, list(rows.split(sizes)))
    torch.testing.assert_close(torch.cat(got), x.grad)


def _sum_gradient(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    x = rows[dist.rank()].requires_grad_()
    total = dist.sum_with_grad(x.square())
    ((dist.rank() + 1) * total.pow(3)).sum().backward()
    assert x.grad is not None
    return total.detach(), x.grad


def test_sum_with_grad(two_processes) -> None:
    rows = torch.randn(2, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    x = rows.clone().requires_grad_()
    total = x.square().sum(0)
    (3 * total.pow(3)).sum().backward()  # the losses of the two processes: 1 x and 2 x
    got = two_processes(_sum_gradient, list(rows))
    for r in (0, 1):
        torch.testing.assert_close(got[r][0], total.detach())
        torch.testing.assert_close(got[r][1], x.grad[r])


def _uneven(x: Tensor) -> Tensor:
    return dist.gather(x[: 1 + dist.rank()])


def test_uneven_rows_are_refused(two_processes) -> None:
    with pytest.raises(WorkerError, match=r"different numbers of rows to gather: \[1, 2\]"):
        two_processes(_uneven, torch.ones(4, 2))


def _centred_in_process(halves: list[Tensor], seed: int) -> tuple[Tensor, Tensor]:
    seen = []

    def centre(x: Tensor) -> Tensor:
        seen.append(x)
        return x - x.mean(0)

    return dist.shuffled(centre, halves[dist.rank()].requires_grad_(), seed), seen[0]


def test_shuffled_on_two_processes_is_one_with_two_groups(two_processes) -> None:
    x = torch.randn(8, 3, generator=torch.Generator().manual_seed(0))
    got = two_processes(_centred_in_process, list(x.split(4)), 7)
    seen = []

    def centre_halves(batch: Tensor) -> Tensor:
        seen.append(batch)
        return torch.cat([half - half.mean(0) for half in batch.split(4)])

    one = dist.shuffled(centre_halves, x, 7)
    torch.testing.assert_close(torch.cat([got[0][0], got[1][0]]), one)
    assert torch.equal(torch.cat([got[0][1], got[1][1]]), seen[0])  # dealt to the same places
    assert not got[0][0].requires_grad


def _fails_on_one(x: Tensor) -> Tensor:
    if dist.rank() == 1:
        raise RuntimeError("on purpose")
    return dist.sum(x)


def test_the_pool_survives_a_worker_that_fails(two_processes) -> None:
    with pytest.raises(WorkerError, match="on purpose"):
        two_processes(_fails_on_one, torch.ones(1))
    assert two_processes(dist.sum, torch.ones(1)) == (2.0, 2.0)  # the same workers or fresh ones
