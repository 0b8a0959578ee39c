import json
from typing import Any

import pytest
import torch
from torch import nn

from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.heads import MLP, moco_head, simclr_head


def _count(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters())


@pytest.mark.parametrize(
    ("width", "first", "whole"),
    [
        (2048, 4_198_400, 8_659_072),
        (4096, 16_785_408, 34_095_232),
        (6144, 37_761_024, 76_308_608),
    ],
)
def test_counts_of_the_simclr_v2_heads(width: int, first: int, whole: int) -> None:
    with torch.device("meta"):  # SimCLR v2 (arXiv 2006.10029)
        head = MLP(in_dim=width, layers=simclr_head(hidden=width, depth=3))
    assert (_count(head.first(1)), _count(head)) == (first, whole)


def test_simclr_heads() -> None:
    assert simclr_head(hidden=2048) == [
        {"out": 2048, "bias": False, "norm": "affine", "relu": True},
        {"out": 128, "bias": False, "norm": "scale", "relu": False},
    ]
    layers = simclr_head(hidden=32, out_dim=8, depth=3)
    assert [layer["out"] for layer in layers] == [32, 32, 8]
    assert [layer["relu"] for layer in layers] == [True, True, False]
    with pytest.raises(ConfigError, match="depth=0"):
        simclr_head(hidden=32, depth=0)


def test_moco_heads() -> None:
    one = MLP(in_dim=16, layers=moco_head(out_dim=8))
    assert list(one.state_dict()) == ["layers.0.linear.weight", "layers.0.linear.bias"]
    two = MLP(in_dim=16, layers=moco_head(hidden=16, out_dim=8))
    assert _count(two) == 16 * 16 + 16 + 16 * 8 + 8
    x = torch.randn(4, 16)
    (a, b), (c, d) = [(layer.linear.weight, layer.linear.bias) for layer in two.layers]
    torch.testing.assert_close(two(x), (x @ a.t() + b).relu() @ c.t() + d)
    assert not any(isinstance(m, BatchNorm) for m in two.modules())


def test_names_and_norms() -> None:
    kinds = ["none", "affine", "scale", "plain"]
    layers = [{"out": 4, "bias": False, "norm": norm, "relu": False} for norm in kinds]
    head = MLP(in_dim=3, layers=layers)
    parameters = [name for name, _ in head.named_parameters()]
    assert parameters == [
        "layers.0.linear.weight",
        "layers.1.linear.weight",
        "layers.1.norm.weight",
        "layers.1.norm.bias",
        "layers.2.linear.weight",
        "layers.2.norm.weight",
        "layers.3.linear.weight",
    ]
    assert "layers.3.norm.running_mean" in head.state_dict()


def test_depth_selects_the_output_of_a_layer() -> None:
    head = MLP(in_dim=16, layers=simclr_head(hidden=16, out_dim=8, depth=3)).eval()
    x = torch.randn(5, 16)
    assert head(x, depth=0) is x
    after = x
    for k, layer in enumerate(head.layers, 1):
        after = layer(after)
        assert torch.equal(head(x, depth=k), after)
    assert torch.equal(head(x), after)
    assert head(x, depth=1).min() == head(x, depth=2).min() == 0 > head(x).min()
    for wrong in (-1, 4):
        with pytest.raises(ConfigError, match="choose 0 to 3 of them"):
            head(x, depth=wrong)


def test_first_shares_the_layers() -> None:
    head = MLP(in_dim=16, layers=simclr_head(hidden=12, out_dim=8, depth=3)).eval()
    x = torch.randn(5, 16)
    for k, width in enumerate([16, 12, 12, 8]):
        part = head.first(k)
        assert torch.equal(part(x), head(x, depth=k))
        assert part.out_dim == width and not part.training
        rebuilt = MLP(**json.loads(json.dumps(part.spec)))
        rebuilt.load_state_dict(part.state_dict())
        assert torch.equal(rebuilt.eval()(x), part(x))
    assert head.first(2).layers[1] is head.layers[1]
    assert len(head.layers) == 3 and len(head.spec["layers"]) == 3
    with pytest.raises(ConfigError, match="choose 0 to 3"):
        head.first(4)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"norm": "layer"}, "norm='layer': choose one of none, affine, scale, plain"),
        ({"out": 0}, "out=0: give at least 1"),
        ({"out": "8"}, "out='8': give int"),
        ({"bias": 1}, "bias=1: give bool"),
        ({"width": 8}, r"\['bias', 'norm', 'out', 'relu', 'width'\]: give"),
    ],
)
def test_a_layer_that_cannot_be_read_is_named(change: dict[str, Any], message: str) -> None:
    good = {"out": 8, "bias": True, "norm": "none", "relu": False}
    with pytest.raises(ConfigError, match=f"layer 1 of a head has .*{message}"):
        MLP(in_dim=4, layers=[good, good | change])
