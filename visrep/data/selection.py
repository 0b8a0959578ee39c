"""Some of the samples of a data set, or its samples under the class numbers of another."""

import hashlib
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset


class Selection:
    """The samples `indices` of a data set, in this order; an `ImageDataset` itself.

    Args:
        dataset: whose samples they are.
        indices: int64; None for all.
        labels: int64, a class of each sample selected; None for those that `dataset` has.
        classes: the names that go with `labels`.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        indices: Tensor | None = None,
        *,
        labels: Tensor | None = None,
        classes: list[str] | None = None,
    ) -> None:
        self.dataset = dataset
        self.indices = torch.arange(len(dataset)) if indices is None else indices
        self._all = indices is None
        self.name = dataset.name
        self.root = getattr(dataset, "root", None)
        self.classes = dataset.classes if classes is None else classes
        self.labels = self._of(dataset.labels) if labels is None else labels
        # Of images with several labels each (`MultiLabelImages`).
        self.targets: Any = self._of(getattr(dataset, "targets", None))

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, i: int) -> Tensor:
        return self.dataset[int(self.indices[i])]

    def file(self, i: int) -> str:
        return self.dataset.file(int(self.indices[i]))

    @cached_property
    def images(self) -> Tensor | None:
        return self._of(self.dataset.images)

    @cached_property
    def fingerprint(self) -> str:
        if self._all:
            return self.dataset.fingerprint
        digest = hashlib.sha256(self.dataset.fingerprint.encode())
        digest.update(self.indices.contiguous().numpy().data)
        return digest.hexdigest()

    def _of(self, values: Tensor | None) -> Tensor | None:
        return values if values is None or self._all else values[self.indices]
