"""Images and classes of pixels for torchvision's engine: scaled, cropped and mirrored together.

The image by Pillow's bilinear resize on 8-bit pixels, its labels by the nearest. What is smaller
than the crop stays so: a batch is padded once it is normalised, with zeros and ignored labels.
"""

from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.images import BrokenImage
from visrep.data.semantic.readiness import labels_of
from visrep.seeds import generator
from visrep.transfer.detection.batches import TrainingBatches, resized


class LabelBatches(TrainingBatches):
    """Endless batches of images and `classes` (uint8 H x W, 255 for none), from any step on."""

    def usable(self, dataset: DetectionDataset) -> list[ImageRecord]:
        """All: pixels without a class teach nothing."""
        return list(dataset.records)

    def image_bytes(self) -> int:
        """Of a training image and its labels at their largest."""
        recipe = self.recipe
        if recipe.crop:
            return 4 * recipe.crop**2
        if recipe.scales:
            pixels = max(record.height * record.width for record in self.records)
            return int(4 * pixels * max(recipe.scales) ** 2)
        short = max(recipe.train_sizes)
        return 4 * min(short, recipe.max_size) * recipe.max_size

    def sample(self, position: int) -> tuple[Tensor, dict[str, Tensor], list[BrokenImage]]:
        """Image and classes at a position of the stream; broken files as in `TrainingBatches`."""
        random = generator(self.seed, "sample", position)
        scale, top, left, turn = torch.rand(4, generator=random).tolist()

        def read(record: ImageRecord) -> tuple[Tensor, Tensor]:
            return resize(record.image(), labels_of(record), size_of(record, self.recipe, scale))

        _, (image, classes), broken = self._readable(position, read)
        if self.recipe.crop:
            image, classes = (cut(t, self.recipe.crop, top, left) for t in (image, classes))
        if self.recipe.flip and turn < 0.5:
            image, classes = image.flip(-1), classes.flip(-1)
        return image, {"classes": classes}, broken


def size_of(record: ImageRecord, recipe: DetectionRecipe, draw: float) -> tuple[int, int]:
    """Height and width of a training image, from a `draw` in [0, 1)."""
    if recipe.scales:
        low, high = recipe.scales
        factor = low + (high - low) * draw
        height, width = (max(1, int(s * factor + 0.5)) for s in (record.height, record.width))
        return height, width
    short = recipe.train_sizes[int(draw * len(recipe.train_sizes))]
    return resized(record.height, record.width, short=short, most=recipe.max_size)


def resize(image: Tensor, classes: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """uint8 3 x h x w and h x w at `size`, height and width."""
    if tuple(classes.shape) == size:
        return image, classes
    shape = (size[1], size[0])
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize(shape, Image.Resampling.BILINEAR)
    drawn = Image.fromarray(classes.numpy()).resize(shape, Image.Resampling.NEAREST)
    pixels = torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()
    return pixels, torch.from_numpy(np.array(drawn))


def cut(image: Any, side: int, top: float, left: float) -> Tensor:
    """Up to side x side pixels of ... x H x W, `top` and `left` in [0, 1) of the room there is."""
    height, width = image.shape[-2:]
    y = int(top * (max(0, height - side) + 1))
    x = int(left * (max(0, width - side) + 1))
    return image[..., y : y + side, x : x + side]
