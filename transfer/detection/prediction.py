"""What a detector found in an image, and the file that keeps it."""

import contextlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.images import BrokenImage
from visrep.errors import UserError
from visrep.files import write_text


@dataclass(kw_only=True)
class Prediction:
    """Detections in one image.

    Attributes:
        boxes: n x 4, (left, top, right, bottom) in pixels of the original image.
        scores: n.
        labels: n, int64; indices into the data set's classes.
        masks: n run-length codes of the original image's size, counts as text; None without masks.
        keypoints: n x K x 3, x and y in pixels of the original image, and score; or None.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: list[dict[str, Any]] | None = None
    keypoints: Tensor | None = None


def each(
    dataset: DetectionDataset, predict: Callable[[ImageRecord], Prediction]
) -> dict[str, Prediction]:
    """`predict` of every image, by id, without those whose file turns out to be broken."""
    found = {}
    for record in dataset.records:
        with contextlib.suppress(BrokenImage):
            found[record.id] = predict(record)
    return found


def predicted(dataset: DetectionDataset, predictions: Mapping[str, object]) -> DetectionDataset:
    """`dataset` without the images that `each` left out, which its `.broken` counts.

    Raises:
        UserError: they are more than it tolerates.
    """
    for record in dataset.records:
        if record.id not in predictions:
            try:
                record.image()
            except BrokenImage as error:
                dataset.broken.record(error.file, error.reason)
    return replace(dataset, records=[r for r in dataset.records if r.id in predictions])


def save(
    path: str | Path, *, dataset: DetectionDataset, predictions: Mapping[str, Prediction]
) -> None:
    """Write `predictions` (by image id) as JSON.

    One object: `dataset`, `classes`, `keypoints` (their names, what joins them; only with some) and
    `images`, each with `id`, `file`, `height`, `width`, `depth` (how the file is to be read);
    `boxes`, `scores`, `labels` and, where there are any, `masks` and `keypoints`, sorted by falling
    score; and `truth`, the annotated `boxes`, `labels`, which are `difficult` or a `crowd` and,
    where some are learned, `keypoints`.
    """
    images = []
    for record in dataset.records:
        found = predictions.get(record.id)
        if found is None:
            continue
        order = torch.argsort(found.scores, descending=True, stable=True)
        image: dict[str, Any] = {
            "id": record.id,
            "file": str(record.file),
            "height": record.height,
            "width": record.width,
            "depth": record.depth,
            "boxes": found.boxes[order].tolist(),
            "scores": found.scores[order].tolist(),
            "labels": found.labels[order].tolist(),
            "truth": {
                "boxes": [list(box.xyxy) for box in record.boxes],
                "labels": [box.category for box in record.boxes],
                "difficult": [box.difficult for box in record.boxes],
                "crowd": [box.crowd for box in record.boxes],
            },
        }
        if found.masks is not None:
            image["masks"] = [found.masks[i] for i in order.tolist()]
        if found.keypoints is not None:
            image["keypoints"] = found.keypoints[order].tolist()
            image["truth"]["keypoints"] = [box.keypoints for box in record.boxes]
        images.append(image)
    content: dict[str, Any] = {"dataset": dataset.name, "classes": list(dataset.classes)}
    if dataset.keypoints is not None:
        content["keypoints"] = asdict(dataset.keypoints)
    content["images"] = images
    write_text(path, json.dumps(content))


def load(path: str | Path) -> dict[str, Prediction]:
    """The predictions in a file that `save` wrote, by image id, exact.

    Raises:
        UserError: the file is missing or is not such a file.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        count = len(content.get("keypoints", {}).get("names", []))
        return {
            image["id"]: Prediction(
                boxes=torch.tensor(image["boxes"], dtype=torch.float32).reshape(-1, 4),
                scores=torch.tensor(image["scores"], dtype=torch.float32),
                labels=torch.tensor(image["labels"], dtype=torch.int64),
                masks=image.get("masks"),
                keypoints=_points(image["keypoints"], count) if "keypoints" in image else None,
            )
            for image in content["images"]
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(f"{path}: not a file of predictions ({error}); run detect again") from error


def _points(rows: Any, count: int) -> Tensor:
    return torch.tensor(rows, dtype=torch.float32).reshape(-1, count, 3)
