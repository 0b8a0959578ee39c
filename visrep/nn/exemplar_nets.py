"""The three networks of Exemplar-CNN, arXiv 1406.6909: convolutions of 5x5 and one full layer.

Trained on patches of 32 px, where the full layer sees the whole map once; an image of any larger
size runs through the same weights, the full layer as a convolution.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from visrep.errors import ConfigError

# Channels of the convolutions, units of the full layer; as the paper writes them:
NETS = {
    "small": (64, 64, 128),  # 64c5-64c5-128f
    "large": (64, 128, 256, 512),  # 64c5-128c5-256c5-512f
    "largest": (92, 256, 512, 1024),  # 92c5-256c5-512c5-1024f
}
PATCH = 32  # pixels
KERNEL = 5
POOLED = 2  # convolutions that a 2x2 max-pool follows


class ExemplarNet(nn.Module):
    """An encoder: N x 3 x H x W -> N x out_dim; H and W are 32 or more.

    ReLU after every layer, 2x2 max-pool after the first two convolutions, no padding, no batch
    norm: 32 -> 28 -> 14 -> 10 -> 5 px, and a third convolution leaves one position. The paper's
    dropout on the full layer is the method's. Weights start He normal, so that a net without batch
    norm keeps its scale from layer to layer.

    Raises ConfigError on a net that does not exist, and on images below 32 px.
    """

    spec: dict[str, Any]  # ExemplarNet(**spec) rebuilds the net; JSON-able
    out_dim: int
    channels: tuple[int, ...]  # of `feature_maps`

    def __init__(self, *, net: str = "large") -> None:
        super().__init__()
        if net not in NETS:
            raise ConfigError(f"backbone.net={net}: choose {', '.join(NETS)}")
        self.spec = {"net": net}
        self.channels = NETS[net]
        self.out_dim = self.channels[-1]
        *convolutions, _ = self.channels
        ins, extent = 3, PATCH
        for i, outs in enumerate(convolutions, start=1):
            self.add_module(f"conv{i}", nn.Conv2d(ins, outs, KERNEL))
            extent = (extent - KERNEL + 1) // (2 if i <= POOLED else 1)
            ins = outs
        self.full = nn.Conv2d(ins, self.out_dim, extent)
        for module in self.children():
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")  # type: ignore[arg-type]
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        """N x 3 x H x W -> N x out_dim, the full layer's mean over its positions (one at 32 px)."""
        return self.feature_maps(x)[-1].mean(dim=(2, 3))

    def feature_maps(self, x: Tensor) -> list[Tensor]:
        """Outputs of all layers, pooled where a pool follows: N x channels[i] x h_i x w_i."""
        if min(x.shape[2:]) < PATCH:
            raise ConfigError(
                f"Exemplar-CNN's nets take images of {PATCH} px or more, not "
                f"{x.shape[3]}x{x.shape[2]}: enlarge them with size={PATCH}"
            )
        maps = []
        for i, layer in enumerate(self.children(), start=1):
            x = F.relu(layer(x))
            if i <= POOLED:
                x = F.max_pool2d(x, 2)
            maps.append(x)
        return maps


class LayerFeatures(nn.Module):
    """The paper's features of an image: every layer's maps, max-pooled over the cells of grids.

    N x 3 x H x W -> N x (sum of the layers' channels * sum of grid^2). Grid 2 is the four
    quadrants (STL-10, CIFAR-10); grids 1, 2 and 4 the spatial pyramid of 21 cells (Caltech).

    Args:
        encoder: an `ExemplarNet`, or another net with `feature_maps`.
        grids: cells on a side, for each grid.
    """

    def __init__(self, encoder: nn.Module, *, grids: Sequence[int] = (2,)) -> None:
        super().__init__()
        if not grids or min(grids) < 1:
            raise ConfigError(f"grids={list(grids)}: give numbers of cells, such as [2]")
        self.encoder = encoder
        # A buffer, so that features on other grids have another fingerprint.
        self.register_buffer("grids", torch.tensor(list(grids)))
        self._grids = tuple(int(grid) for grid in grids)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.encoder.feature_maps(x)  # type: ignore[operator]
        return torch.cat([pooled(map_, grid) for map_ in maps for grid in self._grids], dim=1)


def pooled(map_: Tensor, grid: int) -> Tensor:
    """Maxima over the grid x grid cells of N x C x h x w: N x (C * grid^2), channel by channel.

    A side that does not divide has cells that share a row; a map smaller than the grid repeats.
    """
    return F.adaptive_max_pool2d(map_, grid).flatten(1)
