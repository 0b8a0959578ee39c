"""Which output of a frozen net is the feature, from which file, pretrained or fresh."""

from pathlib import Path

import pytest
import torch

from tests.small_data import preprocess, write_encoder
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.exemplar_nets import ExemplarNet, LayerFeatures
from visrep.transfer.frozen.outputs import frozen_output
from visrep.weights import load_encoder
from visrep.weights.exemplar_file import save_exemplar


@pytest.fixture
def path(tmp_path: Path) -> Path:
    write_encoder(tmp_path / "encoder.safetensors")
    return tmp_path / "encoder.safetensors"


@pytest.fixture
def cnn(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    prepared = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_exemplar(
        tmp_path / "cnn.safetensors",
        net=ExemplarNet(net="small"),
        preprocess=prepared,
        source={"method": "exemplar"},
    )
    return tmp_path / "cnn.safetensors"


def test_outputs_of_an_encoder_file(path: Path) -> None:
    x = torch.rand(3, 3, 16, 16)
    encoder = load_encoder(path)
    nets = {name: frozen_output(path, output=name) for name in ("pooled", "head", "layers")}
    pooled, head, layers = (net(x) for net, _, _ in nets.values())
    assert torch.equal(pooled, encoder(x))
    assert head.shape == (3, 8)
    torch.testing.assert_close(head.norm(dim=1), torch.ones(3))
    assert torch.equal(layers, LayerFeatures(encoder)(x))
    for net, prepared, sha256 in nets.values():
        assert prepared == preprocess() and sha256 == encoder.sha256
        assert not net.training and not any(p.requires_grad for p in net.parameters())


def test_the_head_is_the_files(path: Path) -> None:
    net, _, _ = frozen_output(path, output="head")
    fresh, _, _ = frozen_output(path, output="head", init="random")
    again, _, _ = frozen_output(path, output="head", init="random")
    weight = [n.head.layers[0].linear.weight for n in (net, fresh, again)]
    assert torch.equal(weight[1], weight[2]) and not torch.equal(weight[0], weight[1])
    x = torch.rand(2, 3, 16, 16)
    torch.testing.assert_close(
        net(x), torch.nn.functional.normalize(net.head(net.encoder(x)), dim=1)
    )


def test_the_papers_own_network(cnn: Path) -> None:
    net, prepared, sha256 = frozen_output(cnn, output="layers")
    fresh, _, other = frozen_output(cnn, output="layers", init="random")
    assert prepared.size == 32 and sha256 != other
    x = torch.rand(2, 3, 64, 64)
    assert net(x).shape == (2, 1024) and not torch.equal(net(x), fresh(x))
    pyramid, _, _ = frozen_output(cnn, output="layers", grids=[1, 2, 4])
    assert pyramid(x).shape == (2, 21 * 256)
    pooled, _, _ = frozen_output(cnn)
    assert pooled(x).shape == (2, 128)


def test_images_can_be_enlarged(cnn: Path) -> None:
    _, prepared, _ = frozen_output(cnn, size=64)
    assert (prepared.size, prepared.resize) == (64, 64)
    assert prepared(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape == (2, 3, 64, 64)


def test_what_is_not_there_is_said(path: Path, cnn: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="output=best: choose pooled, head, layers"):
        frozen_output(path, output="best")
    for file in (path, cnn):
        with pytest.raises(ConfigError, match="init=imagenet"):
            frozen_output(file, init="imagenet")
    write_encoder(tmp_path / "bare.safetensors", head=False)
    for file in (tmp_path / "bare.safetensors", cnn):
        with pytest.raises(UserError, match="no projection head"):
            frozen_output(file, output="head")
