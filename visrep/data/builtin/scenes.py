"""The built-in data `scenes`: single digits to learn from, and scenes of digits to detect.

Made from real images that scikit-learn ships (`visrep.data.builtin.digits`), seeded and
deterministic, so that everything can be tried without a download. No digit scan is in both train
and test; the two photographs are the background of both.
"""

import hashlib
import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from visrep.data.builtin.digits import (
    CLASSES,
    CREDITS,
    MAX_ANGLE,
    MIN_CONTRAST,
    Stencils,
    background,
    scans,
    visible_colours,
)
from visrep.data.builtin.scene_files import detection, semantic, write_scenes
from visrep.data.dataset import MemoryImages
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path
from visrep.paths import cache_dir

__all__ = [
    "CLASSES",
    "CREDITS",
    "Crops",
    "crops",
    "detection",
    "draw_crops",
    "semantic",
    "write_scenes",
]

log = logging.getLogger("visrep")

SIZE = 32
COUNTS = {"train": 6000, "test": 2000}
SEEDS = {"train": 11, "test": 12}
HEIGHTS = (22.0, 27.5)  # pixels; thin tips fade, so 20 to 28 rows of a crop show ink
EDGE = 1.0  # least distance of a digit from the crop's edge, in pixels
ZOOM = (0.7, 4.0)  # side of the part of the photograph over the crop's; makes raw-pixel kNN 47 %
_VERSION = 1  # to be raised when the pictures change by anything that `_key` does not hold


@dataclass(frozen=True)
class Crops:
    """Digits on photographs, with what only the tests need to know of them.

    Attributes:
        images: uint8 N x 3 x 32 x 32.
        labels: int64 N.
        scans: int64 N; number of the scan in scikit-learn's set.
        opacity: float N x 32 x 32; how much of the digit covers each pixel.
        colours: float N x 3; of the digits.
        behind: float N x 3; mean colours of the whole backgrounds.
    """

    images: Tensor
    labels: Tensor
    scans: Tensor
    opacity: Tensor
    colours: Tensor
    behind: Tensor


def draw_crops(split: str, *, count: int, seed: int) -> Crops:
    """Draw `count` crops from the scans of `split`, all of them used equally often (+-1).

    A digit's tight box is 20 to 28 px tall, wherever it fits in the crop; it is turned by up to 25
    degrees; its colour is one, at least 0.4 from the background's mean colour
    (`visrep.data.builtin.digits.contrast`).
    """
    rng = np.random.default_rng(seed)
    pool = scans(split)
    rounds = -(-count // len(pool.ids))
    order = np.concatenate([rng.permutation(len(pool.ids)) for _ in range(rounds)])[:count]
    chosen = torch.from_numpy(order)

    degrees = torch.from_numpy(rng.uniform(-MAX_ANGLE, MAX_ANGLE, count)).float()
    stencils = Stencils(pool.ink[chosen], degrees)
    heights = torch.from_numpy(rng.uniform(*HEIGHTS, count)).float()
    heights = torch.minimum(heights, (SIZE - 2 * EDGE) / stencils.width_per_height)
    boxes = torch.stack([heights * stencils.width_per_height, heights], dim=1)
    room = SIZE - 2 * EDGE - boxes
    centres = EDGE + boxes / 2 + room * torch.from_numpy(rng.random((count, 2))).float()
    opacity = stencils.stamp(heights, centres, (SIZE, SIZE))

    behind = torch.stack([background(rng, SIZE, SIZE, ZOOM) for _ in range(count)])
    means = behind.mean(dim=(2, 3))
    colours = visible_colours(rng, means)
    images = torch.lerp(behind, colours[:, :, None, None], opacity[:, None])
    images = (images * 255).round().to(torch.uint8)
    return Crops(images, pool.labels[chosen], pool.ids[chosen], opacity, colours, means)


def crops(split: str) -> MemoryImages:
    """The built-in crops: 6,000 of "train" or 2,000 of "test", 32 x 32, ten classes.

    Drawn once in a few seconds and kept under `visrep.paths.cache_dir()`; a cache that is broken
    is drawn again, one that cannot be written is done without.

    Raises:
        ConfigError: no such split.
    """
    if split not in COUNTS:
        raise ConfigError(f"scenes has no split {split!r}; choose train or test")
    path = cache_dir() / f"scenes-crops-{split}-{_key(split)}.safetensors"
    images, labels = _read_cache(path, split) or _draw_and_cache(path, split)
    return MemoryImages(name=f"scenes/{split}", images=images, labels=labels, classes=CLASSES)


def _key(split: str) -> str:
    made_from = (_VERSION, COUNTS[split], SEEDS[split], SIZE, HEIGHTS, EDGE, ZOOM)
    return hashlib.sha256(repr((*made_from, MAX_ANGLE, MIN_CONTRAST)).encode()).hexdigest()[:12]


def _digest(images: Tensor, labels: Tensor) -> str:
    return hashlib.sha256(images.numpy().tobytes() + labels.numpy().tobytes()).hexdigest()


def _read_cache(path: Path, split: str) -> tuple[Tensor, Tensor] | None:
    if not path.exists():
        return None
    try:
        with safe_open(path, framework="pt") as stored:
            images, labels = stored.get_tensor("images"), stored.get_tensor("labels")
            digest = (stored.metadata() or {}).get("sha256")
        if digest == _digest(images, labels) and len(images) == COUNTS[split]:
            return images, labels
        reason = "its content does not match its hash"
    except (OSError, SafetensorError) as error:
        reason = str(error)
    log.warning("cache %s is broken (%s): drawing it again", path, reason)
    return None


def _draw_and_cache(path: Path, split: str) -> tuple[Tensor, Tensor]:
    log.info("drawing the built-in crops of %s (a few seconds, once)", split)
    drawn = draw_crops(split, count=COUNTS[split], seed=SEEDS[split])
    images, labels = drawn.images.contiguous(), drawn.labels.contiguous()
    try:
        with atomic_path(path) as temporary:
            metadata = {"sha256": _digest(images, labels)}
            save_file({"images": images, "labels": labels}, temporary, metadata=metadata)
    except (UserError, SafetensorError) as error:
        log.warning("going on without a cache: %s", error)
    return images, labels
