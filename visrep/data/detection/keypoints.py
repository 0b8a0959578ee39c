"""Keypoints of objects: their names, what a mirror makes of them, how exactly they can be told.

COCO numbers pixels and places a keypoint in one; here it lies in the middle of that pixel, in the
continuous coordinates of boxes, and goes back to COCO's number where it is measured.
"""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visrep.data.detection.boxes import DetectionDataset, Keypoints, Problems
from visrep.data.detection.fields import number
from visrep.errors import ConfigError, UserError

MIDDLE = 0.5  # of a pixel, from its number
# Spread of annotators around a point, in parts of the object's size (cocodataset.org, "keypoint
# evaluation", which writes 2 sigma as k).
_ONE_SIDE = {"eye": 0.025, "ear": 0.035, "shoulder": 0.079, "elbow": 0.072, "wrist": 0.062}
_ONE_SIDE |= {"hip": 0.107, "knee": 0.087, "ankle": 0.089}
COCO_SIGMAS = {"nose": 0.026} | {
    f"{side}_{part}": sigma for part, sigma in _ONE_SIDE.items() for side in ("left", "right")
}
UNSTATED_SIGMA = 0.05
_SIDE = re.compile(r"(?<![A-Za-z])(left|right|Left|Right|LEFT|RIGHT)(?![a-z])")
_OTHER = {"left": "right", "Left": "Right", "LEFT": "RIGHT"}
_OTHER |= {right: left for left, right in _OTHER.items()}


@dataclass(frozen=True, kw_only=True)
class KeypointReader:
    """Reads what annotations say of `keypoints`.

    Attributes:
        places: of each class that has some, the positions of its own among all.
    """

    keypoints: Keypoints
    places: Mapping[str, Sequence[int]]

    def read(
        self, entry: Mapping[str, Any], name: str, size: tuple[int, int], where: str, told: Problems
    ) -> tuple[float, ...] | None:
        """x, y and flag of each keypoint of an object of class `name`, continuous, in one row.

        The flag is 0 (not labelled, x and y are 0), 1 (hidden) or 2 (seen). None where no keypoint
        is labelled. size: height and width of the image.

        Raises:
            UserError: a value is no number, or the class has no keypoints in its category.
        """
        values = entry.get("keypoints")
        if not values:
            return None
        if name not in self.places:
            raise UserError(
                f"{where} has keypoints, but its category names none; add their names to the "
                "category's 'keypoints'"
            )
        own = self.places[name]
        if not isinstance(values, list) or len(values) != 3 * len(own):
            found = len(values) if isinstance(values, list) else repr(values)
            told.add(
                where,
                f"keypoints hold {found} values where {len(own)} points have {3 * len(own)}",
                "left out",
            )
            return None
        numbers = [number(value, "keypoints", where) for value in values]
        wrong = [flag for flag in numbers[2::3] if flag not in (0, 1, 2)]
        if wrong:
            told.add(
                where,
                f"keypoints have a flag {wrong[0]:g}, not 0, 1 or 2 (a point is x, y, flag)",
                "left out",
            )
            return None
        row = [0.0] * (3 * len(self.keypoints.names))
        for place, x, y, flag in zip(own, numbers[::3], numbers[1::3], numbers[2::3], strict=True):
            if flag:
                row[3 * place : 3 * place + 3] = [x + MIDDLE, y + MIDDLE, flag]
        self._check(row, entry, size, where, told)
        return tuple(row) if any(row[2::3]) else None

    def _check(
        self,
        row: list[float],
        entry: Mapping[str, Any],
        size: tuple[int, int],
        where: str,
        told: Problems,
    ) -> None:
        height, width = size
        outside = [
            name
            for name, x, y, flag in zip(
                self.keypoints.names, row[::3], row[1::3], row[2::3], strict=True
            )
            if flag and not (0 <= x <= width and 0 <= y <= height)
        ]
        if outside:
            shown = ", ".join(outside)
            told.add(where, f"keypoints outside the {width}x{height} image: {shown}", "not learned")
        count = sum(flag > 0 for flag in row[2::3])
        stated = entry.get("num_keypoints")
        if stated is not None and number(stated, "num_keypoints", where) != count:
            told.add(where, f"num_keypoints is {stated} but {count} are labelled", "these count")


def reader(
    path: Path,
    categories: Iterable[Mapping[str, Any]],
    classes: Sequence[str],
    *,
    flips: Any,
    sigmas: Any,
    told: Problems,
) -> KeypointReader:
    """What the `categories` of a COCO file say of the keypoints of `classes`; perhaps nothing.

    Classes may have different ones: the data set has those of all, and equal names are one.

    Args:
        flips: pairs of names that a mirror exchanges; None for those that differ in left and right.
        sigmas: K, or one for all; None for COCO's where the names are its own.

    Raises:
        UserError: names that are no list of different names.
        ConfigError: `flips` or `sigmas` do not fit the names.
    """
    own: dict[str, list[str]] = {}
    joined: list[tuple[str, str]] = []
    for category in categories:
        name = str(category["name"]).strip()
        if name not in classes or not category.get("keypoints") or name in own:
            continue
        own[name] = _names(category["keypoints"], f"{path}: category {name}")
        joined += _joined(category.get("skeleton"), own[name], f"{path}: category {name}", told)
    names = tuple(dict.fromkeys(name for each in own.values() for name in each))
    index = {name: place for place, name in enumerate(names)}
    values, source = _sigmas(names, sigmas)
    keypoints = Keypoints(
        names=names,
        partners=_partners(names, flips),
        skeleton=tuple(dict.fromkeys((index[a], index[b]) for a, b in joined)),
        sigmas=values,
        sigmas_of=source,
    )
    places = {name: [index[point] for point in each] for name, each in own.items()}
    return KeypointReader(keypoints=keypoints, places=places)


def check_mirror(dataset: DetectionDataset) -> None:
    """Raise ConfigError where nothing says which keypoints a mirror exchanges."""
    points = dataset.keypoints
    if points is not None and points.partners is None:
        shown = ", ".join(points.names[:5]) + (", ..." if points.names[5:] else "")
        raise ConfigError(
            f"{dataset.name}: the names of its keypoints ({shown}) do not tell which of them a "
            "mirror exchanges: give pairs as detection.keypoint_flips=[[a,b]] ([] for none), or "
            "flip=false"
        )


def check_same(train: DetectionDataset, names: Sequence[str], of: str) -> None:
    """Raise UserError unless the keypoints of `train` are `names`, those of `of`, in order."""
    known = list(train.keypoints.names) if train.keypoints else []
    if known != list(names):
        raise UserError(
            f"{train.name} and {of} do not have the same keypoints in the same order: "
            f"{', '.join(known) or 'none'} against {', '.join(names) or 'none'}; correct the file"
        )


def _names(stated: Any, where: str) -> list[str]:
    names = [str(name).strip() for name in stated] if isinstance(stated, list) else []
    if not names or not all(names) or len(set(names)) < len(names):
        raise UserError(f"{where}: keypoints must be a list of different names; correct it")
    return names


def _joined(stated: Any, names: list[str], where: str, told: Problems) -> list[tuple[str, str]]:
    """The pairs of names that a skeleton joins; it counts from 1."""
    joined = []
    for pair in stated if isinstance(stated, list) else []:
        ends = pair if isinstance(pair, list) else []
        if len(ends) != 2 or not all(type(e) is int and 1 <= e <= len(names) for e in ends):
            told.add(where, f"skeleton {pair} is no pair of 1 to {len(names)}", "left out")
            continue
        joined.append((names[ends[0] - 1], names[ends[1] - 1]))
    return joined


def _partners(names: tuple[str, ...], flips: Any) -> tuple[int, ...] | None:
    index = {name: place for place, name in enumerate(names)}
    partners = list(range(len(names)))
    if flips is None:
        mirrored = [_SIDE.sub(lambda side: _OTHER[side[0]], name) for name in names]
        pairs = [(a, b) for a, b in zip(names, mirrored, strict=True) if a != b]
        if not pairs or any(b not in index for _, b in pairs):
            return None
        for a, b in pairs:
            partners[index[a]] = index[b]
        return tuple(partners)
    example = "give pairs of names, such as [[left_eye,right_eye]]"
    if isinstance(flips, str) or not isinstance(flips, Iterable):
        raise ConfigError(f"detection.keypoint_flips={flips}: {example}")
    for pair in flips:
        ends = [] if isinstance(pair, str) or not isinstance(pair, Iterable) else [*map(str, pair)]
        if len(ends) != 2 or ends[0] == ends[1]:
            raise ConfigError(f"detection.keypoint_flips: {pair} is no pair: {example}")
        for end in ends:
            if end not in index:
                raise ConfigError(
                    f"detection.keypoint_flips: {end} is no keypoint; choose from "
                    f"{', '.join(names)}"
                )
            if partners[index[end]] != index[end]:
                raise ConfigError(f"detection.keypoint_flips: {end} is in two pairs: {example}")
        one, other = (index[end] for end in ends)
        partners[one], partners[other] = other, one
    return tuple(partners)


def _sigmas(names: tuple[str, ...], stated: Any) -> tuple[tuple[float, ...], str]:
    if stated is None:
        if set(names) == set(COCO_SIGMAS):
            return tuple(COCO_SIGMAS[name] for name in names), "COCO"
        return (UNSTATED_SIGMA,) * len(names), "not stated"
    each = stated if isinstance(stated, Iterable) and not isinstance(stated, str) else None
    try:
        values = [float(stated)] * len(names) if each is None else [float(value) for value in each]
    except (TypeError, ValueError):
        values = []
    if len(values) != len(names) or not all(0 < value < float("inf") for value in values):
        raise ConfigError(
            f"detection.keypoint_sigmas={stated}: give {len(names)} numbers above 0, one for each "
            f"of {', '.join(names)}, or one for all"
        )
    return tuple(values), "stated"
