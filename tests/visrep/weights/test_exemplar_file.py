"""The encoder file of Exemplar-CNN's networks: round trip, damage, files of another kind."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from tests.small_data import write_encoder
from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.weights import load_encoder
from visrep.weights.encoder_file import fingerprint
from visrep.weights.exemplar_file import read_exemplar, save_exemplar

PREPROCESS = Preprocess(size=32, resize=36, mean=(0.1, 0.2, 0.3), std=(0.5, 0.5, 0.5))


@pytest.fixture
def net() -> ExemplarNet:
    torch.manual_seed(0)
    return ExemplarNet(net="small")


@pytest.fixture
def path(net: ExemplarNet, tmp_path: Path) -> Path:
    path = tmp_path / "encoder.safetensors"
    save_exemplar(path, net=net, preprocess=PREPROCESS, source={"method": "exemplar"})
    return path


def changed(path: Path, *, tensors: dict | None = None, **metadata: str) -> Path:
    with safe_open(path, framework="pt") as file:
        before = file.metadata()
        stored = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    other = path.with_name("other.safetensors")
    save_file({**stored, **(tensors or {})}, other, metadata={**before, **metadata})
    return other


def test_round_trip(net: ExemplarNet, path: Path) -> None:
    loaded = read_exemplar(path)
    assert loaded is not None and not loaded.training
    assert loaded.preprocess == PREPROCESS and loaded.spec == {"net": "small"}
    assert loaded.sha256 == fingerprint(net.state_dict())
    x = torch.randn(2, 3, 40, 40)
    assert torch.equal(loaded(x), net(x))


def test_other_files_are_of_another_kind(tmp_path: Path) -> None:
    write_encoder(tmp_path / "resnet.safetensors")
    assert read_exemplar(tmp_path / "resnet.safetensors") is None
    torch.save({"x": torch.zeros(2)}, tmp_path / "x.pth")
    assert read_exemplar(tmp_path / "x.pth") is None
    with pytest.raises(UserError, match="nowhere"):
        read_exemplar(tmp_path / "nowhere.safetensors")


def test_a_command_that_needs_a_resnet_refuses_it_in_one_line(path: Path) -> None:
    with pytest.raises(UserError, match="encoder.safetensors") as caught:
        load_encoder(path)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize(
    ("tensors", "metadata", "message"),
    [
        ({}, {"backbone": json.dumps({"net": "huge"})}, "net=huge"),
        ({}, {"backbone": json.dumps({"net": "large"})}, "lacks"),
        ({}, {"preprocess": "{"}, "preprocessing"),
        ({"conv1.bias": torch.full((64,), torch.nan)}, {}, "NaN"),
        ({"conv1.bias": torch.ones(64)}, {}, "sha256"),
        ({"conv1.bias": torch.ones(63)}, {}, "conv1.bias is 63"),
        ({"more": torch.ones(63)}, {}, "unknown more"),
    ],
)
def test_damage_is_told(path: Path, tensors: dict, metadata: dict, message: str) -> None:
    with pytest.raises(UserError, match=message):
        read_exemplar(changed(path, tensors=tensors, **metadata))


def test_nothing_is_left_of_weights_that_are_not_finite(net: ExemplarNet, tmp_path: Path) -> None:
    with torch.no_grad():
        net.conv1.bias.fill_(torch.inf)
    with pytest.raises(UserError, match="conv1.bias"):
        save_exemplar(tmp_path / "bad.safetensors", net=net, preprocess=PREPROCESS, source={})
    assert not list(tmp_path.iterdir())
