"""Folders of images: what lies in one, and as data sets with and without labels."""

import logging
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.data.central_crop import is_long
from visrep.data.dataset import ImageDataset, ImageFiles, MemoryImages
from visrep.data.depth import Depth, parse_depth
from visrep.data.images import (
    SUFFIXES,
    BrokenImage,
    BrokenImages,
    check_range,
    is_image_name,
    is_left_out,
    read_image,
)
from visrep.data.splits import named_indices
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

MEMORY_LIMIT = 2 * 1024**3  # bytes; larger sets are decoded as they are needed
MAX_BROKEN = 0.001  # share of images that may be unreadable


def folder(
    root: str | None,
    *,
    recursive: bool = False,
    names: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    max_broken: float = MAX_BROKEN,
    depth: Any = "auto",
) -> ImageDataset:
    """Unlabelled images lying in one folder (with `recursive` in its sub-folders too).

    Args:
        names: text file with the names to use, one per line; others are left out.
        memory_limit: in bytes; sets of one image size that fit are held in memory.
        max_broken: share of the images that may be unreadable when they are read into memory;
            the loader has its own for sets that are decoded as they are needed.
        depth: what is black and white in images of more than 8 bits: `visrep.data.depth`.

    Raises:
        UserError: the folder is missing or has no images; a listed file is missing; an image is
            broken and the share does not allow it; an image needs a `depth`.
    """
    place = existing(root)
    others: Counter[str] = Counter()
    files = image_names(place, recursive=recursive, others=others)
    _say_left_out(place, others)
    if not files:
        inner = not recursive and any(image_names(child) for child in sub_folders(place))
        advice = (
            "its sub-folders do: add recursive=true to the data node, or use data=imagefolder"
            if inner
            else f"put some there ({' '.join(SUFFIXES)}) or give another data.root"
        )
        raise UserError(f"{place} has no images; {advice}")
    return _read(place.name, place, files, None, None, names, memory_limit, max_broken, depth)


def image_folder(
    root: str | None,
    *,
    split: str | Sequence[str] | None = None,
    names: str | None = None,
    memory_limit: int = MEMORY_LIMIT,
    max_broken: float = MAX_BROKEN,
    depth: Any = "auto",
) -> ImageDataset:
    """Labelled images as `root/split/CLASS/*`; classes and files in sorted order, as torchvision.

    Args and errors as for `folder`, and:
        split: name of the part; of several, the first that is there; None where the class folders
            lie in `root` itself.
    """
    top = existing(root)
    part = None if split is None else _part(top, [split] if isinstance(split, str) else split)
    place = top if part is None else top / part
    classes = [child.name for child in sub_folders(place)]
    files, labels = [], []
    others: Counter[str] = Counter()
    for label, name in enumerate(classes):
        inside = image_names(place / name, recursive=True, others=others)
        if not inside:
            raise UserError(f"class folder {place / name} has no images; fill or remove it")
        files += [f"{name}/{file}" for file in inside]
        labels += [label] * len(inside)
    _say_left_out(place, others)
    if not classes:
        raise UserError(
            f"{place} has no class folders; put the images in {place}/CLASS/, or use data=folder "
            "for unlabelled ones"
        )
    title = top.name if part is None else f"{top.name}/{part}"
    target = torch.tensor(labels)
    return _read(title, place, files, target, classes, names, memory_limit, max_broken, depth)


def _part(top: Path, names: Sequence[str]) -> str:
    """The first of the folders `names` in `top` that is there."""
    there = [name for name in names if (top / name).is_dir()]
    if not there:
        inside = ", ".join(child.name for child in sub_folders(top)[:8]) or "none"
        raise UserError(
            f"{' or '.join(str(top / name) for name in names)} is not there (folders in {top}: "
            f"{inside}); give data.train.split and data.test.split the right names, or "
            "data.test=null"
        )
    if there[1:]:
        log.info(
            "%s has both %s and %s: %s is taken, as results are reported on it; data.test.split=%s "
            "takes the other",
            top,
            *there[:2],
            *there[:2],
        )
    return there[0]


def _read(
    name: str,
    root: Path,
    files: list[str],
    labels: Tensor | None,
    classes: list[str] | None,
    names: str | None,
    memory_limit: int,
    max_broken: float,
    depth: Any,
) -> ImageDataset:
    """The listed files as a data set, in memory when they are of one size and fit."""
    depth = parse_depth(depth)
    if names is not None:
        keep = named_indices(Path(names), files, root)
        files = [files[i] for i in keep.tolist()]
        labels = None if labels is None else labels[keep]
    check_range([root / file for file in files], depth=depth, name=name)
    images = _load(root, files, memory_limit, max_broken, depth)
    if images is None:
        return ImageFiles(
            name=name, root=root, files=files, labels=labels, classes=classes, depth=depth
        )
    pixels, good = images
    return MemoryImages(
        name=name,
        images=pixels,
        labels=None if labels is None else labels[good],
        classes=classes,
        files=[files[i] for i in good.tolist()],
        root=root,
    )


def _load(
    root: Path, files: list[str], memory_limit: int, max_broken: float, depth: Depth
) -> tuple[Tensor, Tensor] | None:
    """(uint8 N x 3 x H x W, indices of the readable files), or None: unequal, large or long.

    Long thin images are cut from their files one by one: cutting a whole batch at once takes a
    matrix as long as they are for each view.
    """
    broken = BrokenImages(max_broken, len(files))
    images = torch.empty(0, 3, 0, 0, dtype=torch.uint8)
    good: list[int] = []
    for i, file in enumerate(files):
        try:
            image = read_image(root / file, depth=depth)
        except BrokenImage as error:
            broken.record(error.file, error.reason)
            continue
        if not good:
            if len(files) * image.numel() > memory_limit or is_long(*image.shape[1:]):
                return None
            if len(files) > 10_000:
                log.info("decoding the %d images of %s into memory", len(files), root)
            images = torch.empty(len(files), *image.shape, dtype=torch.uint8)
        elif image.shape != images.shape[1:]:
            return None
        images[len(good)] = image
        good.append(i)
    return images[: len(good)], torch.tensor(good)


def existing(root: str | None) -> Path:
    """`root` as an absolute path; a one-line error if it is not given or no folder."""
    if root is None:
        raise ConfigError("this data needs a folder: add data.root=PATH")
    place = Path(root).expanduser()
    if not place.is_dir():
        raise UserError(f"{place} is not a folder; give an existing one as data.root=PATH")
    return place.resolve()


def sub_folders(place: Path) -> list[Path]:
    """The folders in `place`, sorted by name; hidden ones left out."""
    return sorted(
        (child for child in place.iterdir() if child.is_dir() and child.name[0] != "."),
        key=lambda child: child.name,
    )


def image_names(
    place: Path, *, recursive: bool = False, others: Counter[str] | None = None
) -> list[str]:
    """Image files in `place`, relative and with forward slashes, in torchvision's order.

    Links to folders are followed, each folder once; not those that lead to `place` or above it,
    which would bring in what lies beside it. `others` counts images of kinds that are left out, by
    their suffix.
    """
    found = []
    seen = {_identity(folder) for folder in (place.resolve(), *place.resolve().parents)}
    for folder_name, inner, files in os.walk(place, onerror=_refuse, followlinks=True):
        # Sorted, so that of two links to one folder the same is followed everywhere.
        inner[:] = sorted(name for name in inner if name[0] != ".") if recursive else []
        # What lies here is marked before anything further down can link to it.
        inner[:] = [name for name in inner if _is_new(Path(folder_name, name), seen)]
        found += [(folder_name, file) for file in files if is_image_name(file)]
        if others is not None:
            others.update(os.path.splitext(file)[1] for file in files if is_left_out(file))
    return [(Path(at).relative_to(place) / file).as_posix() for at, file in sorted(found)]


def _say_left_out(place: Path, others: Counter[str]) -> None:
    if others:
        named = ", ".join(f"{count} {suffix}" for suffix, count in others.most_common())
        log.warning(
            "%s: images of other kinds are left out (%s); convert them, or rename what is a JPEG",
            place,
            named,
        )


def _is_new(folder: Path, seen: set[tuple[int, int]]) -> bool:
    """Whether `folder` is not among those `seen`, to which it is added."""
    identity = _identity(folder)
    if identity in seen:
        log.warning("%s leads to a folder that is read already; it is left out", folder)
        return False
    seen.add(identity)
    return True


def _identity(folder: Path) -> tuple[int, int]:
    status = folder.stat()
    return status.st_dev, status.st_ino


def _refuse(error: OSError) -> None:
    raise UserError(f"cannot read folder {error.filename}: {error.strerror}; check its permissions")
