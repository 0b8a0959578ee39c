"""Re-estimated statistics are those of all values, for our batch norm and torch's."""

import pytest
import torch
from torch import nn

from visrep.engine.precise_bn import reestimate
from visrep.nn.batchnorm import BatchNorm


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm2d])
def test_statistics_are_those_of_all_batches(norm):
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 5, 5) * (1 + k) + k for k in range(6)]
    model = nn.Sequential(norm(3)).eval()
    weight = model[0].weight.clone()
    assert reestimate(model, iter(batches), count=6, forward=model) == 1
    every = torch.cat(batches)
    assert torch.allclose(model[0].running_mean, every.mean((0, 2, 3)), atol=1e-5)
    # The batches' own variances are unbiased ones, of 100 values each.
    spread = torch.stack([b.var((0, 2, 3)) + b.mean((0, 2, 3)) ** 2 for b in batches]).mean(0)
    want = spread - every.mean((0, 2, 3)) ** 2
    assert torch.allclose(model[0].running_var, want, rtol=1e-5)
    assert model[0].momentum == 0.1 and torch.equal(model[0].weight, weight)


@pytest.mark.parametrize("norm", [BatchNorm, nn.BatchNorm2d])
def test_without_what_is_between_batches_it_is_the_mean_of_their_variances(norm):
    torch.manual_seed(0)
    batches = [torch.randn(4, 3, 5, 5) * (1 + k) + k for k in range(3)]
    model = nn.Sequential(norm(3)).eval()
    reestimate(model, iter(batches), count=3, forward=model, between=False)
    for name, values in (
        ("running_mean", [b.mean((0, 2, 3)) for b in batches]),
        ("running_var", [b.var((0, 2, 3)) for b in batches]),
    ):
        torch.testing.assert_close(getattr(model[0], name), torch.stack(values).mean(0))
    assert model[0].momentum == 0.1


def test_only_as_many_batches_as_asked_and_no_gradient():
    drawn = []

    def batches():
        for k in range(10):
            drawn.append(k)
            yield torch.randn(4, 2)

    model = nn.Sequential(nn.Linear(2, 2), BatchNorm(2))
    outputs = []
    reestimate(model, batches(), count=3, forward=lambda x: outputs.append(model(x)))
    assert drawn == [0, 1, 2]
    assert not any(output.requires_grad for output in outputs)


def test_momentum_comes_back_after_an_error():
    model = nn.Sequential(BatchNorm(2))
    with pytest.raises(StopIteration):
        reestimate(model, iter([torch.randn(4, 2)]), count=2, forward=model)
    assert model[0].momentum == 0.1
