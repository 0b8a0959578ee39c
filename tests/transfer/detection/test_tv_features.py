"""The check before torchvision's detector is trained."""

import pytest
import torch

from tests.oracles import encoders
from tests.transfer.detection.shapes import small_recipe
from visrep.data.preprocess import Preprocess
from visrep.errors import CheckFailed
from visrep.nn.resnet import ResNet
from visrep.transfer.detection.tv_detector import Detector
from visrep.transfer.detection.tv_features import verified


def detector_of(net, **settings):
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    recipe = small_recipe(**settings)
    return Detector(encoder=net, classes=2, recipe=recipe, preprocess=preprocess, seed=0)


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@pytest.mark.parametrize("head", ["c4", "dc5", "fpn"])
def test_a_detector_holds_its_encoder(head, norm):
    net = ResNet(depth=18, width=0.125, stem="small")
    detector = detector_of(net, head=head, norm=norm).train()
    before = {name: tensor.clone() for name, tensor in detector.state_dict().items()}
    assert verified(detector, net) == "100 of 100 tensors set; features equal to 1e-05"
    assert detector.training and all(p.grad is None for p in detector.parameters())
    assert all(torch.equal(before[n], t) for n, t in detector.state_dict().items())


@pytest.mark.parametrize("place", ["backbone.encoder.layer1.0", "roi_heads.box_head.layer4.1"])
def test_another_tensor_or_another_net_is_told(place):
    net = encoders.net()
    detector = detector_of(net, head="c4")
    block = detector.get_submodule(place)
    block.conv2.dilation, block.conv2.padding = (2, 2), (2, 2)
    with pytest.raises(CheckFailed, match=r"res\d differs by"):
        verified(detector, net)
    block.conv2.weight.data.mul_(1.01)
    with pytest.raises(CheckFailed, match=r"does not have the encoder's layer\d\.\d\.conv2"):
        verified(detector, net)
