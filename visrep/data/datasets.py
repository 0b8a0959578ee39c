"""Images for pretraining and classification: what a data set is, and readers of the usual folders.

Every reader is the target of a node in `configs/data/`. Small sets whose images are all of one
size are kept in memory as one tensor, which the loader puts on the device at once.
"""

import hashlib
import logging
import os
from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from visrep.data.folders import existing, image_names, sub_folders
from visrep.data.images import SUFFIXES, BrokenImage, BrokenImages, read_image
from visrep.data.splits import named_indices
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

MEMORY_LIMIT = 2 * 1024**3  # bytes; larger sets are decoded as they are needed
MAX_BROKEN = 0.001  # share of images that may be unreadable


class ImageDataset(Protocol):
    """Images with or without labels."""

    @property
    def name(self) -> str:
        """What records and messages call it: "scenes/train"."""

    @property
    def classes(self) -> list[str] | None:
        """Names of the classes; None = unlabelled."""

    @property
    def labels(self) -> Tensor | None:
        """int64 N; None = unlabelled."""

    @property
    def fingerprint(self) -> str:
        """Hex digest that changes with the content; for caches."""

    @property
    def images(self) -> Tensor | None:
        """uint8 N x 3 x H x W when all are of one size and held in memory, else None."""

    def __len__(self) -> int: ...

    def __getitem__(self, i: int) -> Tensor:
        """uint8 3 x H x W, RGB. Raises BrokenImage."""

    def file(self, i: int) -> str:
        """Name of sample i, for messages and label lists; unique within the set."""


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
    ) -> None:
        """`images` uint8 N x 3 x H x W; `files` defaults to NAME/00000 and so on."""
        self.name = name
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
        digest.update("\n".join(self._files).encode())
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
    ) -> None:
        """`files` are paths relative to `root`, with forward slashes."""
        self.name = name
        self.root = root
        self.labels = labels
        self.classes = None if classes is None else list(classes)
        self._files = list(files)

    def __len__(self) -> int:
        return len(self._files)

    def __getitem__(self, i: int) -> Tensor:
        return read_image(self.root / self._files[i])

    def file(self, i: int) -> str:
        return self._files[i]

    @cached_property
    def fingerprint(self) -> str:
        digest = hashlib.sha256(repr(self.classes).encode())
        for file in self._files:
            try:
                status = os.stat(self.root / file)
            except OSError as error:
                raise BrokenImage(self.root / file, error.strerror or "cannot be read") from error
            digest.update(f"{file}\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
        return digest.hexdigest()


def folder(
    root: str | None,
    *,
    recursive: bool = False,
    names: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    max_broken: float = MAX_BROKEN,
) -> ImageDataset:
    """Unlabelled images lying in one folder (with `recursive` in its sub-folders too).

    Args:
        names: text file with the names to use, one per line; others are left out.
        memory_limit: in bytes; sets of one image size that fit are held in memory.
        max_broken: share of the images that may be unreadable when they are read into memory;
            the loader has its own for sets that are decoded as they are needed.

    Raises:
        UserError: the folder is missing or has no images; a listed file is missing; an image is
            broken and the share does not allow it.
    """
    place = existing(root)
    files = image_names(place, recursive=recursive)
    if not files:
        inner = not recursive and any(image_names(child) for child in sub_folders(place))
        advice = (
            "its sub-folders do: add recursive=true to the data node, or use data=imagefolder"
            if inner
            else f"put some there ({' '.join(SUFFIXES)}) or give another data.root"
        )
        raise UserError(f"{place} has no images; {advice}")
    return _read(place.name, place, files, None, None, names, memory_limit, max_broken)


def image_folder(
    root: str | None,
    *,
    split: str | None = None,
    names: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    max_broken: float = MAX_BROKEN,
) -> ImageDataset:
    """Labelled images as `root/split/CLASS/*`; classes and files in sorted order, as torchvision.

    Args and errors as for `folder`; without `split` the class folders lie in `root` itself.
    """
    top = existing(root)
    place = top if split is None else top / split
    if not place.is_dir():
        there = ", ".join(child.name for child in sub_folders(top)[:8]) or "none"
        raise UserError(
            f"{place} is not there (folders in {top}: {there}); give data.train.split and "
            "data.test.split the right names, or data.test=null"
        )
    classes = [child.name for child in sub_folders(place)]
    files, labels = [], []
    for label, name in enumerate(classes):
        inside = image_names(place / name, recursive=True)
        if not inside:
            raise UserError(f"class folder {place / name} has no images; fill or remove it")
        files += [f"{name}/{file}" for file in inside]
        labels += [label] * len(inside)
    if not classes:
        raise UserError(
            f"{place} has no class folders; put the images in {place}/CLASS/, or use data=folder "
            "for unlabelled ones"
        )
    title = f"{top.name}/{split}" if split else top.name
    target = torch.tensor(labels)
    return _read(title, place, files, target, classes, names, memory_limit, max_broken)


def cifar10(root: str | None, *, split: str) -> MemoryImages:
    """CIFAR-10 from the files that torchvision downloads (`root/cifar-10-batches-py`).

    The batches are pickles; torchvision checks their md5 before it opens them.

    Raises:
        ConfigError: no such split.
        UserError: they are missing or not the original files.
    """
    from torchvision.datasets import CIFAR10

    if split not in ("train", "test"):
        raise ConfigError(f"CIFAR-10 has no split {split!r}; choose train or test")
    place = existing(root)
    try:
        data = CIFAR10(str(place), train=split == "train", download=False)
    except RuntimeError as error:
        raise UserError(
            f"{place / CIFAR10.base_folder} is missing or differs from the published CIFAR-10; "
            "unpack cifar-10-python.tar.gz there, or use data=cifar10_folder for images in folders"
        ) from error
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return MemoryImages(
        name=f"cifar10/{split}",
        images=images,
        labels=torch.tensor(data.targets),
        classes=data.classes,
    )


def _read(
    name: str,
    root: Path,
    files: list[str],
    labels: Tensor | None,
    classes: list[str] | None,
    names: str | None,
    memory_limit: int,
    max_broken: float,
) -> ImageDataset:
    """The listed files as a data set, in memory when they are of one size and fit."""
    if names is not None:
        keep = named_indices(Path(names), files, root)
        files = [files[i] for i in keep.tolist()]
        labels = None if labels is None else labels[keep]
    images = _load(root, files, memory_limit, max_broken)
    if images is None:
        return ImageFiles(
            name=name,
            root=root,
            files=files,
            labels=labels,
            classes=classes,
        )
    pixels, good = images
    return MemoryImages(
        name=name,
        images=pixels,
        labels=None if labels is None else labels[good],
        classes=classes,
        files=[files[i] for i in good.tolist()],
    )


def _load(
    root: Path, files: list[str], memory_limit: int, max_broken: float
) -> tuple[Tensor, Tensor] | None:
    """(uint8 N x 3 x H x W, indices of the readable files), or None: unequal or too large."""
    broken = BrokenImages(max_broken, len(files))
    images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    good: list[int] = []
    for i, file in enumerate(files):
        try:
            image = read_image(root / file)
        except BrokenImage as error:
            broken.record(error.file, error.reason)
            continue
        if not good:
            if len(files) * image.numel() > memory_limit:
                return None
            if len(files) > 10_000:
                log.info("decoding the %d images of %s into memory", len(files), root)
            images = torch.empty(len(files), *image.shape, dtype=torch.uint8)
        elif image.shape != images.shape[1:]:
            return None
        images[len(good)] = image
        good.append(i)
    return images[: len(good)], torch.tensor(good)
