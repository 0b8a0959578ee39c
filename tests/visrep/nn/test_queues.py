"""The ring buffer: what it holds, where it writes, what it refuses."""

import pytest
import torch

from visrep.errors import ConfigError
from visrep.nn.queues import Queue


def test_it_holds_the_last_k_in_the_order_of_arrival() -> None:
    queue = Queue(size=6, dim=1)
    for first in range(0, 10, 2):
        queue.push(torch.tensor([[first], [first + 1.0]]))
    assert queue.keys.flatten().tolist() == [6, 7, 8, 9, 4, 5]
    assert queue.pointer == 4


def test_the_pointer_is_home_after_a_full_turn() -> None:
    queue = Queue(size=65536, dim=1)
    for _ in range(256):
        queue.push(torch.zeros(256, 1))
    assert queue.pointer == 0 and not queue.keys.any()


def test_a_push_changes_only_its_rows_and_keeps_the_type() -> None:
    queue = Queue(size=4, dim=2)
    before = queue.keys.clone()
    queue.push(torch.ones(2, 2, dtype=torch.float64))
    assert queue.keys.dtype == torch.float32
    assert torch.equal(queue.keys[:2], torch.ones(2, 2))
    assert torch.equal(queue.keys[2:], before[2:])


def test_it_keeps_no_gradient() -> None:
    queue = Queue(size=2, dim=2)
    queue.push(torch.ones(2, 2, requires_grad=True))
    assert not queue.keys.requires_grad


def test_it_is_part_of_the_state() -> None:
    queue, other = Queue(size=4, dim=2), Queue(size=4, dim=2)
    queue.push(torch.ones(2, 2))
    other.load_state_dict(queue.state_dict())
    assert torch.equal(other.keys, queue.keys) and other.pointer == 2


def test_it_refuses_what_does_not_fit() -> None:
    with pytest.raises(ConfigError, match=r"10.*4"):
        Queue(size=10, dim=2).push(torch.zeros(4, 2))
    with pytest.raises(ConfigError, match="at least one"):
        Queue(size=0, dim=2)
