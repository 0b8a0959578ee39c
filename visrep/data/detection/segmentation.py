"""COCO's segmentations, polygons or run-length codes, as compressed run-length codes."""

from typing import Any

from pycocotools import mask as rle

from visrep.data.detection.fields import number
from visrep.errors import UserError


def read_mask(segmentation: Any, height: int, width: int) -> tuple[dict[str, Any] | None, str]:
    """A code of size height x width, `counts` a str, and what is wrong with the segmentation.

    A polygon that cannot be read takes only itself away; the code is None where nothing is left.
    """
    if isinstance(segmentation, dict):
        code = _code(segmentation, [height, width])
        return code, "" if code else "its run-length code cannot be read"
    if not isinstance(segmentation, list):
        return None, "its segmentation is neither polygons nor a run-length code"
    polygons = [_polygon(points, height, width) for points in segmentation]
    good = [points for points in polygons if points is not None]
    bad = len(polygons) - len(good)
    wrong = f"{bad} of its {len(polygons)} polygons cannot be read" if bad else ""
    if not good:
        return None, wrong
    merged = rle.merge(rle.frPyObjects(good, height, width))
    return {"size": [height, width], "counts": merged["counts"].decode("ascii")}, wrong


def box_mask(xyxy: tuple[float, float, float, float], height: int, width: int) -> dict[str, Any]:
    """The code of a box, for an object without a mask of its own."""
    x0, y0, x1, y1 = xyxy
    code = rle.frPyObjects([[x0, y0, x1, y0, x1, y1, x0, y1]], height, width)[0]
    return {"size": [height, width], "counts": code["counts"].decode("ascii")}


def _polygon(points: Any, height: int, width: int) -> list[float] | None:
    """x, y, x, y, ... of three points or more; None where it is no such list.

    pycocotools takes memory for the whole way between points, however far, and reads four numbers
    as a box.
    """
    if not isinstance(points, list) or len(points) < 6 or len(points) % 2:
        return None
    try:
        read = [number(value, "point", "") for value in points]
    except UserError:
        return None
    return read if max(map(abs, read)) <= 2 * max(height, width) else None


def _code(segmentation: dict[str, Any], size: list[int]) -> dict[str, Any] | None:
    try:
        counts = segmentation["counts"]
        if isinstance(counts, list):
            counts = [int(number(run, "counts", "")) for run in counts]
        runs = counts if isinstance(counts, list) else run_lengths(counts)
        stated = [int(number(side, "size", "")) for side in segmentation["size"]]
        if stated != size or sum(runs) != size[0] * size[1] or min(runs) < 0:
            return None
        if isinstance(counts, list):
            code = rle.frPyObjects({"size": size, "counts": counts}, *size)
            counts = code["counts"].decode("ascii")
        return {"size": size, "counts": counts}
    except (UserError, KeyError, TypeError, ValueError, IndexError, AttributeError, OverflowError):
        return None


def run_lengths(counts: str) -> list[int]:
    """Run lengths of a compressed code; pycocotools itself accepts codes that are too short.

    A number is a chain of characters from "0" on: 5 bits each, the lowest first, the sixth bit
    says that more follow, the highest of the last one's five bits is the sign. From the fourth
    number on it is the difference to the number two before.
    """
    runs: list[int] = []
    value = shift = 0
    for character in counts:
        bits = ord(character) - 48
        if not 0 <= bits < 64:
            raise ValueError(character)
        value |= (bits & 0x1F) << shift
        shift += 5
        if bits & 0x20:
            continue
        if bits & 0x10:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("cut short")
    return runs
