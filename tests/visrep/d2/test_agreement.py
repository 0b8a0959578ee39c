"""What features are compared under."""

import torch

from visrep.d2.agreement import exact
from visrep.nn.resnet import ResNet


def test_features_are_compared_in_whole_float32_and_all_is_put_back(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    before = torch.get_float32_matmul_precision()
    torch.set_float32_matmul_precision("high")
    net = ResNet(depth=18, width=0.0625).train()
    net.layer1.eval()
    try:
        with exact(net):
            assert torch.get_float32_matmul_precision() == "highest"
            assert torch.backends.cudnn.enabled and not torch.backends.cudnn.allow_tf32
            assert not net.training and not torch.is_grad_enabled()
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)
    assert torch.backends.cudnn.allow_tf32 and net.training and not net.layer1.training
