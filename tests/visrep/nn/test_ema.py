import pytest
import torch
from torch import nn

from visrep.nn import ema
from visrep.nn.resnet import ResNet


def test_known_answer() -> None:
    target, source = nn.Linear(2, 2), nn.Linear(2, 2)
    for module, value in ((target, 0.0), (source, 1.0)):
        for p in module.parameters():
            nn.init.constant_(p, value)
    ema.update(target, source, momentum=0.999)
    torch.testing.assert_close(target.weight, torch.full((2, 2), 0.001))
    for _ in range(999):
        ema.update(target, source, momentum=0.999)
    torch.testing.assert_close(target.bias, torch.full((2,), 0.63230457), rtol=1e-4, atol=0)
    assert (source.weight == 1).all()


def test_copy_is_apart_and_gets_no_gradient() -> None:
    net = ResNet(depth=18, width=0.125, stem="small")
    copy = ema.copy_of(net)
    assert isinstance(copy, ResNet) and copy.spec == net.spec
    assert not any(p.requires_grad for p in copy.parameters())
    assert all(p.requires_grad for p in net.parameters())
    before = net.conv1.weight.detach().clone()
    nn.init.zeros_(net.conv1.weight)
    assert torch.equal(copy.conv1.weight, before) and before.any()


def test_buffers_stay() -> None:
    net = ResNet(depth=18, width=0.125, stem="small")
    copy = ema.copy_of(net)
    net(torch.randn(4, 3, 16, 16))
    nn.init.ones_(net.bn1.weight)
    nn.init.zeros_(copy.bn1.weight)
    ema.update(copy, net, momentum=0.75)
    assert (copy.bn1.weight == 0.25).all()
    assert (copy.bn1.running_mean == 0).all() and (net.bn1.running_mean != 0).any()
    assert copy.bn1.num_batches_tracked == 0


def test_momentum_of_1_and_0() -> None:
    target, source = nn.Linear(3, 3), nn.Linear(3, 3)
    before = target.weight.clone()
    ema.update(target, source, momentum=1.0)
    assert torch.equal(target.weight, before)
    ema.update(target, source, momentum=0.0)
    assert torch.equal(target.weight, source.weight)


def test_other_networks_are_refused() -> None:
    with pytest.raises(ValueError, match="not the same network"):
        ema.update(nn.Linear(2, 2), nn.Linear(2, 2, bias=False), momentum=0.9)
