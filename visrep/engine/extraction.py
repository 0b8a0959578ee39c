"""Features of a data set under a frozen encoder."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from tqdm import tqdm

from visrep.data.dataset import ImageDataset
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
    progress: bool = False,
) -> Tensor:
    """Features of every image (or of `indices`) in order: N x D float32 on the CPU.

    The encoder runs in eval mode without gradients and is left in eval mode on `device`. Autocast
    (`precision`) is off unless asked for: it moves a feature by about 1 %.

    Raises:
        UserError: the data set is empty.
    """
    device = torch.device(device)
    encoder = encoder.to(device, memory_format=torch.channels_last).eval()  # type: ignore[call-overload]
    dtype = autocast_dtype(precision, device)
    features = []
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
        for images in batches(
            dataset,
            preprocess,
            batch_size=batch_size,
            workers=workers,
            device=device,
            indices=indices,
        ):
            features.append(encoder(images).float().cpu())
            bar.update(len(images))
    if not features:
        raise UserError(f"{dataset.name} holds no image; check the folder that its config names")
    return torch.cat(features).clone()  # a tensor of inference mode could not be trained on


def batches(
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    batch_size: int,
    workers: int = 0,
    device: torch.device | str = "cpu",
    indices: Tensor | None = None,
) -> Iterator[Tensor]:
    """All images (or `indices`) in order, preprocessed: n x 3 x size x size on `device`.

    The last batch is short. Images in memory are preprocessed a batch at a time on `device`;
    others are decoded by `workers` processes.
    """
    if indices is None:
        indices = torch.arange(len(dataset))
    if dataset.images is not None:
        for block in indices.split(batch_size):
            yield preprocess(dataset.images[block].to(device))
        return
    prepared = _Prepared(dataset, preprocess, indices)
    item_bytes = 4 * 3 * preprocess.size**2 * batch_size
    for images in Fetched(prepared, workers=workers, item_bytes=item_bytes, batch_size=batch_size):
        yield images.to(device, non_blocking=True)


class _Prepared(Dataset):
    """Image i of `indices` as the encoder wants it, float 3 x size x size."""

    def __init__(self, dataset: ImageDataset, preprocess: Preprocess, indices: Tensor) -> None:
        self.dataset, self.preprocess, self.indices = dataset, preprocess, indices

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, item: int) -> Tensor:
        return self.preprocess(self.dataset[int(self.indices[item])])
