"""The cache of features and the encoders they come from."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.oracles.small_disk import small_disk
from tests.small_data import pictures, preprocess, tiny_net, write_encoder
from visrep.data.dataset import MemoryImages
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.transfer.frozen import features
from visrep.weights import load_encoder
from visrep.weights.encoder_file import fingerprint


def small_set(seed: int = 1) -> MemoryImages:
    images, labels = pictures(21, seed=seed)
    return MemoryImages(name="small/train", images=images, labels=labels, classes=["a", "b", "c"])


def cached(folder: Path, net: torch.nn.Module, data: MemoryImages) -> torch.Tensor:
    found, kept = features.cached(net, data, preprocess(), batch_size=8, folder=folder)
    assert kept.tolist() == list(range(len(data)))
    return found


def test_cache_gives_the_same_numbers_without_the_net(tmp_path: Path) -> None:
    net, data = tiny_net(), small_set()
    first = cached(tmp_path, net, data)
    with torch.no_grad():
        torch.testing.assert_close(first, net.eval()(preprocess()(data.images)))
    calls = []
    net.register_forward_pre_hook(lambda *_: calls.append(1))
    assert torch.equal(cached(tmp_path, net, data), first)
    assert calls == []


def test_other_weights_data_or_preprocessing_are_another_entry(tmp_path: Path) -> None:
    net, data = tiny_net(), small_set()
    first = cached(tmp_path, net, data)
    assert not torch.equal(cached(tmp_path, net, small_set(seed=2)), first)
    with torch.no_grad():
        net.bn1.running_mean.add_(0.1)  # a buffer is part of the weights
    assert not torch.equal(cached(tmp_path, net, data), first)
    other = features.Preprocess(size=16, resize=None, mean=(0.5,) * 3, std=(0.5,) * 3)
    features.cached(net, data, other, folder=tmp_path)
    assert len(list(tmp_path.iterdir())) == 4


def test_the_same_weights_in_another_net_are_another_entry(tmp_path: Path) -> None:
    """Stride and padding have no tensors."""
    torch.manual_seed(0)
    net = ResNet(depth=18, width=0.0625, stem="small")
    finer = ResNet(depth=18, width=0.0625, stem="cifar")
    finer.load_state_dict(net.state_dict())
    assert fingerprint(net.state_dict()) == fingerprint(finer.state_dict())
    data = small_set()
    assert not torch.equal(cached(tmp_path, net, data), cached(tmp_path, finer, data))
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize("damage", ["truncated", "flipped", "foreign"])
def test_damaged_entry_is_computed_again_with_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(features.log, "warning", lambda text, *args: lines.append(text % args))
    net, data = tiny_net(), small_set()
    first = cached(tmp_path, net, data)
    (path,) = tmp_path.iterdir()
    raw = bytearray(path.read_bytes())
    if damage == "truncated":
        path.write_bytes(raw[: len(raw) // 2])
    elif damage == "flipped":
        raw[-3] ^= 0x40
        path.write_bytes(raw)
    else:
        save_file({"features": first}, path, metadata={"key": "another"})
    assert torch.equal(cached(tmp_path, net, data), first)
    assert [str(path) in line for line in lines] == [True]
    assert torch.equal(load_file(path)["features"], first)  # mended
    cached(tmp_path, net, data)
    assert len(lines) == 1


def test_frozen_encoder_is_the_files_or_a_function_of_the_seed(tmp_path: Path) -> None:
    path = tmp_path / "encoder.safetensors"
    sha256 = write_encoder(path, seed=3)
    x = torch.rand(2, 3, 16, 16)
    net, prepared, digest = features.frozen_encoder(path, init="pretrained", seed=0)
    assert digest == sha256
    assert prepared == preprocess()
    assert torch.equal(net(x), load_encoder(path)(x))
    assert not any(p.requires_grad for p in net.parameters())
    fresh, _, first = features.frozen_encoder(path, init="random", seed=0)
    again, _, second = features.frozen_encoder(path, init="random", seed=0)
    other, _, third = features.frozen_encoder(path, init="random", seed=1)
    assert first == second != third
    assert torch.equal(fresh(x), again(x))
    assert not torch.equal(fresh(x), other(x))
    with pytest.raises(ConfigError, match="choose pretrained or random"):
        features.frozen_encoder(path, init="imagenet", seed=0)


def test_raw_pixels_are_the_pixels() -> None:
    data = small_set()
    expected = data.images.flatten(1).float() / 255
    torch.testing.assert_close(features.raw_pixels(data, preprocess())[0], expected)


def test_a_cache_that_cannot_be_written_is_done_without(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(features.log, "propagate", True)
    net, data = tiny_net(), small_set()
    want = cached(tmp_path, net, data)
    (tmp_path / "file").write_text("")
    assert torch.equal(cached(tmp_path / "file", net, data), want)  # no folder
    full = tmp_path / "full"
    full.mkdir()
    with small_disk(500):
        assert torch.equal(cached(full, net, data), want)
    assert list(full.iterdir()) == []
    assert caplog.text.count("the features are not kept for the next command: ") >= 2
