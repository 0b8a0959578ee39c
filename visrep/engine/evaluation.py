"""What every evaluation with labels needs: data that agree, the encoder's own input, accuracy."""

from typing import Any

from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError


def shared_classes(train: ImageDataset, test: ImageDataset | None) -> list[str]:
    """The classes that `train` and `test` both have, in their order.

    Raises:
        ConfigError: there is no test set, one of them has no labels, or their classes differ.
    """
    if test is None:
        raise ConfigError(
            f"{train.name} comes without a test set: choose data= with train and test"
        )
    for dataset in (train, test):
        if dataset.labels is None or dataset.classes is None:
            raise ConfigError(f"{dataset.name} has no labels: choose labelled data with data=")
    assert train.classes is not None
    if train.classes != test.classes:
        raise ConfigError(
            f"{train.name} and {test.name} have different classes "
            f"({len(train.classes)} and {len(test.classes or [])}): use two parts of one data set"
        )
    return train.classes


def moments(preprocess: Preprocess) -> tuple[list[float], list[float]]:
    """Mean and deviation of `preprocess` for pixels in [0, 1], in its own channel order."""
    low, high = preprocess.range
    return (
        [(mean - low) / (high - low) for mean in preprocess.mean],
        [std / (high - low) for std in preprocess.std],
    )


def input_of(preprocess: Preprocess) -> dict[str, Any]:
    """The settings with which views are what an encoder expects.

    Those are `size`, `mean` and `std`; and the resize of an encoder that learned without
    antialiasing, where others leave it to the views.

    Raises:
        ConfigError: it expects BGR, which views do not make.
    """
    if preprocess.channel_order != "RGB":
        raise ConfigError(
            "the encoder takes BGR images, and training makes RGB ones: bring it to RGB with "
            "visrep convert"
        )
    mean, std = moments(preprocess)
    found = {"size": preprocess.size, "mean": mean, "std": std}
    if not preprocess.antialias:
        found |= {"interpolation": preprocess.interpolation, "antialias": False}
    return found


def top_k(scores: Tensor, labels: Tensor, *, k: int = 1) -> float:
    """Percent of the N rows of `scores` (N x C) whose label is among the k largest."""
    hit = scores.topk(k, dim=1).indices == labels.to(scores.device)[:, None]
    return 100.0 * hit.any(dim=1).double().mean().item()


def accuracies(scores: Tensor, labels: Tensor) -> dict[str, float]:
    """`top1`, and `top5` where there are more than ten classes, in percent."""
    found = {"top1": top_k(scores, labels)}
    if scores.shape[1] > 10:
        found["top5"] = top_k(scores, labels, k=5)
    return found
