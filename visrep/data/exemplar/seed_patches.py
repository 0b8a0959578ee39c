"""Seeds of surrogate classes: textured patches of unlabelled images, with what lies around them.

Exemplar-CNN (arXiv 1406.6909) samples seeds at varied place and scale, in proportion to the mean
squared gradient inside them. Here image and scale are drawn evenly, then the place at that scale in
proportion; images take turns, so that no image gives a second seed before every other gave one.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from visrep.data.dataset import ImageDataset
from visrep.data.exemplar.keyed_uniforms import keyed_uniforms
from visrep.data.images import BrokenImage, BrokenImages
from visrep.errors import UserError
from visrep.seeds import derive_seed, epoch_order

log = logging.getLogger("visrep")

FLAT = 1e-8  # squared gradient in [0, 1] per pixel: less than a grey level over the whole patch


@dataclass(frozen=True)
class Seeds:
    """N seeds.

    Attributes:
        windows: uint8 N x 3 x C x C; the seed is the size x size in the middle.
        sources: int64 N, the images they are from.
        places: float32 N x 3; left, top and side of the seed in pixels of its image.
    """

    windows: Tensor
    sources: Tensor
    places: Tensor


def draw_seeds(
    dataset: ImageDataset,
    *,
    count: int,
    size: int,
    window: int,
    side: tuple[float, float],
    seed: int,
    max_broken: float,
) -> Seeds:
    """Draw `count` seeds; the first n of them are the n seeds that a smaller count gives.

    Args:
        size: of a seed in its window, in pixels.
        window: C, size plus an even margin. Beyond its image a window continues as a mirror.
        side: range of the seed's side in the image, as a share of the image's short side, drawn
            evenly in its logarithm.
        seed: of the run.
        max_broken: share of the images that may be unreadable.

    Raises:
        UserError: too many images are broken, or none has any texture.
    """
    windows = torch.empty(count, 3, window, window, dtype=torch.uint8)
    sources, places = torch.empty(count, dtype=torch.int64), torch.empty(count, 3)
    candidates = _candidates(dataset, side=side, seed=seed, max_broken=max_broken)
    found, barren = 0, 0
    with tqdm(total=count, desc="surrogate classes", unit="seed", disable=None) as bar:
        while found < count:
            source, image, share, uniform = next(candidates)
            scaled, factor = _at_scale(image, share=share, size=size)
            energy = mean_energy(scaled, size)
            if float(energy.max()) < FLAT:
                barren += 1
                if barren > 10 * len(dataset) and not found:
                    raise UserError(
                        f"the images of {dataset.name} have no texture to take seeds from; check "
                        "that they are what they should be"
                    )
                continue
            top, left = pick(energy, uniform)
            windows[found] = cut_window(scaled, top=top, left=left, size=size, window=window)
            sources[found] = source
            places[found] = torch.tensor([left, top, size]) / factor
            found += 1
            bar.update()
    return Seeds(windows, sources, places)


def mean_energy(image: Tensor, size: int) -> Tensor:
    """Mean squared gradient magnitude inside the size x size square at every position.

    Args:
        image: float 3 x H x W in [0, 1]; the channels' squares are summed.

    Returns:
        float64 (H - size + 1) x (W - size + 1).
    """
    down, right = torch.gradient(image.double(), dim=(1, 2))
    squares = (down.square() + right.square()).sum(dim=0)
    sums = F.pad(squares, (1, 0, 1, 0)).cumsum(dim=0).cumsum(dim=1)
    rows = sums[size:] - sums[:-size]
    return (rows[:, size:] - rows[:, :-size]).clamp(min=0.0) / size**2


def pick(energy: Tensor, uniform: float) -> tuple[int, int]:
    """(row, column) of an entry, chosen in proportion to its value by `uniform` in [0, 1)."""
    steps = energy.flatten().cumsum(0)
    target = uniform * steps[-1]
    # The first entry beyond the target: one of value 0 is never chosen.
    chosen = int(torch.searchsorted(steps, target, right=True).clamp(max=len(steps) - 1))
    return divmod(chosen, energy.shape[1])


def cut_window(image: Tensor, *, top: int, left: int, size: int, window: int) -> Tensor:
    """The window around a seed: uint8 3 x window x window of float 3 x H x W in [0, 1]."""
    margin = (window - size) // 2
    rows = _mirrored(top - margin, window, image.shape[1])
    columns = _mirrored(left - margin, window, image.shape[2])
    return (image[:, rows[:, None], columns] * 255).round().clamp(0, 255).to(torch.uint8)


def _mirrored(start: int, count: int, extent: int) -> Tensor:
    """Indices start, start + 1, ... reflected into [0, extent), the border pixel not repeated."""
    period = max(1, 2 * (extent - 1))
    index = torch.arange(start, start + count) % period
    return torch.minimum(index, period - index)


def _at_scale(image: Tensor, *, share: float, size: int) -> tuple[Tensor, float]:
    """The image, resized so that `share` of its short side is `size` pixels; and the factor."""
    factor = size / (share * min(image.shape[1:]))
    shape = [max(size, round(extent * factor)) for extent in image.shape[1:]]
    pixels = image.float().div(255.0)[None]
    return F.interpolate(pixels, shape, mode="bilinear", antialias=True)[0], factor


def _candidates(
    dataset: ImageDataset, *, side: tuple[float, float], seed: int, max_broken: float
) -> Iterator[tuple[int, Tensor, float, float]]:
    """For ever: index of an image, the image, a share of its short side, a uniform number."""
    broken = BrokenImages(max_broken, len(dataset))
    low, high = np.log(side)
    turn = 0
    while True:
        order = epoch_order(len(dataset), seed=derive_seed(seed, "exemplars"), epoch=turn)
        numbers = np.arange(len(dataset)) + turn * len(dataset)
        uniforms = keyed_uniforms(numbers, count=2, seed=derive_seed(seed, "places"))
        for source, (scale, position) in zip(order.tolist(), uniforms.tolist(), strict=True):
            try:
                image = dataset[source]
            except BrokenImage as error:
                broken.record(error.file, error.reason)
                continue
            yield source, image, float(np.exp(low + scale * (high - low))), position
        turn += 1
