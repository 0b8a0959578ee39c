"""STL-10: 100,000 unlabelled images of 96 px and few labelled ones; Exemplar-CNN's data."""

import torch
from torch import Tensor

from visrep.data.dataset import MemoryImages
from visrep.data.folders import existing
from visrep.errors import ConfigError, UserError

SPLITS = ("train", "test", "unlabeled")
FOLDS = 10


def stl10(root: str | None, *, split: str, fold: int | None = None) -> MemoryImages:
    """STL-10 from the files that torchvision downloads (`root/stl10_binary`), in memory.

    Args:
        split: train (5,000 images), test (8,000) or unlabeled (100,000: 2.6 GB).
        fold: of train: one of its ten predefined folds of 1,000 images; None for all. Its protocol
            trains on each fold and reports the mean over them.

    Raises:
        ConfigError: no such split or fold.
        UserError: the files are missing or not the original ones.
    """
    from torchvision.datasets import STL10

    if split not in SPLITS:
        raise ConfigError(f"STL-10 has no split {split!r}; choose {', '.join(SPLITS)}")
    if fold is not None and (split != "train" or fold not in range(FOLDS)):
        raise ConfigError(f"fold={fold} of {split}: train has the folds 0 to {FOLDS - 1}")
    place = existing(root)
    try:
        data = STL10(str(place), split=split, folds=fold, download=False)
    except RuntimeError as error:
        raise UserError(
            f"{place / STL10.base_folder} is missing or differs from the published STL-10; unpack "
            "stl10_binary.tar.gz there, or use data=imagefolder for images in folders"
        ) from error
    labels: Tensor | None = None
    if split != "unlabeled":
        labels = torch.from_numpy(data.labels).long()
    return MemoryImages(
        name=f"stl10/{split}" if fold is None else f"stl10/{split}/fold{fold}",
        images=torch.from_numpy(data.data).contiguous(),
        labels=labels,
        classes=None if labels is None else data.classes,
    )
