"""PASCAL VOC as images with several labels: which classes are in an image, and which may be.

`ImageSets/Main/CLASS_SPLIT.txt` has an id and 1 (present), -1 (absent) or 0 (only difficult
objects) on each line. Where these lists are missing, the same is worked out from the annotations.
"""

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.data.classes import some
from visrep.data.dataset import ImageDataset, ImageFiles
from visrep.data.depth import Depth, parse_depth
from visrep.data.detection.boxes import existing_folder, inside
from visrep.data.detection.voc import read_voc
from visrep.data.detection.voc_files import Images, layout, read_lines
from visrep.data.images import check_range
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


class MultiLabelImages(ImageFiles):
    """Image files with several labels each.

    Attributes:
        targets: int8 N x C: 1 the class is there, -1 it is not, 0 the image is not counted for it.
    """

    def __init__(
        self,
        *,
        name: str,
        root: Path,
        files: Sequence[str],
        targets: Tensor,
        classes: Sequence[str],
        depth: Depth = "auto",
    ) -> None:
        super().__init__(name=name, root=root, files=files, classes=classes, depth=depth)
        self.targets = targets


def voc_labels(
    root: str | None,
    *,
    split: str,
    classes: Sequence[str] | None = None,
    depth: Any = "auto",
) -> MultiLabelImages:
    """The images of `root/ImageSets/Main/SPLIT.txt` (or of its lists per class) with their targets.

    Args:
        root: the folder that holds Annotations or ImageSets, and JPEGImages.
        split: train, val, trainval, test, or one's own.
        classes: their names in order; None = those that have a list of this split, sorted; without
            any, the names found in the annotations.
        depth: what is black and white in images of more than 8 bits: `visrep.data.depth`.

    Raises:
        UserError: a folder, list or image is missing, or a line cannot be read.
    """
    if root is None:
        raise ConfigError("this data needs a folder: add data.root=PATH")
    place = existing_folder(root, "data.root")
    lists = place / "ImageSets" / "Main"
    names = [str(name) for name in classes] if classes is not None else _listed(lists, split)
    paths = {name: inside(lists, f"{name}_{split}.txt", f"class {name}") for name in names}
    depth, name = parse_depth(depth), f"{place.name}/{split}"
    if names and all(path.is_file() for path in paths.values()):
        ids, targets = _from_lists(paths)
        images = Images(place / "JPEGImages")
        files = [_file(images, id_) for id_ in ids]
        check_range([images.folder / file for file in files], depth=depth, name=name)
    else:
        names, ids, targets = _from_annotations(place, split, classes, depth)
        images = Images(layout(place, split).images)
        files = [_file(images, id_) for id_ in ids]
    return MultiLabelImages(
        name=name, root=images.folder, files=files, targets=targets, classes=names, depth=depth
    )


def shared_targets(train: MultiLabelImages, test: ImageDataset | None) -> tuple[list[str], Any]:
    """The classes of `train`, and `test` with its targets in their order: matched by name.

    A class that no test image has is told in a warning: it has no average precision.

    Raises:
        ConfigError: there is no such test set, or a class is in one of them only.
    """
    if not isinstance(test, MultiLabelImages):
        raise ConfigError(f"{train.name} comes without a test set of the same kind: choose data=")
    assert train.classes is not None and test.classes is not None
    odd = [name for name in train.classes if name not in test.classes]
    odd += [name for name in test.classes if name not in train.classes]
    if odd:
        raise ConfigError(
            f"of the classes of {train.name} and {test.name}, {some(odd)} is in one of them only: "
            "use two parts of one data set, or name the classes of both with data.train.classes= "
            "and data.test.classes="
        )
    order = [test.classes.index(name) for name in train.classes]
    columns = test.targets[:, order]
    present = (columns > 0).any(dim=0).tolist()
    absent = [name for name, here in zip(train.classes, present, strict=True) if not here]
    if absent:
        log.warning(
            "warning: %s has no image of %s, of %d classes: the mean is over the others",
            test.name,
            some(absent),
            len(train.classes),
        )
    if order == list(range(len(order))):
        return train.classes, test
    files = [test.file(i) for i in range(len(test))]
    matched = MultiLabelImages(
        name=test.name, root=test.root, files=files, targets=columns, classes=train.classes
    )
    return train.classes, matched


def _listed(lists: Path, split: str) -> list[str]:
    """Classes that have a list of `split`."""
    end = f"_{split}"
    return sorted(
        file.stem.removesuffix(end) for file in lists.glob(f"*{end}.txt") if file.name[0] != "."
    )


def _from_lists(paths: dict[str, Path]) -> tuple[list[str], Tensor]:
    """Ids in the first list's order, and int8 N x C."""
    columns = [_read_list(path) for path in paths.values()]
    ids = list(columns[0])
    for path, column in zip(paths.values(), columns, strict=True):
        if column.keys() != columns[0].keys():
            odd = sorted(column.keys() ^ columns[0].keys())[0]
            raise UserError(
                f"{path} and {next(iter(paths.values()))} list different images, such as {odd}; "
                "the lists of a split must agree"
            )
    rows = [[column[id_] for column in columns] for id_ in ids]
    return ids, torch.tensor(rows, dtype=torch.int8)


def _read_list(path: Path) -> dict[str, int]:
    found: dict[str, int] = {}
    for number, line in enumerate(read_lines(path), start=1):
        words = line.rsplit(None, 1)  # an id may have spaces, and end in a number
        if not words:
            continue
        if len(words) != 2 or words[1] not in ("1", "+1", "0", "-1"):
            raise UserError(f"{path}:{number}: {line!r} is no id with 1, 0 or -1 after it")
        if words[0] in found:
            raise UserError(f"{path}:{number}: {words[0]} is listed twice; remove one")
        found[words[0]] = int(words[1])
    if not found:
        raise UserError(f"list {path} has no ids; put one on each line")
    return found


def _from_annotations(
    place: Path, split: str, classes: Sequence[str] | None, depth: Depth
) -> tuple[list[str], list[str], Tensor]:
    """Classes, ids, and int8 N x C: 1 where an object is, 0 where only difficult ones are."""
    data = read_voc(place, split, classes=classes, depth=depth)
    targets = torch.full((len(data.records), len(data.classes)), -1, dtype=torch.int8)
    for row, record in zip(targets, data.records, strict=True):
        for box in record.boxes:
            row[box.category] = max(int(row[box.category]), 0 if box.difficult else 1)
    return data.classes, [record.id for record in data.records], targets


def _file(images: Images, id_: str) -> str:
    inside(images.folder, id_, f"image {id_}")
    found = images.find(id_)
    if found is None:
        raise UserError(
            f"{images.folder / id_}.jpg (or .png ...) is not there; add it or remove the id"
        )
    return found.relative_to(images.folder).as_posix()
