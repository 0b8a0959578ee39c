"""What a run remembers of its data, so that it is gone on with on the same.

A record is small and plain: how many images, the names of the classes, and a fingerprint of names,
labels and content. Content is the pixels of images in memory, and the sizes of files; a folder may
have been moved or copied meanwhile. `images` has the same image by image, to say what has changed.
"""

import hashlib
import os
import zlib
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.data.detection import DetectionDataset, ImageRecord

LISTED = 100_000  # images up to which a record lists them
SHOWN = 3  # names in a message


def of_images(
    dataset: ImageDataset, *, indices: Tensor | None = None, labels: Tensor | None = None
) -> dict[str, Any]:
    """The record of the images that are trained on.

    Args:
        indices: those that are used, int64; None: all.
        labels: N int64, those that are used; None: the data set's.
    """
    wanted = torch.arange(len(dataset)) if indices is None else indices.sort().values
    labels = dataset.labels if labels is None else labels
    root = getattr(dataset, "root", None)

    def content(index: int) -> str:
        label = "" if labels is None else f" {int(labels[index])}"
        if dataset.images is not None:
            return f"{zlib.crc32(dataset.images[index].contiguous().numpy().data):08x}{label}"
        return f"{_bytes(Path(root) / dataset.file(index)) if root else ''}{label}"

    classes = None if dataset.classes is None else list(dataset.classes)
    kind = "pixels" if dataset.images is not None else "bytes" if root else "names"
    return _record(classes, kind, ((dataset.file(i), content(i)) for i in wanted.tolist()))


def of_detection(dataset: DetectionDataset) -> dict[str, Any]:
    """The record of images with boxes, or with a class for each pixel."""

    def content(record: ImageRecord) -> str:
        known: tuple[object, ...] = (record.height, record.width, record.boxes)
        if record.labels is not None:
            known = (*known, record.labels.content())
        points = [box.keypoints for box in record.boxes]
        if any(point is not None for point in points):
            known = (*known, points)
        return f"{_bytes(Path(record.file))} {zlib.crc32(repr(known).encode()):08x}"

    images = ((record.id, content(record)) for record in dataset.records)
    return _record(dataset.classes, "bytes", images)


def _bytes(path: Path) -> int | str:
    try:
        return path.stat().st_size
    except OSError:  # a broken link is for the reader to judge
        return "?"


def _record(
    classes: list[str] | None, kind: str, images: Iterable[tuple[str, str]]
) -> dict[str, Any]:
    listed = dict(images)
    digest = hashlib.sha256(repr(classes).encode())
    for name, content in listed.items():
        digest.update(os.fsencode(f"{name}\0{content}\n"))
    return {
        "count": len(listed),
        "classes": classes,
        "kind": kind,  # what the content is
        "fingerprint": digest.hexdigest(),
        "images": listed if len(listed) <= LISTED else None,
    }


def changes(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What is different in `now`, in words; those of classes begin with "class"."""
    if before["fingerprint"] == now["fingerprint"]:
        return []
    found = _class_changes(before["classes"], now["classes"])
    old, new = before.get("images"), now.get("images")
    same_kind = before["kind"] == now["kind"]
    if old is None or new is None:
        if before["count"] != now["count"]:
            found.append(_fewer_or_more(now["count"] - before["count"]))
    else:
        gone = [name for name in old if name not in new]
        come = [name for name in new if name not in old]
        # One image of another size more, and none is held in memory: labels are still comparable.
        part = 0 if same_kind else 1
        other = [
            name
            for name, content in new.items()
            if name in old and old[name].split(" ")[part:] != content.split(" ")[part:]
        ]
        for names, what in (
            (gone, _fewer_or_more(-len(gone))),
            (come, _fewer_or_more(len(come))),
            (other, f"{_images(len(other))} with other content or label"),
        ):
            if names:
                found.append(f"{what} ({_first(names)})")
        if not found and list(old) != list(new):
            found.append("the images are in another order")
    return found or (["the content of images differs"] if same_kind else [])


def _class_changes(before: list[str] | None, now: list[str] | None) -> list[str]:
    then, today = before or [], now or []
    gone = [name for name in then if name not in today]
    come = [name for name in today if name not in then]
    if gone and len(gone) == len(come):
        pairs = islice(zip(gone, come, strict=True), SHOWN)
        return [f"class renamed: {old} -> {new}" for old, new in pairs]
    found = []
    if gone:
        found.append(f"classes fewer: {_first(gone)}")
    if come:
        found.append(f"classes more: {_first(come)}")
    if not found and then != today:
        found.append("classes in another order")
    return found


def _images(count: int) -> str:
    return f"{count} image{'s' if count != 1 else ''}"


def _fewer_or_more(count: int) -> str:
    return f"{_images(abs(count))} {'fewer' if count < 0 else 'more'}"


def _first(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
