"""Batches of views in an order that is a function of (seed, epoch)."""

from collections.abc import Iterator
from itertools import count
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from visrep import dist
from visrep.data.dataset import ImageDataset, read_or_next
from visrep.data.images import BrokenImages
from visrep.data.order import Order
from visrep.data.views.batch import Params, Views
from visrep.data.workers import Fetched
from visrep.errors import ConfigError
from visrep.seeds import derive_seed


class Loader:
    """Endless training batches, from any step on.

    Images that are all of one size and in memory are cut on the device, in one batch; others are
    decoded and cut to their crop boxes by worker processes. Both use the same parameters, which are
    a function of (seed, step, position in the whole batch), so neither the number of workers nor
    that of processes changes a view.

    Args:
        dataset: the images.
        views: how views are drawn and made.
        batch_size: images of one step over all processes.
        seed: of the run.
        workers: decoding processes, 0 for none; unused when the images are in memory.
        device: where views are made.
        indices: the samples to use, int64; None for all.
        continuous: False: every epoch drops its last partial batch. True: batches run on over the
            ends of epochs (SimCLR's finetuning reads its data so), which allows a batch larger
            than the data.
        max_broken: share of broken images, counted and replaced by the next good one, above which
            the run stops.

    Raises:
        ConfigError: the batch does not divide over the processes, or is larger than the data.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        views: Views,
        batch_size: int,
        seed: int,
        workers: int = 0,
        device: torch.device | str = "cpu",
        indices: Tensor | None = None,
        continuous: bool = False,
        max_broken: float = 0.001,
    ) -> None:
        self.dataset = dataset
        self.views = views
        self.batch_size = batch_size
        self.seed = seed
        self.workers = workers
        self.device = torch.device(device)
        self.indices = torch.arange(len(dataset)) if indices is None else indices
        size = len(self.indices)
        self.order = Order(size, batch_size=batch_size, seed=seed, continuous=continuous)
        self.broken = BrokenImages(limit_share=max_broken, total=size)
        if not continuous and batch_size > size:
            raise ConfigError(
                f"batch_size={batch_size} is larger than the data: {dataset.name} has {size} "
                "images; choose a smaller batch"
            )
        self.images = None if dataset.images is None else dataset.images.to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over the data, at least 1."""
        return self.order.steps_per_epoch

    def samples_of(self, step: int) -> Tensor:
        """Indices into the data set of the whole batch of `step`, int64."""
        return self.indices[self.order.of(step)]

    def params_of(self, step: int) -> Params:
        """What is drawn for this process' share of the batch of `step`."""
        return self.views.draw(seed=self.seed, step=step, batch=self.batch_size)[self.order.slice]

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """This process' share of every batch from `start_step` on, for ever.

        Yields:
            views: V tensors n x 3 x h x w, float, on the device; index: n, int64; label: n, int64,
            or absent; size: n; seed: the step's, the same on all processes.
        """
        if self.images is not None:
            for step in count(start_step):
                index = self.samples_of(step)[self.order.slice]
                yield self._batch(step, index, self.images[index], self.params_of(step))
        pixels = sum(view.size**2 for view in self.views.views)
        for step, index, crops, params, broken in Fetched(
            _Crops(self, start_step),
            workers=self.workers,
            item_bytes=3 * pixels * self.batch_size // dist.world_size(),
            batch_size=None,
            pin_memory=self.device.type == "cuda",
        ):
            for file, reason in broken:
                self.broken.record(file, reason)
            crops = [crop.to(self.device, non_blocking=True) for crop in crops]
            yield self._batch(step, index, crops, params)

    def _batch(
        self, step: int, index: Tensor, images: Tensor | list[Tensor], params: Params
    ) -> dict[str, Any]:
        batch = {
            "views": self.views(images, params),
            "index": index.to(self.device),
            "size": len(index),
            "seed": derive_seed(self.seed, "step", step),
        }
        if self.dataset.labels is not None:
            batch["label"] = self.dataset.labels[index].to(self.device)
        return batch


class _Crops(Dataset):
    """Item i is step `start + i` of a loader: decoded and cut, uint8.

    One item is one whole batch; what a worker draws for it goes with the crops to the main process.
    """

    def __init__(self, loader: Loader, start: int) -> None:
        self.loader = loader
        self.start = start

    def __len__(self) -> int:
        return 2**62

    def __getitem__(
        self, item: int
    ) -> tuple[int, Tensor, list[Tensor], Params, list[tuple[str, str]]]:
        loader = self.loader
        step = self.start + item
        params = loader.params_of(step)
        samples, index, broken = [], [], []
        for position, place in enumerate(loader.order.of(step)[loader.order.slice].tolist()):
            image, found, passed_over = read_or_next(loader.dataset, loader.indices, place)
            samples.append(loader.views.crop(image, params, position))
            index.append(found)
            broken += [(error.file, error.reason) for error in passed_over]
        crops = [torch.stack(view) for view in zip(*samples, strict=True)]
        return step, torch.tensor(index), crops, params, broken
