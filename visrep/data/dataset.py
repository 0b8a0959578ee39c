"""What a data set is, and the two of ours: images in memory, and image files.

Small sets whose images are all of one size are kept in memory as one tensor, which the loader puts
on the device at once. A stranger's data set is a function or class in a file of their own that
gives one of these two, or an object of its own with the members of `ImageDataset`; a yaml in
`data/` names it in `_target_`, and `plugins=` the module.
"""

import contextlib
import hashlib
import inspect
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from visrep.data.depth import Depth
from visrep.data.images import BrokenImage, read_image
from visrep.errors import ConfigError

# Goes up when `read_image` makes other pixels of the same file, so that no cache holds the old.
READER = 2


class ImageDataset(Protocol):
    """Images with or without labels. The first line of a member says what it must be."""

    @property
    def name(self) -> str:
        """What records and messages call it, such as "scenes/train"."""

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes; None = unlabelled."""

    @property
    def labels(self) -> Tensor | None:
        """An int64 tensor of a class for each sample, or None."""

    @property
    def fingerprint(self) -> str:
        """A hex digest that changes with the content; for caches."""

    @property
    def images(self) -> Tensor | None:
        """A uint8 tensor N x 3 x H x W if all are of one size and held in memory, else None."""

    def __len__(self) -> int:
        """The number of samples."""

    def __getitem__(self, i: int) -> Tensor:
        """A uint8 tensor 3 x H x W, RGB; a file that cannot be read raises BrokenImage."""

    def file(self, i: int) -> str:
        """The name of sample i, for messages and label lists, unique within the set."""


def checked(dataset: Any) -> Any:
    """`dataset` itself (or None), after a look at what an `ImageDataset` must have.

    Raises:
        ConfigError: a member is missing or is not what it must be; the message names it.
    """
    if dataset is None:
        return None

    def require(good: bool, member: str) -> None:
        if not good:
            wanted = inspect.getdoc(getattr(ImageDataset, member)) or ""
            kind = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
            raise ConfigError(f"data set {kind}: `{member}` must be there: {wanted.rstrip('.')}")

    for member in ("name", "classes", "labels", "images"):
        require(hasattr(dataset, member), member)
    for member in ("__len__", "__getitem__", "file"):
        require(callable(getattr(dataset, member, None)), member)
    # Not asked for its value, which may take a while to compute.
    require(hasattr(type(dataset), "fingerprint") or "fingerprint" in vars(dataset), "fingerprint")
    count, classes = len(dataset), dataset.classes
    labels, images = dataset.labels, dataset.images
    require(isinstance(dataset.name, str), "name")
    require(classes is None or all(isinstance(name, str) for name in classes), "classes")
    require(labels is None or classes is not None, "classes")
    if labels is not None:
        require(isinstance(labels, Tensor) and labels.dtype == torch.int64, "labels")
        require(labels.shape == (count,), "labels")
        require(count == 0 or 0 <= int(labels.min()) <= int(labels.max()) < len(classes), "labels")
    require(images is None or (_are_pixels(images, 4) and len(images) == count), "images")
    if count:
        require(isinstance(dataset.file(0), str), "file")
        with contextlib.suppress(BrokenImage):
            require(_are_pixels(dataset[0], 3), "__getitem__")
    return dataset


def _are_pixels(x: object, rank: int) -> bool:
    return isinstance(x, Tensor) and x.dtype == torch.uint8 and x.ndim == rank and x.shape[-3] == 3


class MemoryImages:
    """A data set held in memory: images of one size."""

    def __init__(
        self,
        *,
        name: str,
        images: Tensor,
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        files: Sequence[str] | None = None,
        root: Path | None = None,
    ) -> None:
        """`images` uint8 N x 3 x H x W; `files` defaults to NAME/00000 and so on.

        `root`: the folder that the files lie in, where they were read from files.
        """
        self.name = name
        self.root = root
        self.images = images
        self.labels = labels
        self.classes = None if classes is None else list(classes)
        split = name.rsplit("/", 1)[-1]
        self._files = list(files or (f"{split}/{i:05d}" for i in range(len(images))))

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]

    def file(self, i: int) -> str:
        return self._files[i]

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((tuple(self.images.shape), self.classes)).encode())
        digest.update(self.images.contiguous().numpy().data)
        if self.labels is not None:
            digest.update(self.labels.contiguous().numpy().data)
        digest.update(os.fsencode("\n".join(self._files)))
        return digest.hexdigest()


class ImageFiles:
    """A data set of image files, each decoded when it is asked for."""

    images = None

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        files: Sequence[str],
        labels: Tensor | None = None,
        classes: Sequence[str] | None = None,
        depth: Depth = "auto",
    ) -> None:
        """`files` are paths relative to `root`, with forward slashes; `depth` is `read_image`'s."""
        self.name = name
        self.root = root
        self.labels = labels
        self.classes = None if classes is None else list(classes)
        self.depth = depth
        self._files = list(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> Tensor:
        return read_image(self.root / self._files[i], depth=self.depth)

    def file(self, i: int) -> str:
        return self._files[i]

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr((self.classes, self.depth, READER)).encode())
        for file in self._files:
            try:
                status = os.stat(self.root / file)
                state = f"{status.st_size}\0{status.st_mtime_ns}"
            except OSError as error:  # a broken image, which whoever reads it may pass over
                state = error.strerror or "cannot be read"
            digest.update(os.fsencode(f"{file}\0{state}\n"))
        return digest.hexdigest()


def read_or_next(
    dataset: ImageDataset, indices: Tensor, place: int
) -> tuple[Tensor, int, list[BrokenImage]]:
    """Sample `indices[place]`, or the first readable one after it (wrapping around).

    Another sample than those of `indices` is never taken: its label may not be used.

    Returns:
        the image; its index (its label goes with it); the broken ones that were passed over, for
        `BrokenImages.record` in the main process.

    Raises:
        BrokenImage: none of the next 100 can be read.
    """
    broken: list[BrokenImage] = []
    for step in range(min(len(indices), 100)):
        at = int(indices[(place + step) % len(indices)])
        try:
            return dataset[at], at, broken
        except BrokenImage as error:
            broken.append(error)
    raise broken[0]
