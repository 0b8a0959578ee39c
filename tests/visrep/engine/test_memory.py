"""Tests of the line on memory that does not suffice."""

import pytest
import torch

from visrep.engine import memory


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), "2.00 GiB"),
        (MemoryError("Unable to allocate"), "machine"),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to"), "batch_size="),
    ],
)
def test_an_allocation_that_fails_is_one_line(error, said):
    line = str(memory.explained(error))
    assert said in line and "\n" not in line


def test_torch_itself_is_understood():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(2**60, dtype=torch.uint8)
    assert memory.explained(caught.value) is not None


def test_other_errors_are_not_explained():
    assert memory.explained(RuntimeError("shapes do not fit")) is None
