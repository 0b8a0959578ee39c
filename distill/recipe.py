"""What finetuning and distillation share: SimCLR v2's supervised recipe (arXiv 2006.10029)."""

from typing import Any

from torch import nn

from visrep.data.dataset import ImageDataset
from visrep.data.preprocess import Preprocess
from visrep.engine.evaluation import accuracies
from visrep.engine.extraction import extract
from visrep.errors import ConfigError


def total_steps(images: int, *, epochs: float, batch_size: int) -> int:
    """floor(N * epochs / B) + 1: the step counts in the names of the released checkpoints.

    The stream of images is shuffled and repeated, and its batches run on over the ends of epochs,
    so a batch may be larger than the data.

    Raises:
        ConfigError: no epoch or an empty batch.
    """
    if epochs <= 0 or batch_size < 1:
        raise ConfigError(f"epochs={epochs} batch_size={batch_size}: both must be above 0")
    return int(images * epochs // batch_size) + 1


def measure(
    net: nn.Module,
    dataset: ImageDataset,
    preprocess: Preprocess,
    **loading: Any,
) -> dict[str, float]:
    """Accuracies of a classifier on single centre crops, in float32; `loading` as in `extract`."""
    scores = extract(net, dataset, preprocess, progress=True, **loading)
    assert dataset.labels is not None
    return accuracies(scores, dataset.labels)


def parameters(net: nn.Module) -> int:
    """Number of trainable or frozen weights, without running statistics."""
    return sum(parameter.numel() for parameter in net.parameters())
