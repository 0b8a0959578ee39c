"""A labelled image folder and an encoder file that are learnt from in a second."""

from pathlib import Path

import pytest
import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor
from torchvision.io import write_png

from visrep import config
from visrep.data.preprocess import Preprocess
from visrep.nn.heads import MLP, simclr_head
from visrep.nn.resnet import ResNet
from visrep.weights import save_encoder
from visrep.weights.containers import weights_files

SIZE = 16
CLASSES = ["blue", "green", "red"]


def pictures(count: int, *, seed: int) -> tuple[Tensor, Tensor]:
    """uint8 count x 3 x 16 x 16 and labels: coarse noise, brighter in the channel of its class."""
    draw = torch.Generator().manual_seed(seed)
    labels = torch.arange(count) % 3
    coarse = torch.rand(count, 3, SIZE // 4, SIZE // 4, generator=draw) * 160
    images = coarse.repeat_interleave(4, dim=2).repeat_interleave(4, dim=3)
    images[torch.arange(count), 2 - labels] += 90
    return images.to(torch.uint8), labels


def write_folder(root: Path, *, train: int = 60, test: int = 30) -> Path:
    """root/train/CLASS/00000.png and root/test/CLASS/..."""
    for split, count, seed in (("train", train, 1), ("test", test, 2)):
        for i, (image, label) in enumerate(zip(*pictures(count, seed=seed), strict=True)):
            path = root / split / CLASSES[label] / f"{i:05d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            write_png(image, str(path))
    return root


def tiny_net(seed: int = 0) -> ResNet:
    """ResNet-18 of 1/16 width, 32 features."""
    torch.manual_seed(seed)
    return ResNet(depth=18, width=0.0625, stem="small")


def write_encoder(path: Path, *, seed: int = 0, head: bool = True) -> str:
    """An untrained encoder with a head of three layers as an encoder file; its sha256."""
    encoder = tiny_net(seed)
    layers = simclr_head(hidden=encoder.out_dim, out_dim=8, depth=3)
    return save_encoder(
        path,
        encoder=encoder,
        preprocess=preprocess(),
        head=MLP(in_dim=encoder.out_dim, layers=layers) if head else None,
        source={"method": "none"},
    )


def preprocess() -> Preprocess:
    """Images as they are, in [0, 1]."""
    return Preprocess(size=SIZE, resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def composed(command: str, root: Path, *overrides: str) -> DictConfig:
    """The configuration of `command` with the folder `root` as its data."""
    cfg, _ = config.compose(command, ["data=scenes", "device=cpu", *overrides])
    node = {"_target_": "visrep.data.folders.image_folder", "root": str(root)}
    data = {part: {**node, "split": part} for part in ("train", "test")}
    OmegaConf.set_struct(cfg, False)
    cfg.data = OmegaConf.create(data)
    return cfg


def count_reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the weights files that are opened from now on, once for each time."""
    seen: list[str] = []
    look = weights_files._look

    def watched(path: Path) -> tuple[int, bytes]:
        seen.append(path.name)
        return look(path)

    monkeypatch.setattr(weights_files, "_look", watched)
    return seen
