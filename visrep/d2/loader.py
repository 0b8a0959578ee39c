"""Batches of our data for Detectron2's training loop, from any iteration on.

Detectron2's own loader draws from generators that have no place to go back to, so a run that was
interrupted could not go on with the images that it would have had. Here which images make a batch,
and how each is cut and flipped, is a function of the seed and of their number in the order, as in
the rest of this project; Detectron2's samplers, its mapper and its rule of one orientation per
batch stay.
"""

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
from torch.utils.data import Dataset

from visrep import dist
from visrep.d2.data import mapper
from visrep.d2.recipe import check_batch
from visrep.data.images import BrokenImage, BrokenImages, UnknownRange
from visrep.data.workers import Fetched
from visrep.seeds import derive_seed

_TRIES = 100  # broken images in a row

Entry = dict[str, Any]


class TrainingLoader:
    """Endless batches of DATASETS.TRAIN, or parts of each, for this process.

    They are lists of Detectron2's dicts.

    Images without a box, or without a labelled keypoint where these are learned, are left out.

    Args:
        cfg: Detectron2's.
        seed: of the order and of the augmentation.
        start: the batch, or part, that comes first.
        accumulate: parts that a process takes its images of a batch in.
        broken: counts images that cannot be read; another takes the place of one.

    Raises:
        ConfigError: the batch does not divide over the processes.
        UserError: more images are broken than `broken` tolerates (while it is iterated).
    """

    def __init__(
        self, cfg: Any, *, seed: int, start: int, broken: BrokenImages, accumulate: int = 1
    ) -> None:
        from detectron2.data import get_detection_dataset_dicts

        size = check_batch(cfg.SOLVER.IMS_PER_BATCH, accumulate=accumulate)
        points = cfg.MODEL.ROI_KEYPOINT_HEAD.MIN_KEYPOINTS_PER_IMAGE if cfg.MODEL.KEYPOINT_ON else 0
        entries = get_detection_dataset_dicts(
            cfg.DATASETS.TRAIN, filter_empty=True, min_keypoints=points
        )
        self.sampler = _sampler(cfg, entries, seed=seed % 2**31)
        self.broken = broken
        self.batches = Fetched(
            _Images(entries, mapper(cfg, training=True), derive_seed(seed, "image", dist.rank())),
            workers=cfg.DATALOADER.NUM_WORKERS,
            item_bytes=_image_bytes(cfg, entries) * size,
            batch_sampler=_Batches(
                self.sampler, entries, share=size * accumulate, size=size, start=start
            ),
            collate_fn=list,
        )

    def __iter__(self) -> Iterator[list[Entry]]:
        for batch in self.batches:
            for image in batch:
                for file, reason in image.pop("broken"):
                    self.broken.record(file, reason)
            yield batch


def _image_bytes(cfg: Any, entries: Sequence[Entry]) -> int:
    """Of a training image at its largest."""
    own = cfg.INPUT.get("VISREP")
    if own and own.CROP:
        return 4 * own.CROP**2
    if own and own.SCALES:
        largest = max(entry["height"] * entry["width"] for entry in entries)
        return int(4 * largest * max(own.SCALES) ** 2)
    short, most = max(cfg.INPUT.MIN_SIZE_TRAIN), cfg.INPUT.MAX_SIZE_TRAIN
    return 3 * min(short, most) * most


def _sampler(cfg: Any, entries: Sequence[Entry], *, seed: int) -> Any:
    from detectron2.data.samplers import RepeatFactorTrainingSampler, TrainingSampler

    if cfg.DATALOADER.SAMPLER_TRAIN != "RepeatFactorTrainingSampler":
        return TrainingSampler(len(entries), seed=seed)
    repeats = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        entries, cfg.DATALOADER.REPEAT_THRESHOLD, sqrt=cfg.DATALOADER.REPEAT_SQRT
    )  # LVIS, arXiv 1908.03195
    return RepeatFactorTrainingSampler(repeats, seed=seed)


class _Batches:
    """The batches from `start` on, each of (index, number in the order), of one orientation.

    `share` images make a batch, which comes in parts of `size`.
    """

    def __init__(
        self, sampler: Iterable[int], entries: Sequence[Entry], *, share: int, size: int, start: int
    ) -> None:
        self.sampler = sampler
        self.wide = [entry["width"] > entry["height"] for entry in entries]
        self.share = share
        self.size = size
        self.start = start

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return islice(self._all(), self.start, None)

    def _all(self) -> Iterator[list[tuple[int, int]]]:
        waiting: dict[bool, list[tuple[int, int]]] = {True: [], False: []}
        for number, index in enumerate(self.sampler):
            bucket = waiting[self.wide[index]]
            bucket.append((index, number))
            if len(bucket) == self.share:
                for first in range(0, self.share, self.size):
                    yield bucket[first : first + self.size]
                bucket.clear()


class _Images(Dataset):
    """What `read` makes of an entry; all that is random in it follows from the number."""

    def __init__(self, entries: Sequence[Entry], read: Any, seed: int) -> None:
        from detectron2.data import DatasetFromList
        from detectron2.utils.serialize import PicklableWrapper

        self.entries = DatasetFromList(entries, copy=False)  # one block of memory for all workers
        self.read = PicklableWrapper(read)  # for workers that are not forked
        self.seed = seed

    def __getitem__(self, drawn: tuple[int, int]) -> Entry:
        index, number = drawn
        broken: list[BrokenImage] = []
        for step in range(min(len(self.entries), _TRIES)):
            # Detectron2's augmentations draw from NumPy's global generator.
            np.random.seed(derive_seed(self.seed, number) % 2**32)
            try:
                image = self.read(self.entries[(index + step) % len(self.entries)])
            except UnknownRange:
                raise
            except BrokenImage as error:
                broken.append(error)
                continue
            return image | {"broken": [(error.file, error.reason) for error in broken]}
        raise broken[0]
