"""What is foreseen of a training: bytes, time, and that nothing of it is left."""

import pytest
import torch
from torch import nn

from visrep.engine import forecast
from visrep.engine.forecast import Forecast, activations, foresee
from visrep.errors import UserError

CPU = torch.device("cpu")


def net():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(), nn.Flatten()
    )


def test_bytes_are_those_that_the_graph_keeps():
    """Input 4 x 3 x 16 x 16; after it the maps of 4 x 8 x 16 x 16 that each layer needs again."""
    model, images = net(), torch.randn(4, 3, 16, 16)
    with activations(model[:3]) as kept:
        out = model[:3](images)
    one = 4 * 8 * 16 * 16 * 4
    statistics = 2 * 8 * 4  # of this batch
    # The convolution keeps the images, the norm its input, the ReLU its output.
    assert kept[0] - (4 * 3 * 16 * 16 * 4 + 2 * one) in range(statistics + 8 * 4 + 1)
    assert out.grad_fn is not None
    with activations(model[:3]) as double:
        model[:3](torch.randn(8, 3, 16, 16))
    assert 1.98 < double[0] / kept[0] <= 2.0
    with activations(model) as none, torch.no_grad():
        model(images)
    assert none[0] == 0


def passes(model, **given):
    def loss(images):
        return model(images).square().mean()

    generator = torch.Generator().manual_seed(0)
    small, large = (torch.randn(n, 3, 8 * n, 8 * n, generator=generator) for n in (1, 2))
    values = {"largest": large, "ordinary": small, "device": CPU, "steps": 100, "advice": "less"}
    return foresee(model, loss=loss, **{**values, **given})


def test_nothing_of_it_is_left():
    model = net().train()
    model[0].weight.grad = torch.ones_like(model[0].weight)
    state = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    found = passes(model, parts=2)
    assert torch.equal(torch.rand(3), expected), "dropout has drawn from a generator of its own"
    assert all(torch.equal(state[name], value) for name, value in model.state_dict().items())
    assert torch.equal(model[0].weight.grad, torch.ones_like(model[0].weight))
    assert model[0].bias.grad is None and model.training
    weights = sum(p.numel() for p in model.parameters()) * 4
    buffers = sum(b.numel() * b.element_size() for b in model.buffers())
    assert found.needed > 3 * weights + buffers + 2 * (2 * 8 * 16 * 16 * 4)
    assert found.steps == 100 and found.seconds > 0


def test_what_cannot_fit_is_refused(monkeypatch):
    monkeypatch.setattr(forecast, "available", lambda device: 40_000)
    with pytest.raises(UserError, match="does not fit into .* are free on cpu: accumulate=4 takes"):
        passes(net(), advice="accumulate=4 takes it in parts")
    monkeypatch.setattr(forecast, "available", lambda device: 0)
    assert passes(net()).available == 0, "nobody knows, so nothing is refused"
    assert forecast.available(CPU) >= 0


def test_it_is_said_in_a_line():
    found = Forecast(steps=24000, seconds=11160, needed=int(9.8 * 2**30), available=79 * 2**30)
    assert found.line() == (
        "forecast: 3.1 h for 24,000 steps; 9.8 GiB at the largest batch (of 79)"
    )
    short = Forecast(steps=60, seconds=90, needed=2**29, available=0)
    assert short.line() == "forecast: 1.5 min for 60 steps; 0.5 GiB at the largest batch"
