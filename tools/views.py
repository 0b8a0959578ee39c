"""`visrep views data=scenes views=scenes out=views.png`: a picture of what augmentation does.

One row per image: the image itself, then its views, with the normalisation undone. What a method
sees as one pair stands side by side; look at it before a long run.
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from omegaconf import DictConfig
from torch import Tensor
from torchvision.transforms.v2 import functional as tv
from torchvision.utils import make_grid, save_image

from visrep.config import instantiate
from visrep.data.dataset import ImageDataset, checked
from visrep.data.views.batch import Views
from visrep.errors import ConfigError
from visrep.files import atomic_path
from visrep.seeds import epoch_order

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
SMALLEST = 96  # pixels of a cell; smaller views are enlarged by a whole factor
GAP = 4  # pixels between cells, and thrice that between the image and its views


def main(cfg: DictConfig) -> None:
    """Entry of the command `views`."""
    out = Path(cfg.out)
    if out.suffix.lower() not in SUFFIXES:
        raise ConfigError(f"out={out}: a picture ends in {', '.join(SUFFIXES)}")
    if out.exists() and not cfg.overwrite:
        raise ConfigError(f"{out} exists: choose another out=, or overwrite=true to replace it")
    if cfg.rows < 1 or cfg.columns < 1:
        raise ConfigError(f"rows={cfg.rows} columns={cfg.columns}: both are 1 or more")
    dataset: ImageDataset = checked(instantiate(cfg.data.train))
    views: Views = instantiate(cfg.views)
    chosen = epoch_order(len(dataset), seed=cfg.seed, epoch=0)[: cfg.rows].tolist()
    images = [dataset[i] for i in chosen]
    page = picture(images, views_of(images, views, seed=cfg.seed, count=cfg.columns))
    with atomic_path(out) as path:
        save_image(page, path)
    print(f"{out}: {len(images)} images of {dataset.name}, {cfg.columns} views of each")


def views_of(
    images: Sequence[Tensor], views: Views, *, seed: int, count: int
) -> list[list[Tensor]]:
    """`count` views of each uint8 3 x H x W image, in [0, 1], drawn for successive steps."""
    mean, std = torch.tensor([views.mean, views.std])[..., None, None]
    rows: list[list[Tensor]] = [[] for _ in images]
    for step in range(-(-count // len(views.views))):
        params = views.draw(seed=seed, step=step, batch=len(images))
        crops = [views.crop(image, params, i) for i, image in enumerate(images)]
        for view in views([torch.stack(kind) for kind in zip(*crops, strict=True)], params):
            for row, made in zip(rows, view, strict=True):
                row.append((made * std + mean).clamp(0, 1))
    return [row[:count] for row in rows]


def picture(images: Sequence[Tensor], views: Sequence[Sequence[Tensor]]) -> Tensor:
    """The page, 3 x H x W in [0, 1]: left the images, right of them the rows of views."""
    largest = max(view.shape[-1] for row in views for view in row)
    cell = largest * max(1, -(-SMALLEST // largest))
    left = [_framed(image.float() / 255, cell) for image in images]
    right = [_framed(view, cell) for row in views for view in row]
    originals = make_grid(left, nrow=1, padding=GAP, pad_value=1.0)
    grid = make_grid(right, nrow=len(views[0]), padding=GAP, pad_value=1.0)
    return torch.cat([originals, originals.new_ones(3, grid.shape[1], 2 * GAP), grid], dim=2)


def _framed(image: Tensor, cell: int) -> Tensor:
    """The whole image, enlarged or shrunk, in the middle of a white square."""
    height, width = image.shape[1:]
    scale = cell / max(height, width)
    size = [max(1, round(height * scale)), max(1, round(width * scale))]
    # Nearest shows an enlarged pixel as a square; a photograph is shrunk smoothly.
    nearest = tv.InterpolationMode.NEAREST_EXACT
    mode = nearest if scale > 1 else tv.InterpolationMode.BILINEAR
    image = tv.resize(image, size, interpolation=mode, antialias=True)
    top, left = (cell - size[0]) // 2, (cell - size[1]) // 2
    border = [left, top, cell - size[1] - left, cell - size[0] - top]
    return tv.pad(image, border, fill=[1.0])
