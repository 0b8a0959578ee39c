"""Features of a data set under a frozen encoder."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset, default_collate
from tqdm import tqdm

from visrep.data.dataset import ImageDataset
from visrep.data.images import BrokenImage, BrokenImages
from visrep.data.preprocess import Preprocess
from visrep.data.workers import Fetched
from visrep.engine.precision import autocast_dtype
from visrep.errors import UserError


def extract(
    encoder: nn.Module,
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    batch_size: int = 256,
    workers: int = 0,
    precision: str = "fp32",
    indices: Tensor | None = None,
    broken: BrokenImages | None = None,
    home: torch.device | str = "cpu",
    progress: bool = False,
) -> tuple[Tensor, Tensor]:
    """Features of every readable image (or of those among `indices`) in order.

    The encoder runs in eval mode without gradients and is left in eval mode on `device`. Autocast
    (`precision`) is off unless asked for: it moves a feature by about 1 %.

    Args:
        broken: notes images that cannot be read, and ends it when they are too many; None: one
            is too many.
        home: where the features are gathered.

    Returns:
        N x D float32 on `home`, and which images they are of: N int64, indices into the data set.

    Raises:
        UserError: the data set is empty, or images are broken and not tolerated.
    """
    device = torch.device(device)
    encoder = encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    dtype = autocast_dtype(precision, device)
    features, kept = [], []
    total = len(dataset) if indices is None else len(indices)
    with (
        torch.inference_mode(),
        torch.autocast(device.type, dtype=dtype or torch.bfloat16, enabled=dtype is not None),
        tqdm(
            total=total,
            desc=f"features of {dataset.name}",
            unit="image",
            disable=None if progress else True,
        ) as bar,
    ):
        for images, index in batches(
            dataset,
            preprocess,
            batch_size=batch_size,
            workers=workers,
            device=device,
            indices=indices,
            broken=broken,
        ):
            features.append(encoder(images).float().to(home))
            kept.append(index)
            bar.update(len(images))
    if not features:
        raise UserError(f"{dataset.name} holds no image; check the folder that its config names")
    # A tensor of inference mode could not be trained on.
    return torch.cat(features).clone(), torch.cat(kept).clone()


def batches(
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    indices: Tensor | None = None,
    broken: BrokenImages | None = None,
) -> Iterator[tuple[Tensor, Tensor]]:
    """All readable images (or those among `indices`) in order, and their indices.

    Yields n x 3 x size x size, preprocessed, on `device`, and n int64. The last batch is short, as
    is one with broken images, which `broken` notes as in `extract`. Images in memory are
    preprocessed a batch at a time on `device`; others are decoded by `workers` processes.
    """
    if indices is None:
        indices = torch.arange(len(dataset))
    blocks = indices.split(batch_size)
    if dataset.images is not None:
        for block in blocks:
            yield preprocess(dataset.images[block].to(device)), block
        return
    prepared = Fetched(
        _Prepared(dataset, preprocess, indices),
        workers=workers,
        item_bytes=4 * 3 * preprocess.size**2 * batch_size,
        batch_size=batch_size,
        collate_fn=_together,
    )
    for block, (images, good, failed) in zip(blocks, prepared, strict=True):
        for error in failed:
            if broken is None:
                raise error
            broken.record(error.file, error.reason)
        if len(good):
            yield images.to(device, non_blocking=True), block[good]


class _Prepared(Dataset):
    """Image i of `indices` as the encoder wants it, float 3 x size x size, or why it is not."""

    def __init__(self, dataset: ImageDataset, preprocess: Preprocess, indices: Tensor) -> None:
        self.dataset, self.preprocess, self.indices = dataset, preprocess, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Tensor | BrokenImage:
        try:
            return self.preprocess(self.dataset[int(self.indices[item])])
        except BrokenImage as error:
            return error


def _together(samples: list[Tensor | BrokenImage]) -> tuple[Tensor, Tensor, list[BrokenImage]]:
    """The images of a batch, their places in it, and what went wrong with the others."""
    good = [i for i, sample in enumerate(samples) if isinstance(sample, Tensor)]
    images = [sample for sample in samples if isinstance(sample, Tensor)]
    return (
        default_collate(images) if images else torch.empty(0),
        torch.tensor(good, dtype=torch.int64),
        [sample for sample in samples if isinstance(sample, BrokenImage)],
    )
