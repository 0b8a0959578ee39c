"""Exemplar-CNN's networks: their counts, patches against whole images, features of all layers."""

import pytest
import torch
from torch import nn

from tests.pretrain.methods.steps import tiny_encoder
from visrep.errors import ConfigError
from visrep.nn.exemplar_nets import NETS, ExemplarNet, LayerFeatures, pooled
from visrep.weights.encoder_file import fingerprint

# Weights and biases, layer by layer, of 5x5 convolutions without padding.
PARAMETERS = {
    "small": (75 * 64 + 64) + (1600 * 64 + 64) + (1600 * 128 + 128),
    "large": (75 * 64 + 64) + (1600 * 128 + 128) + (3200 * 256 + 256) + (256 * 512 + 512),
    "largest": (75 * 92 + 92) + (2300 * 256 + 256) + (6400 * 512 + 512) + (512 * 1024 + 1024),
}
DIMENSIONS = {"small": 1024, "large": 3840, "largest": 7536}


@pytest.mark.parametrize("name", NETS)
def test_the_published_nets(name: str) -> None:
    torch.manual_seed(0)
    net = ExemplarNet(net=name)
    assert sum(p.numel() for p in net.parameters()) == PARAMETERS[name]
    assert net.spec == {"net": name} and ExemplarNet(**net.spec).channels == net.channels
    x = torch.randn(2, 3, 32, 32)
    maps = net.feature_maps(x)
    assert [tuple(m.shape[1:]) for m in maps] == [
        (channels, side, side) for channels, side in zip(net.channels, (14, 5, 1, 1), strict=False)
    ]
    assert net(x).shape == (2, net.out_dim) and net.out_dim == net.channels[-1]
    torch.testing.assert_close(net(x), maps[-1][:, :, 0, 0])
    assert all((m >= 0).all() for m in maps)
    assert LayerFeatures(net)(x).shape == (2, DIMENSIONS[name])
    assert not [m for m in net.modules() if isinstance(m, nn.modules.batchnorm._NormBase)]


def test_weights_start_with_the_scale_kept() -> None:
    torch.manual_seed(0)
    maps = ExemplarNet(net="large").feature_maps(torch.randn(32, 3, 32, 32))
    assert 0.3 < maps[-1].square().mean() < 10
    for layer in ExemplarNet(net="large").children():
        assert not layer.bias.any()


@pytest.mark.parametrize("name", NETS)
def test_a_patch_of_an_image_is_the_same_patch_alone(name: str) -> None:
    """The full layer runs as a convolution: one position for each step of the two pools."""
    torch.manual_seed(0)
    net = ExemplarNet(net=name).double()
    image = torch.randn(1, 3, 44, 40, dtype=torch.float64)
    whole = net.feature_maps(image)[-1]
    assert whole.shape[2:] == (4, 3)
    for row in range(4):
        for column in range(3):
            patch = image[:, :, 4 * row : 4 * row + 32, 4 * column : 4 * column + 32]
            torch.testing.assert_close(net(patch), whole[:, :, row, column])
    torch.testing.assert_close(net(image), whole.mean(dim=(2, 3)))


def test_four_quadrants() -> None:
    map_ = torch.arange(16.0).view(1, 1, 4, 4)
    assert pooled(map_, 2).tolist() == [[5, 7, 13, 15]]
    assert pooled(map_, 1).tolist() == [[15]]
    assert pooled(torch.cat([map_, -map_], dim=1), 2).tolist() == [[5, 7, 13, 15, 0, -2, -8, -10]]
    odd = torch.arange(9.0).view(1, 1, 3, 3)
    assert pooled(odd, 2).tolist() == [[4, 5, 7, 8]]  # the middle row is in both halves
    assert pooled(torch.full((1, 1, 1, 1), 3.0), 2).tolist() == [[3, 3, 3, 3]]


def test_the_pyramid_has_21_cells() -> None:
    torch.manual_seed(0)
    net = ExemplarNet(net="small")
    x = torch.randn(1, 3, 64, 64)
    features = LayerFeatures(net, grids=[1, 2, 4])(x)
    assert features.shape == (1, 21 * 256)
    whole = net.feature_maps(x)[0].amax(dim=(2, 3))
    assert torch.equal(features[:, :64], whole)
    assert torch.equal(features[:, 64:320].view(1, 64, 4).amax(dim=2), whole)
    with pytest.raises(ConfigError, match="grids="):
        LayerFeatures(net, grids=[])
    with pytest.raises(ConfigError, match="grids="):
        LayerFeatures(net, grids=[0, 2])


def test_features_on_other_grids_have_another_fingerprint() -> None:
    """The cache of features is named by it."""
    net = tiny_encoder()
    prints = [fingerprint(LayerFeatures(net, grids=g).state_dict()) for g in ([2], [1, 2], [3])]
    assert len({*prints, fingerprint(net.state_dict())}) == 4


def test_a_resnet_has_layers_too() -> None:
    net = tiny_encoder().eval()
    x = torch.randn(2, 3, 16, 16)
    features = LayerFeatures(net)(x)
    assert features.shape == (2, 4 * sum(net.channels))
    assert torch.equal(
        features[:, :4].view(2, 2, 2)[0, 0, 0], net.feature_maps(x)[0][0, 0, :4, :4].max()
    )


def test_what_does_not_exist_is_refused() -> None:
    with pytest.raises(ConfigError, match="net=huge: choose small, large, largest"):
        ExemplarNet(net="huge")
    with pytest.raises(ConfigError, match="32 px or more, not 40x31"):
        ExemplarNet(net="small")(torch.zeros(1, 3, 31, 40))
