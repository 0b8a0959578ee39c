"""What detection data is: images with boxes, and the rules for boxes that are wrong."""

import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from visrep.data.depth import Depth, parse_depth
from visrep.data.images import BrokenImages, check_range, lies_on_its_side, read_image
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")

_LOGGED = 10  # problems of one data set that are logged one by one


@dataclass
class Box:
    """One object.

    Attributes:
        xyxy: x0, y0, x1, y1 in pixels, continuous: the image spans 0, 0, width, height.
        category: index into the data set's classes.
        difficult: VOC's flag; neither right nor wrong in an evaluation.
        crowd: COCO's flag; a group of objects.
        mask: compressed run-length code as pycocotools has it, `counts` a str; or None.
        area: what COCO's file states, by which objects are small, medium or large; or None.
        stated: a box of COCO's file that `xyxy` is a part of, which its evaluation reads; or None.
        keypoints: x, y and flag of each of the data set's keypoints, in one row: see
            `visrep.data.detection.keypoints.KeypointReader`; None where none is labelled.
    """

    xyxy: tuple[float, float, float, float]
    category: int
    difficult: bool = False
    crowd: bool = False
    mask: dict[str, Any] | None = None
    area: float | None = None
    stated: tuple[float, float, float, float] | None = None
    # What a run remembers of its data is made of the other fields' repr.
    keypoints: tuple[float, ...] | None = field(default=None, repr=False)


class PixelLabels(Protocol):
    """The class of each pixel of an image, for semantic segmentation: `visrep.data.semantic`."""

    def read(self, height: int, width: int) -> Tensor:
        """uint8 H x W: indices into the data set's classes, 255 where there is none."""

    def check(self, height: int, width: int) -> None:
        """Raise what `read` would, as far as can be told without the pixels."""

    def content(self) -> str:
        """What a change of the labels changes."""


@dataclass
class ImageRecord:
    """One image: its file, its name in predictions and evaluations, its size and objects, or the
    classes of its pixels (`labels`).

    `broken` says why the file cannot be read, where the reader had to look into it for its size;
    the size is 0 then, and there are no boxes.
    """

    file: str
    id: str
    height: int
    width: int
    boxes: list[Box] = field(default_factory=list)
    depth: Depth = "auto"
    broken: str = ""
    labels: PixelLabels | None = None

    def image(self) -> Tensor:
        """uint8 3 x H x W.

        Raises:
            BrokenImage: the file cannot be read.
            UserError: its size is not the annotated one, so the boxes would be elsewhere.
        """
        image = read_image(self.file, depth=self.depth)
        self.check_size(*image.shape[1:])
        return image

    def check_size(self, height: int, width: int) -> None:
        """Raise UserError unless the size of the file, `image_size`, is the annotated one.

        Boxes drawn on a photograph that lies on its side belong to other pixels than the ones that
        are read. Where EXIF keeps the size (a square, or upside down) this cannot be told.
        """
        if (height, width) == (self.height, self.width):
            return
        if (width, height) == (self.height, self.width) and lies_on_its_side(self.file):
            raise UserError(
                f"{self.file} is stored as {height}x{width} pixels and EXIF turns it to "
                f"{width}x{height}, but it is annotated as stored: annotate it as it is shown, or "
                "remove the orientation from the file if the boxes belong to it as it is stored"
            )
        raise UserError(
            f"{self.file} is {width}x{height} pixels but annotated as {self.width}x{self.height}; "
            "correct the size in the annotation or the image"
        )


@dataclass(frozen=True, kw_only=True)
class Keypoints:
    """The keypoints of a data set, in the order in which each of its objects has them.

    Attributes:
        names: K of them.
        partners: for each, the position of what it is in a mirror, its own where it stays; None
            where nothing says so.
        skeleton: positions that a picture joins, in pairs.
        sigmas: K, for the evaluation (OKS).
        sigmas_of: where they are from, in a word or two: COCO, stated, not stated.
    """

    names: tuple[str, ...]
    partners: tuple[int, ...] | None
    skeleton: tuple[tuple[int, int], ...]
    sigmas: tuple[float, ...]
    sigmas_of: str

    @classmethod
    def from_dict(cls, stated: Mapping[str, Any]) -> "Keypoints | None":
        """What `dataclasses.asdict` made of one, as json keeps it; None of nothing."""
        if not stated:
            return None
        partners = stated["partners"]
        return cls(
            names=tuple(stated["names"]),
            partners=None if partners is None else tuple(partners),
            skeleton=tuple((a, b) for a, b in stated["skeleton"]),
            sigmas=tuple(stated["sigmas"]),
            sigmas_of=stated["sigmas_of"],
        )


@dataclass(frozen=True, kw_only=True)
class Federated:
    """What LVIS says of its labels, which are not complete; by the names of classes.

    Attributes:
        frequency: of each class, r, c or f: in few, some or many training images.
        absent: of each image by its id, classes that were looked for and are not there.
        incomplete: of each image by its id, classes of which some objects are not labelled.
    """

    frequency: dict[str, str]
    absent: dict[str, frozenset[str]]
    incomplete: dict[str, frozenset[str]]


@dataclass
class DetectionDataset:
    """Images with boxes of `classes`.

    Attributes:
        skipped: one line for each problem that was met.
        ignored: boxes of each class that was not chosen.
        keypoints: of its objects; None without any.
        broken: counts files that cannot be read; without another, none is tolerated.
        federated: of LVIS, by whose rules such data are measured; else None.
        void: of Cityscapes, by whose rules such masks are measured: of each image by its id, the
            run-length code of the pixels that count for nothing; else None.
    """

    name: str
    classes: list[str]
    records: list[ImageRecord]
    skipped: list[str] = field(default_factory=list)
    ignored: dict[str, int] = field(default_factory=dict)
    broken: BrokenImages = field(default_factory=lambda: BrokenImages(0.0, 0), compare=False)
    keypoints: Keypoints | None = None
    federated: Federated | None = None
    void: dict[str, dict[str, Any]] | None = None

    def __post_init__(self) -> None:
        self.broken.total = self.broken.total or len(self.records)

    @property
    def keypoint_count(self) -> int:
        """K, the number of keypoints of an object; 0 without any."""
        return 0 if self.keypoints is None else len(self.keypoints.names)


def with_depth(dataset: DetectionDataset, depth: Any) -> DetectionDataset:
    """`dataset`, whose images are read at `depth` (`visrep.data.depth`) from now on.

    Raises:
        ConfigError: `depth` is none.
        UnknownRange: an image needs another.
    """
    depth = parse_depth(depth)
    for record in dataset.records:
        record.depth = depth
    check_range([Path(record.file) for record in dataset.records], depth=depth, name=dataset.name)
    return dataset


def trainable(
    dataset: DetectionDataset, *, masks: bool, keypoints: bool = False
) -> list[ImageRecord]:
    """The images to train on: those with an object, and a labelled keypoint if these are learned.

    Raises:
        UserError: there is none, or an object has no mask though `masks` are to be learned.
    """
    records = [r for r in dataset.records if any(not box.crowd for box in r.boxes)]
    if not records:
        raise UserError(f"{dataset.name}: no image has a box, so there is nothing to train on")
    if keypoints:
        records = [r for r in records if any(box.keypoints for box in r.boxes)]
        if not records:
            raise UserError(
                f"{dataset.name}: no object has a labelled keypoint, so none can be learned; use "
                "outputs=boxes, or data with keypoints (detection=coco_keypoints)"
            )
    for record in records if masks else ():
        if any(box.mask is None and not box.crowd for box in record.boxes):
            raise UserError(
                f"{record.file}: a box without a mask; use outputs=boxes, or data with a mask "
                "for every box"
            )
    return records


class Problems:
    """Gathers what is wrong with a data set's boxes, or raises at the first (`on_bad="raise"`)."""

    def __init__(self, on_bad: str) -> None:
        if on_bad not in ("report", "raise"):
            raise ConfigError(f"on_bad={on_bad} is unknown; choose report or raise")
        self._raises = on_bad == "raise"
        self.lines: list[str] = []

    def add(self, where: str, what: str, done: str) -> None:
        """Note that `where` (file and object) `what` is wrong, and what was `done` about it."""
        if self._raises:
            raise UserError(f"{where}: {what}; correct the annotation, or use on_bad=report")
        self.lines.append(f"{where}: {what}; {done}")
        if len(self.lines) <= _LOGGED:
            log.warning("%s", self.lines[-1])

    def close(self, name: str) -> list[str]:
        """Log how many lines were not logged; return all."""
        if len(self.lines) > _LOGGED:
            log.warning("%s: %d more such problems", name, len(self.lines) - _LOGGED)
        return self.lines


def usable_box(
    xyxy: tuple[float, float, float, float],
    height: int,
    width: int,
    where: str,
    problems: Problems,
) -> tuple[float, float, float, float] | None:
    """The part of a continuous box that lies in the image; None if the box is unusable.

    A box that is up to one pixel too large is cut without a word: annotation tools number the
    first pixel 0 or 1. More is reported, and so is a box without area, which is skipped.

    Raises:
        UserError: a coordinate is not a finite number.
    """
    x0, y0, x1, y1 = xyxy
    shown = f"[{x0:g} {y0:g} {x1:g} {y1:g}]"
    if not all(math.isfinite(value) for value in xyxy):
        raise UserError(f"{where}: box {shown} is not finite; correct the annotation")
    if x1 <= x0 or y1 <= y0:
        problems.add(where, f"box {shown} has no area or is inverted", "skipped")
        return None
    cut = (max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height)))
    if cut[2] <= cut[0] or cut[3] <= cut[1]:
        problems.add(where, f"box {shown} is outside the {width}x{height} image", "skipped")
        return None
    if max(abs(a - b) for a, b in zip(cut, xyxy, strict=True)) > 1:
        problems.add(where, f"box {shown} leaves the {width}x{height} image", "cut at its edge")
    return cut


def existing_folder(path: str | Path, key: str) -> Path:
    """`path` as an absolute folder; a UserError if it is none."""
    place = Path(path).expanduser()
    if not place.is_dir():
        raise UserError(f"{place} is not a folder; give an existing one as {key}=PATH")
    return place.resolve()


def inside(folder: Path, name: str, where: str) -> Path:
    """`folder / name`, for a name that an annotation gives: it must not lead out of the folder."""
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise UserError(f"{where}: {name} leads out of {folder}; correct the name")
    return folder / name
