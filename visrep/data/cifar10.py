"""CIFAR-10: 60,000 labelled images of 32 px in ten classes."""

import torch

from visrep.data.dataset import MemoryImages
from visrep.data.folders import existing
from visrep.errors import ConfigError, UserError


def cifar10(root: str | None, *, split: str) -> MemoryImages:
    """CIFAR-10 from the files that torchvision downloads (`root/cifar-10-batches-py`).

    The batches are pickles; torchvision checks their md5 before it opens them.

    Raises:
        ConfigError: no such split.
        UserError: they are missing or not the original files.
    """
    from torchvision.datasets import CIFAR10

    if split not in ("train", "test"):
        raise ConfigError(f"CIFAR-10 has no split {split!r}; choose train or test")
    place = existing(root)
    try:
        data = CIFAR10(str(place), train=split == "train", download=False)
    except RuntimeError as error:
        raise UserError(
            f"{place / CIFAR10.base_folder} is missing or differs from the published CIFAR-10; "
            "unpack cifar-10-python.tar.gz there, or use data=cifar10_folder for images in folders"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(
        name=f"cifar10/{split}",
        images=images,
        labels=torch.tensor(data.targets),
        classes=data.classes,
    )
