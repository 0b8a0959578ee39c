import math

import pytest
import torch
import torch.nn.functional as F

from visrep.errors import ConfigError
from visrep.nn.classifier import Classifier
from visrep.nn.heads import MLP, simclr_head
from visrep.nn.resnet import ResNet


def _parts() -> tuple[ResNet, MLP]:
    torch.manual_seed(0)
    encoder = ResNet(depth=18, width=0.125, stem="small", zero_init_residual=False)
    return encoder, MLP(in_dim=64, layers=simclr_head(hidden=64, out_dim=16, depth=3))


@pytest.mark.parametrize(("width", "count"), [(1, 2_049_000), (2, 4_097_000), (3, 6_145_000)])
def test_counts_of_the_imagenet_classifiers(width: int, count: int) -> None:
    with torch.device("meta"):  # SimCLR v2 (arXiv 2006.10029)
        fc = Classifier(encoder=ResNet(depth=50, width=width), classes=1000).fc
    assert sum(p.numel() for p in fc.parameters()) == count


def test_zero_classifier() -> None:
    encoder, head = _parts()
    model = Classifier(encoder=encoder, head=head, layers=1, classes=1000)
    images, labels = torch.randn(4, 3, 32, 32), torch.arange(4)
    loss = F.cross_entropy(model(images), labels)
    assert loss.item() == pytest.approx(math.log(1000), abs=1e-6)
    loss.backward()
    assert all((p.grad == 0).all() for p in model.encoder.parameters())
    assert all((p.grad == 0).all() for p in model.head.parameters())
    assert model.fc.weight.grad.abs().max() > 0
    fresh = Classifier(encoder=encoder, classes=10, zero_init=False)
    assert fresh.fc.weight.abs().max() > 0


@pytest.mark.parametrize(("layers", "width"), [(0, 64), (1, 64), (2, 64), (3, 16), (None, 16)])
def test_selector(layers: int | None, width: int) -> None:
    encoder, head = _parts()
    model = Classifier(encoder=encoder, head=head, layers=layers, classes=10, zero_init=False)
    model.eval()
    images = torch.randn(4, 3, 32, 32)
    features = model.features(images)
    assert features.shape == (4, width) and model.fc.in_features == width
    assert torch.equal(features, head(encoder(images), depth=layers))
    assert torch.equal(model(images), model.fc(features))
    if layers in (1, 2):
        assert features.min() == 0  # after the ReLU
    names = {name.split(".")[0] for name in model.state_dict()}
    assert names == ({"encoder", "fc"} if layers == 0 else {"encoder", "head", "fc"})
    kept = {name for name in model.state_dict() if name.startswith("head.layers.")}
    assert len({name.split(".")[2] for name in kept}) == (3 if layers is None else layers)


def test_more_layers_than_the_head_has() -> None:
    encoder, head = _parts()
    with pytest.raises(ConfigError, match="the head has 3 layers"):
        Classifier(encoder=encoder, head=head, layers=4, classes=10)
    with pytest.raises(ConfigError, match="there is no projection head"):
        Classifier(encoder=encoder, layers=1, classes=10)
