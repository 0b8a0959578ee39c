"""Images and boxes for the torchvision detector: resized outside the net, as Detectron2 does.

Pillow's bilinear resize (with antialias) on 8-bit pixels, then a mirror for half of the training
images; normalisation comes later, on the device. Which images make a batch, their size and their
mirroring are functions of (seed, step), so a resumed run sees what an uninterrupted one would.
"""

from collections.abc import Callable, Iterator, Sequence
from itertools import chain
from typing import Any

import numpy as np
import torch
from PIL import Image
from pycocotools import mask as rle
from torch import Tensor
from torch.utils.data import Dataset

from visrep import dist
from visrep.d2.recipe import DetectionRecipe, check_batch
from visrep.data.detection import Box, DetectionDataset, ImageRecord, trainable
from visrep.data.detection.repeats import longest_epoch, repeat_factors, repeated_order
from visrep.data.images import BrokenImage, UnknownRange
from visrep.data.workers import Fetched
from visrep.seeds import derive_seed, epoch_order, generator

_TRIES = 100  # broken images in a row


class TrainingBatches:
    """Endless batches of images and targets, or `recipe.accumulate` parts of each, from any on.

    Images without a box are left out, as Detectron2 leaves them out, and a batch holds images of
    one orientation (upright, or at least as wide as high), which keeps padding small.

    Args:
        dataset: the images and their boxes.
        recipe: batch size, sizes, mirroring and whether masks are needed.
        seed: of the run.
        workers: decoding processes, 0 for none.

    Raises:
        ConfigError: the batch does not divide over the processes.
        UserError: no image has a box, or a box lacks a mask that is needed; while it is iterated,
            more images are broken than `dataset.broken` tolerates.
    """

    def __init__(
        self, dataset: DetectionDataset, *, recipe: DetectionRecipe, seed: int, workers: int = 0
    ) -> None:
        self.keypoints = dataset.keypoints if recipe.keypoints else None
        self.recipe = recipe
        self.records = self.usable(dataset)
        self.broken = dataset.broken
        self.seed = seed
        self.workers = workers
        threshold = recipe.repeat_threshold
        self.repeats = repeat_factors(self.records, threshold) if threshold else None
        self.longest = len(self.records) if self.repeats is None else longest_epoch(self.repeats)
        self._orders: dict[int, list[int]] = {}
        self.size = check_batch(recipe.batch_size, accumulate=recipe.accumulate)

    def usable(self, dataset: DetectionDataset) -> list[ImageRecord]:
        """The images of `dataset` that can be trained on. Raises UserError as the class does."""
        recipe = self.recipe
        return trainable(dataset, masks=recipe.masks, keypoints=recipe.keypoints)

    def image_bytes(self) -> int:
        """Of an image and its target at their largest."""
        return sample_bytes(self.records, self.recipe)

    def members(self) -> Iterator[list[int]]:
        """The batches of a run from its first step on: positions in the endless stream of images.

        Position p is image `p % n` of the order of epoch `p // n`, for n images. Where rare classes
        come more often (recipe.repeat_threshold), n is the longest that an epoch can be.
        """
        waiting: dict[bool, list[int]] = {True: [], False: []}
        epoch = 0
        while True:
            for place, index in enumerate(self._order(epoch)):
                record = self.records[index]
                group = waiting[record.width >= record.height]
                group.append(epoch * self.longest + place)
                if len(group) == self.recipe.batch_size:
                    yield list(group)
                    group.clear()
            epoch += 1

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """This process' share of every batch from `start_step` on, for ever.

        Of batches that are taken in parts, the parts, and `start_step` counts those.

        Yields:
            images: uint8 3 x H x W each; targets: boxes n x 4 (float, pixels of that image),
            labels n (from 1 on; 0 is the background), with masks n x H x W masks (uint8), with
            keypoints n x K x 3 keypoints (x, y and flag);
            size: images; seed: the step's.
        """
        loader = Fetched(
            _Samples(self),
            workers=self.workers,
            item_bytes=self.size * self.image_bytes(),
            batch_sampler=_Shares(self, start_step),
            collate_fn=list,
        )
        for step, samples in enumerate(loader, start=start_step):
            images, targets, broken = zip(*samples, strict=True)
            for error in chain.from_iterable(broken):
                self.broken.record(error.file, error.reason)
            yield {
                "images": list(images),
                "targets": list(targets),
                "size": len(images),
                "seed": derive_seed(self.seed, "regions", step, dist.rank()),
            }

    def sample(self, position: int) -> tuple[Tensor, dict[str, Tensor], list[BrokenImage]]:
        """Image and target at a position of the stream, resized and perhaps mirrored.

        Broken images, which come third, give way to the next that can be read.
        """
        random = generator(self.seed, "sample", position)
        choice = int(torch.randint(len(self.recipe.train_sizes), (), generator=random))
        mirrored = self.recipe.flip and bool(torch.rand((), generator=random) < 0.5)
        size = {"short": self.recipe.train_sizes[choice], "most": self.recipe.max_size}
        record, image, broken = self._readable(position, lambda record: load(record, **size))
        return (*self.with_truth(record, image, mirrored=mirrored), broken)

    def with_truth(
        self, record: ImageRecord, image: Tensor, *, mirrored: bool
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """A resized image of `record`, perhaps mirrored, and its target."""
        count = 0 if self.keypoints is None else len(self.keypoints.names)
        target = truth(record, image.shape[-2:], masks=self.recipe.masks, keypoints=count)
        if mirrored:
            partners = None if self.keypoints is None else self.keypoints.partners
            image, target = mirror(image, target, partners=partners)
        single = {k: v.float() for k, v in target.items() if v.dtype == torch.float64}
        return image, {**target, **single}

    def _readable(
        self, position: int, read: Callable[[ImageRecord], Any]
    ) -> tuple[ImageRecord, Any, list[BrokenImage]]:
        """The image at a position, or after it, that can be read, and what `read` makes of it."""
        epoch, place = divmod(position, self.longest)
        order = self._order(epoch)
        broken: list[BrokenImage] = []
        for index in [*order[place:], *order[:place]][:_TRIES]:
            try:
                return self.records[index], read(self.records[index]), broken
            except UnknownRange:
                raise
            except BrokenImage as error:
                broken.append(error)
        raise broken[0]

    def _order(self, epoch: int) -> list[int]:
        if epoch not in self._orders:
            order = (
                epoch_order(len(self.records), seed=self.seed, epoch=epoch)
                if self.repeats is None
                else repeated_order(self.repeats, seed=self.seed, epoch=epoch)
            )
            self._orders = {epoch - 1: self._orders.get(epoch - 1, []), epoch: order.tolist()}
        return self._orders[epoch]


class _Samples(Dataset):
    def __init__(self, batches: TrainingBatches) -> None:
        self.batches = batches

    def __getitem__(self, position: int) -> tuple[Tensor, dict[str, Tensor], list[BrokenImage]]:
        return self.batches.sample(position)


class _Shares:
    """This process' positions of every batch, or part of one, from a step on."""

    def __init__(self, batches: TrainingBatches, start_step: int) -> None:
        self.batches = batches
        self.start_step = start_step

    def __iter__(self) -> Iterator[list[int]]:
        size, parts = self.batches.size, self.batches.recipe.accumulate
        for batch, members in enumerate(self.batches.members()):
            for part in range(parts):
                if batch * parts + part >= self.start_step:
                    first = (dist.rank() * parts + part) * size
                    yield members[first : first + size]


def sample_bytes(records: Sequence[ImageRecord], recipe: DetectionRecipe) -> int:
    """Of a training image at its largest, with as many masks as an image has on average."""
    short, most = max(recipe.train_sizes), recipe.max_size
    masks = sum(len(record.boxes) for record in records) / len(records) if recipe.masks else 0
    return int(min(short, most) * most * (3 + masks))


def load(record: ImageRecord, *, short: int, most: int) -> Tensor:
    """The image resized to a short side of `short` and a long one of at most `most`, uint8.

    Raises:
        UserError: the file cannot be read, or is not of the size its annotation states.
    """
    image = record.image()
    height, width = resized(record.height, record.width, short=short, most=most)
    if (height, width) == (record.height, record.width):
        return image
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    picture = picture.resize((width, height), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


def resized(height: int, width: int, *, short: int, most: int) -> tuple[int, int]:
    """Height and width at a short side of `short`, less where the long one would pass `most`."""
    scale = min(short / min(height, width), most / max(height, width))
    return max(1, int(height * scale + 0.5)), max(1, int(width * scale + 0.5))


def truth(
    record: ImageRecord, size: Sequence[int], *, masks: bool, keypoints: int = 0
) -> dict[str, Tensor]:
    """Boxes, labels (from 1 on), masks and K keypoints of an image that was resized to `size`.

    Crowd boxes are left out; difficult ones are objects like any other, as in Detectron2. Boxes are
    float64, as it scales and mirrors them: all anchors around a box overlap it alike, and which of
    them is the best hangs on the last bit of the box.
    """
    height, width = size
    scale = torch.tensor([width / record.width, height / record.height] * 2, dtype=torch.float64)
    limit = torch.tensor([width, height, width, height], dtype=torch.float64)
    kept: list[Box] = [box for box in record.boxes if not box.crowd]
    boxes = torch.tensor([list(box.xyxy) for box in kept], dtype=torch.float64).reshape(-1, 4)
    boxes = torch.minimum((boxes * scale).clamp(min=0), limit)
    labels = torch.tensor([box.category + 1 for box in kept], dtype=torch.int64)
    target = {"boxes": boxes, "labels": labels}
    if masks:
        drawn = [_resized_mask(box, height, width) for box in kept]
        target["masks"] = (
            torch.stack(drawn) if drawn else torch.zeros((0, height, width), dtype=torch.uint8)
        )
    if keypoints:
        unlabelled = [0.0] * (3 * keypoints)
        rows = [list(box.keypoints or unlabelled) for box in kept]
        points = torch.tensor(rows, dtype=torch.float64).reshape(-1, keypoints, 3)
        points[..., :2] *= scale[:2]
        inside = ((points[..., :2] >= 0) & (points[..., :2] <= limit[:2])).all(dim=-1)
        points[~inside | (points[..., 2] == 0)] = 0
        target["keypoints"] = points
    # What resizing made empty cannot be an object, nor can what has no pixel left.
    solid = ((boxes[:, 2:] - boxes[:, :2]) > 1e-5).all(dim=1)
    if masks:
        solid &= (target["masks"].flatten(1) > 0).any(dim=1)
    return {name: value[solid] for name, value in target.items()}


def mirror(
    image: Tensor, target: dict[str, Tensor], *, partners: Sequence[int] | None = None
) -> tuple[Tensor, dict[str, Tensor]]:
    """Image, boxes, masks and keypoints with left and right exchanged.

    partners: which keypoint each of them is in a mirror.
    """
    width = image.shape[-1]
    boxes = target["boxes"].clone()
    boxes[:, [0, 2]] = width - boxes[:, [2, 0]]
    mirrored = {**target, "boxes": boxes}
    if "masks" in target:
        mirrored["masks"] = target["masks"].flip(-1)
    if "keypoints" in target:
        assert partners is not None
        points = target["keypoints"][:, list(partners)]
        labelled = points[..., 2] > 0
        points[..., 0] = torch.where(labelled, width - points[..., 0], points[..., 0])
        mirrored["keypoints"] = points
    return image.flip(-1), mirrored


def _resized_mask(box: Box, height: int, width: int) -> Tensor:
    drawn = rle.decode(box.mask)
    if drawn.shape != (height, width):
        picture = Image.fromarray(drawn).resize((width, height), Image.Resampling.NEAREST)
        drawn = np.array(picture)
    return torch.from_numpy(np.ascontiguousarray(drawn))
