"""`visrep splits data=imagefolder data.root=PATH fraction=0.1 seed=0 out=labels.txt`.

Writes the names of a class-balanced share of the training images, one per line, so that a result on
few labels can be repeated on the same ones.
"""

from pathlib import Path

from omegaconf import DictConfig

from visrep.config import instantiate
from visrep.data.dataset import ImageDataset, checked
from visrep.data.splits import count_labels, label_subset, write_list
from visrep.errors import ConfigError


def main(cfg: DictConfig) -> None:
    """Draw the list and write it.

    Raises:
        ConfigError: the file exists, or the fraction is out of range.
        UserError: the data cannot be read or has no labels.
    """
    out = Path(cfg.out)
    if out.exists() and not cfg.overwrite:
        raise ConfigError(f"{out} exists: choose another out=, or overwrite=true to replace it")
    dataset: ImageDataset = checked(instantiate(cfg.data.train))
    indices = label_subset(dataset, fraction=cfg.fraction, seed=cfg.seed)
    write_list(out, dataset, indices)
    counts = count_labels(dataset, indices)
    print(f"{out}: {len(indices)} of {len(dataset)} images of {dataset.name}, {counts.line()}")
    for line in counts.warnings():
        print(f"warning: {line}")
