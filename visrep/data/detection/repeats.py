"""Images of rare classes more often: repeat factors (LVIS, arXiv 1908.03195, appendix B.2).

A class that is in a share f of the training images has the factor max(1, sqrt(t / f)) for a
threshold t; an image has the largest factor of its classes. An epoch holds an image as often as
its factor says; the fraction is drawn anew in each epoch.
"""

import math
from collections import Counter
from collections.abc import Sequence

import torch
from torch import Tensor

from visrep.data.detection.boxes import ImageRecord
from visrep.seeds import epoch_order, generator


def repeat_factors(records: Sequence[ImageRecord], threshold: float) -> Tensor:
    """The factor of each image, float32, 1 or more."""
    held = [{box.category for box in record.boxes} for record in records]
    counts = Counter(category for categories in held for category in categories)
    of_class = {
        category: max(1.0, math.sqrt(threshold * len(records) / count))
        for category, count in counts.items()
    }
    return torch.tensor([max((of_class[c] for c in cs), default=1.0) for cs in held])


def longest_epoch(factors: Tensor) -> int:
    """The images of an epoch in which every fraction is drawn."""
    return int(factors.ceil().sum())


def repeated_order(factors: Tensor, *, seed: int, epoch: int) -> Tensor:
    """The order of an epoch, int64: each image as often as its factor says, shuffled."""
    draws = torch.rand(len(factors), generator=generator(seed, "repeat", epoch))
    often = factors.floor() + (draws < factors - factors.floor())
    images = torch.arange(len(factors)).repeat_interleave(often.long())
    return images[epoch_order(len(images), seed=seed, epoch=epoch)]
