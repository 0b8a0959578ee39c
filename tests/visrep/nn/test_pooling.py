import pytest
import torch
import torch.nn.functional as F

from visrep.nn.pooling import AveragePool, MaxPool, pad_same, same_padding


def _ramp(size: int) -> torch.Tensor:
    return torch.arange(float(size * size)).view(1, 1, size, size)


def test_max_pool_on_a_ramp() -> None:
    tf = MaxPool(padding="tf")(_ramp(6)).flatten().tolist()
    assert tf == [14, 16, 17, 26, 28, 29, 32, 34, 35]
    assert MaxPool(padding="torch")(_ramp(6)).flatten().tolist() == [
        7,
        9,
        11,
        19,
        21,
        23,
        31,
        33,
        35,
    ]


def test_max_pool_pads_with_nothing_rather_than_zero() -> None:
    assert torch.equal(MaxPool(padding="tf")(_ramp(6) - 100), MaxPool(padding="tf")(_ramp(6)) - 100)


@pytest.mark.parametrize("size", [5, 6, 7, 56])
def test_max_pool_size_rounds_up_and_odd_sizes_agree(size: int) -> None:
    x = torch.randn(2, 3, size, size + 1)
    tf, pt = (MaxPool(padding=padding)(x) for padding in ("tf", "torch"))
    assert tf.shape == pt.shape == (2, 3, (size + 1) // 2, (size + 2) // 2)
    x = torch.randn(2, 3, 2 * size + 1, 7)
    assert torch.equal(MaxPool(padding="tf")(x), MaxPool(padding="torch")(x))


def test_average_pool_of_stride_1_on_a_ramp() -> None:
    inside = AveragePool(stride=1, padding="tf")(_ramp(3)).flatten().tolist()
    assert inside == [2, 3, 3.5, 5, 6, 6.5, 6.5, 7.5, 8]
    zeros = AveragePool(stride=1, padding="torch")(_ramp(3)).flatten().tolist()
    assert zeros == [2, 3, 1.75, 5, 6, 3.25, 3.25, 3.75, 2]
    x = torch.randn(2, 3, 6, 5)  # as replicating the last row and column
    expected = F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)
    torch.testing.assert_close(AveragePool(stride=1, padding="tf")(x), expected)


@pytest.mark.parametrize("padding", ["torch", "tf"])
def test_average_pool_of_stride_2(padding: str) -> None:
    pool = AveragePool(stride=2, padding=padding)
    x = torch.randn(2, 3, 56, 56)
    assert torch.equal(pool(x), F.avg_pool2d(x, 2, 2))
    x = torch.ones(1, 1, 55, 55)
    assert pool(x).shape[2:] == (28, 28)
    assert pool(x)[0, 0, -1, -1] == 0.25  # zeros beyond the border count


@pytest.mark.parametrize("kernel", [1, 2, 3, 7])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_the_same_rule(kernel: int, stride: int) -> None:
    for size in range(1, 20):
        before, after = same_padding(size, kernel, stride)
        outputs = (size + before + after - kernel) // stride + 1
        assert outputs == -(-size // stride)
        assert 0 <= after - before <= 1
        if before + after > 0:  # no smaller padding would do
            assert (size + before + after - 1 - kernel) // stride + 1 < outputs


def test_the_same_rule_on_known_sizes() -> None:
    assert same_padding(112, 3, 2) == (0, 1)
    assert same_padding(113, 3, 2) == (1, 1)
    assert same_padding(224, 7, 2) == (2, 3)
    assert same_padding(56, 1, 2) == (0, 0)
    x = pad_same(torch.ones(1, 1, 112, 113), kernel=3, stride=2, value=7.0)
    assert x.shape == (1, 1, 113, 115)
    assert x[0, 0, -1, 5] == x[0, 0, 5, 0] == x[0, 0, 5, -1] == 7 and x[0, 0, 0, 5] == 1
