"""What every evaluation with labels needs: data that agree, the encoder's own input, accuracy."""

import logging
from typing import Any

from torch import Tensor

from visrep import dist
from visrep.data.classes import in_classes, some, without_images
from visrep.data.dataset import ImageDataset
from visrep.data.images import BrokenImage, BrokenImages, image_size
from visrep.data.overlap import overlap, overlap_line, paths_of
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


def shared_classes(train: ImageDataset, test: ImageDataset | None) -> tuple[list[str], Any]:
    """The classes of `train`, and `test` with its labels in terms of these: matched by name.

    A class that one of them has no image of is told in a warning.

    Raises:
        ConfigError: there is no test set, one of them has no labels, or as `in_classes`.
    """
    if test is None:
        raise ConfigError(
            f"{train.name} comes without a test set: choose data= with train and test"
        )
    for dataset in (train, test):
        if dataset.labels is None or dataset.classes is None:
            raise ConfigError(f"{dataset.name} has no labels: choose labelled data with data=")
    assert train.classes is not None and train.labels is not None
    unlearnt = [train.classes[c] for c in without_images(train.labels, len(train.classes))]
    if unlearnt:
        log.warning(
            "warning: %s has no image of %s, of its %d classes: these are never predicted",
            train.name,
            some(unlearnt),
            len(train.classes),
        )
    if len(train.classes) == 1:
        log.warning(
            "warning: %s has the class %s alone: whatever is predicted is right",
            train.name,
            train.classes[0],
        )
    return train.classes, in_classes(test, train.classes, of=train.name)


def warn_of_overlap(train: ImageDataset, test: ImageDataset) -> None:
    """One line, on the main process, when images of `test` are also in `train`."""
    twins = overlap(train, test) if dist.is_main() else []
    if twins:
        line = overlap_line(twins, train=train.name, test=test.name, images=len(test))
        log.warning("warning: %s", line)


def require_usable(dataset: ImageDataset, preprocess: Preprocess, *, max_broken: float) -> None:
    """Look at a test part before the training: at the headers of its files alone.

    Raises:
        UserError: it has no image, too many of its files are no images, or their size is not the
            one that the encoder takes.
    """
    if not len(dataset):
        raise UserError(f"{dataset.name} has no image: give another test part")
    wanted = None if preprocess.resize is not None else (preprocess.size, preprocess.size)
    broken = BrokenImages(max_broken, len(dataset))
    sizes: dict[tuple[int, int], str] = {}
    if dataset.images is not None:
        sizes[_height_width(dataset.images)] = dataset.file(0)
    else:
        for name, path in (paths_of(dataset) or {}).items():
            try:
                sizes.setdefault(image_size(path), name)
            except BrokenImage as error:
                broken.record(error.file, error.reason)
    for size, name in sizes.items():
        if wanted not in (None, size):
            raise UserError(
                f"{dataset.name}: {name} is {size[0]} x {size[1]} pixels, and the encoder takes "
                f"{preprocess.size} x {preprocess.size} as they are: use images of that size"
            )


def _height_width(images: Tensor) -> tuple[int, int]:
    height, width = images.shape[-2:]
    return int(height), int(width)


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
