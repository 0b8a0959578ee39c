"""Which samples a step takes."""

import pytest
import torch

from visrep.data.order import Order, total_steps
from visrep.errors import ConfigError
from visrep.seeds import epoch_order


def test_an_epoch_is_cut_into_whole_batches():
    order = Order(22, batch_size=4, seed=3, continuous=False)
    assert order.steps_per_epoch == 5
    for step in range(12):
        epoch, batch = divmod(step, 5)
        expected = epoch_order(22, seed=3, epoch=epoch)[4 * batch : 4 * batch + 4]
        assert torch.equal(order.of(step), expected)


@pytest.mark.parametrize("batch_size", [4, 11, 22, 50])
def test_a_continuous_stream_is_the_epochs_one_after_another(batch_size):
    order = Order(22, batch_size=batch_size, seed=3, continuous=True)
    expected = torch.cat([epoch_order(22, seed=3, epoch=epoch) for epoch in range(12)])
    found = torch.cat([order.of(step) for step in range(200 // batch_size)])
    assert torch.equal(found, expected[: len(found)])


def test_what_is_handed_out_may_be_changed():
    order = Order(8, batch_size=8, seed=0, continuous=False)
    order.of(0).zero_()
    assert torch.equal(order.of(0), epoch_order(8, seed=0, epoch=0))


def test_each_process_takes_its_part(monkeypatch):
    monkeypatch.setattr("visrep.dist.world_size", lambda: 3)
    monkeypatch.setattr("visrep.dist.rank", lambda: 1)
    assert Order(30, batch_size=12, seed=0, continuous=False).slice == slice(4, 8)
    with pytest.raises(ConfigError, match="batch_size=10 does not divide over 3 processes"):
        Order(30, batch_size=10, seed=0, continuous=False)


@pytest.mark.parametrize(
    ("images", "epochs", "batch_size", "steps"),
    [
        (12811, 60, 1024, 751),
        (128116, 30, 1024, 3754),
        (1281167, 30, 1024, 37535),
        (1281167, 90, 4096, 28151),
        (1281167, 800, 4096, 250228),
        (1281167, 400, 4096, 125114),
        (1281167, 100, 4096, 31279),  # where 100 epochs of full batches are 31,200
        (7, 3, 7, 4),
        (5, 2, 16, 1),  # a batch larger than the data
    ],
)
def test_steps(images: int, epochs: int, batch_size: int, steps: int) -> None:
    assert total_steps(images, epochs=epochs, batch_size=batch_size) == steps


def test_no_epoch_is_refused() -> None:
    with pytest.raises(ConfigError, match="above 0"):
        total_steps(10, epochs=0, batch_size=4)
