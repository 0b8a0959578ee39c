"""Projection heads and predictors: one small MLP, described by a list, for all methods."""

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm

NORMS = ("none", "affine", "scale", "plain")
KEYS = {"out": int, "bias": bool, "norm": str, "relu": bool}

LayerSpec = dict[str, Any]


class MLP(nn.Module):
    """Linear -> norm -> ReLU, layer by layer: n x in_dim -> n x out_dim.

    `layers`: one mapping per layer, {"out": width, "bias": bool, "norm": kind, "relu": bool}
    with the norms none, affine (batch norm with gamma and beta), scale (gamma only) and plain
    (neither). No layer at all is the identity. Raises ConfigError on a layer it cannot read.
    """

    spec: dict[str, Any]  # MLP(**spec) rebuilds the module; JSON-able
    in_dim: int
    out_dim: int

    def __init__(self, *, in_dim: int, layers: Sequence[Mapping[str, Any]]) -> None:
        super().__init__()
        specs = [_checked(i, layer) for i, layer in enumerate(layers)]
        widths = [in_dim, *(spec["out"] for spec in specs)]
        self.layers = nn.ModuleList(
            Layer(width, **spec) for width, spec in zip(widths, specs, strict=False)
        )
        self.spec = {"in_dim": in_dim, "layers": specs}
        self.in_dim, self.out_dim = in_dim, widths[-1]

    def forward(self, x: Tensor, *, depth: int | None = None) -> Tensor:
        """The output after `depth` layers (None = all, 0 = x itself)."""
        for layer in self.layers[: self._checked_depth(depth)]:
            x = layer(x)
        return x

    def first(self, k: int) -> "MLP":
        """An MLP of the first k layers; the layers are shared, not copied."""
        k = self._checked_depth(k)
        part = MLP(in_dim=self.in_dim, layers=[])
        part.layers = self.layers[:k]
        part.spec["layers"] = [dict(spec) for spec in self.spec["layers"][:k]]
        part.out_dim = part.spec["layers"][-1]["out"] if k else self.in_dim
        part.training = self.training
        return part

    def _checked_depth(self, depth: int | None) -> int:
        if depth is None:
            return len(self.layers)
        if not 0 <= depth <= len(self.layers):
            raise ConfigError(
                f"the head has {len(self.layers)} layers: choose 0 to {len(self.layers)} of them, "
                f"not {depth}"
            )
        return depth


class Layer(nn.Module):
    """One layer of an MLP."""

    def __init__(self, in_dim: int, *, out: int, bias: bool, norm: str, relu: bool) -> None:
        super().__init__()
        self.linear = nn.Linear(in_dim, out, bias=bias)
        self.norm: nn.Module = nn.Identity()
        if norm != "none":
            self.norm = BatchNorm(out, affine=norm != "plain", bias=norm == "affine")
        self.relu = nn.ReLU(inplace=True) if relu else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.norm(self.linear(x)))


def simclr_head(*, hidden: int, out_dim: int = 128, depth: int = 2) -> list[LayerSpec]:
    """SimCLR v1 (depth 2, arXiv 2002.05709) and v2 (depth 3, arXiv 2006.10029).

    `hidden` is the encoder's width in both. Every linear is without bias and followed by batch
    norm; the last one keeps gamma only and has no ReLU.
    """
    if depth < 1:
        raise ConfigError(f"a SimCLR head has at least one layer, not depth={depth}")
    inner: LayerSpec = {"out": hidden, "bias": False, "norm": "affine", "relu": True}
    last: LayerSpec = {"out": out_dim, "bias": False, "norm": "scale", "relu": False}
    return [*(dict(inner) for _ in range(depth - 1)), last]


def moco_head(*, hidden: int | None = None, out_dim: int = 128) -> list[LayerSpec]:
    """MoCo v1 (hidden None: one linear, arXiv 1911.05722) and v2 (hidden = the encoder's width:
    linear, ReLU, linear, arXiv 2003.04297); biases, no batch norm."""
    last: LayerSpec = {"out": out_dim, "bias": True, "norm": "none", "relu": False}
    if hidden is None:
        return [last]
    return [{"out": hidden, "bias": True, "norm": "none", "relu": True}, last]


def _checked(index: int, layer: Mapping[str, Any]) -> LayerSpec:
    spec = dict(layer)
    if set(spec) != set(KEYS):
        raise ConfigError(
            f"layer {index} of a head has the keys {sorted(map(str, spec))}: give {sorted(KEYS)}"
        )
    for key, kind in KEYS.items():
        if type(spec[key]) is not kind:
            raise ConfigError(
                f"layer {index} of a head has {key}={spec[key]!r}: give {kind.__name__}"
            )
    if spec["norm"] not in NORMS:
        raise ConfigError(
            f"layer {index} of a head has norm='{spec['norm']}': choose one of {', '.join(NORMS)}"
        )
    if spec["out"] < 1:
        raise ConfigError(f"layer {index} of a head has out={spec['out']}: give at least 1")
    return spec
