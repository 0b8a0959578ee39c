"""`visrep detect detector=FILE images=DIR out=DIR2`: what a detector finds in a folder of pictures.

No labels are needed and no number is measured. Three things are written: `pictures/`, each image
with what was found drawn on it; `detections.json`, COCO's format with scores; `predictions.json`,
as `detect` writes it.
"""

import json
import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from PIL import Image
from pycocotools import mask as rle

from visrep import dist
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.detection.boxes import Keypoints
from visrep.data.detection.keypoints import MIDDLE
from visrep.data.folders import image_names
from visrep.data.images import SUFFIXES, BrokenImage, BrokenImages, UnknownRange, image_size
from visrep.engine.run import Run
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path, write_text
from visrep.transfer.detection import measuring, prediction
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.drawing import drawn
from visrep.transfer.detection.prediction import Prediction


def read_pictures(folder: str, *, file: DetectorFile, max_broken: float) -> DetectionDataset:
    """All images in `folder` and its sub-folders, without boxes, with the classes of `file`.

    Those whose size cannot be read are left out and counted in `.broken`.

    Raises:
        ConfigError: the detector finds no boxes.
        UserError: there is no such folder, or no image in it, or more than `max_broken` of them
            cannot be read.
    """
    if file.recipe["outputs"] == "semantic":
        raise ConfigError(
            "images= draws boxes, and this net names pixels: measure it on data with detection=, "
            "which keeps its label images"
        )
    place = Path(folder).expanduser()
    if not place.is_dir():
        raise UserError(f"images={folder} is not a folder; give one that holds pictures")
    place = place.resolve()
    names = image_names(place, recursive=True)
    if not names:
        raise UserError(
            f"images={folder}: no image in it or below; put some ({' '.join(SUFFIXES)})"
        )
    broken = BrokenImages(max_broken, len(names))
    records = []
    for name in names:
        try:
            height, width = image_size(place / name)
        except UnknownRange:
            raise
        except BrokenImage as error:
            broken.record(error.file, error.reason)
            continue
        records.append(ImageRecord(str(place / name), name, height, width))
    return DetectionDataset(
        name=place.name,
        classes=list(file.classes),
        records=records,
        broken=broken,
        keypoints=Keypoints.from_dict(file.keypoints),
    )


def check_out(out: Path, images: Path) -> None:
    """Raise ConfigError where what is written into `out` would lie among the `images`."""
    if images.resolve() in (out.resolve(), *out.resolve().parents):
        raise ConfigError(f"out={out} is in images={images}: choose another out=")


def predict_pictures(run: Run, detector: Any, dataset: DetectionDataset, *, score: float) -> None:
    """Predict on all processes, each its share; draw what has `score` or more, write the files."""
    started = time.perf_counter()
    predictions = measuring.gathered(run, dataset, lambda share: detector.predict_all(share))
    if not dist.is_main():
        return
    dataset = prediction.predicted(dataset, predictions)
    run.log.info("predicted %d images in %.1f s", len(predictions), time.perf_counter() - started)
    write_text(run.out / "detections.json", json.dumps(coco_results(dataset, predictions)))
    prediction.save(run.out / "predictions.json", dataset=dataset, predictions=predictions)
    shown: Counter[str] = Counter()
    for record, name in zip(dataset.records, picture_names(dataset.records), strict=True):
        found = above(predictions[record.id], score)
        shown.update(dataset.classes[label] for label in found.labels.tolist())
        picture = drawn(record.image(), found, dataset.classes, keypoints=dataset.keypoints)
        _save(run.out / "pictures" / name, picture)
    counted = ", ".join(f"{count} {name}" for name, count in shown.most_common())
    run.log.info("found at score %g or more: %s", score, counted or "nothing")
    if dataset.broken.files:
        named = ", ".join(list(dataset.broken.files)[:5])
        run.log.info("left out, cannot be read: %d (%s)", len(dataset.broken.files), named)
    run.log.info("wrote %s, detections.json and predictions.json", run.out / "pictures")


def above(found: Prediction, score: float) -> Prediction:
    """The detections of `score` or more, by rising score, so that the surest are drawn last."""
    order = [i for i in found.scores.argsort(stable=True).tolist() if found.scores[i] >= score]
    return replace(
        found,
        boxes=found.boxes[order],
        scores=found.scores[order],
        labels=found.labels[order],
        masks=None if found.masks is None else [found.masks[i] for i in order],
        keypoints=None if found.keypoints is None else found.keypoints[order],
    )


def picture_names(records: list[ImageRecord]) -> list[str]:
    """A name for the picture of each image: its own as .jpg, or with .jpg added where two clash."""
    stems = Counter(str(Path(record.id).with_suffix("")) for record in records)
    return [
        str(path.with_suffix(".jpg")) if stems[str(path.with_suffix(""))] == 1 else f"{path}.jpg"
        for path in (Path(record.id) for record in records)
    ]


def coco_results(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction]
) -> dict[str, Any]:
    """Images, categories and annotations with scores, as COCO's files have them; ids from 1 on.

    `bbox` is left, top, width, height in pixels; `segmentation` a run-length code; `keypoints` the
    numbers of pixels, and a score where annotations have a flag.
    """
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for number, record in enumerate(dataset.records, start=1):
        images.append(
            {
                "id": number,
                "file_name": record.id,
                "height": record.height,
                "width": record.width,
            }
        )
        found = predictions[record.id]
        rows = zip(found.boxes.tolist(), found.scores.tolist(), found.labels.tolist(), strict=True)
        for row, ((x0, y0, x1, y1), score, label) in enumerate(rows):
            annotation: dict[str, Any] = {
                "id": len(annotations) + 1,
                "image_id": number,
                "category_id": label + 1,
                "score": score,
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "area": (x1 - x0) * (y1 - y0),
                "iscrowd": 0,
            }
            if found.masks is not None:
                code = found.masks[row]
                annotation |= {"segmentation": code, "area": float(rle.area(code))}
            if found.keypoints is not None:
                points = found.keypoints[row].tolist()
                annotation["keypoints"] = [
                    value for x, y, sure in points for value in (x - MIDDLE, y - MIDDLE, sure)
                ]
            annotations.append(annotation)
    categories: list[dict[str, Any]] = [
        {"id": number, "name": name} for number, name in enumerate(dataset.classes, start=1)
    ]
    return {"images": images, "categories": categories, "annotations": annotations}


def _save(path: Path, picture: Image.Image) -> None:
    with atomic_path(path) as temporary:
        picture.save(temporary, "JPEG", quality=90)
