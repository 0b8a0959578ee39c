"""What is measured of a net that names every pixel: its classes as pictures, mIoU, confusions.

The classes that it named are kept as label images, `segmentations/ID.png` (ids are indices into
`segmentations.json`'s classes), so that any other program can measure them too.
"""

import json
import shutil
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from visrep import dist
from visrep.data.detection import DetectionDataset, ImageRecord
from visrep.data.images import BrokenImage
from visrep.data.semantic.labels import LabelImage, coding_of, write_classes
from visrep.data.semantic.readiness import labels_of
from visrep.engine.run import Run
from visrep.files import write_text
from visrep.transfer.detection import prediction
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.evaluation.miou import Segmentation, confusion

TASK = "semantic"  # in records
FOLDER = "segmentations"


def predict_and_measure(
    run: Run, segmenter: Any, test: DetectionDataset, file: DetectorFile, *, engine: str
) -> None:
    """Name the pixels of `test` on all processes, each its share; measure, record, keep.

    segmenter: an engine's, whose `segment(record)` gives uint8 H x W in the order of
        `file.classes`, which are those of `test` in any order.
    """
    started = time.perf_counter()
    order = torch.tensor([test.classes.index(name) for name in file.classes], dtype=torch.uint8)
    found = named(run.out / FOLDER, test, lambda record: order[segmenter.segment(record).long()])
    if not dist.is_main():
        return  # measuring takes its time, and the others have nothing to wait for
    run.log.info("predicted %d images in %.1f s", len(found), time.perf_counter() - started)
    test = prediction.predicted(test, found)
    measured = measure(test, found)
    _keep(run.out, test, measured)
    run.log.info("%s", measured.table())
    for metric, value in measured.numbers().items():
        _record(run, test, file, engine, metric, value, measured.without_truth)


def named(
    folder: Path, test: DetectionDataset, name: Callable[[ImageRecord], Tensor]
) -> dict[str, Path]:
    """What `name` makes of the images of `test`, on all processes, as label images in `folder`.

    Returns the file of each id, without images that cannot be read.
    """
    for record in test.records[dist.rank() :: dist.world_size()]:
        with suppress(BrokenImage):
            write_classes(folder / f"{record.id}.png", name(record))
    dist.barrier()
    paths = {record.id: folder / f"{record.id}.png" for record in test.records}
    return {id_: path for id_, path in paths.items() if path.is_file()}


def validate(run: Run, segmenter: Any, dataset: DetectionDataset) -> dict[str, float]:
    """The measures of a net in training, whose classes are those of `dataset`; on the main process.

    Its label images are not kept.
    """
    folder = run.out / f"validation_{FOLDER}"
    found = named(folder, dataset, segmenter.segment)
    if not dist.is_main():
        return {}
    numbers = measure(prediction.predicted(dataset, found), found).numbers()
    shutil.rmtree(folder, ignore_errors=True)
    return numbers


def measure(dataset: DetectionDataset, found: dict[str, Path]) -> Segmentation:
    """The counts over all images of `dataset`; `found` has the label image of each id.

    A label image of the data that turns out to be broken is counted in `dataset.broken`, and its
    image left out.
    """
    classes = dataset.classes
    _, coding = coding_of(dict(enumerate(classes)), None, where=FOLDER)
    matrix = torch.zeros((len(classes), len(classes)), dtype=torch.int64)
    for record in dataset.records:
        try:
            truth = labels_of(record)
        except BrokenImage as error:
            dataset.broken.record(error.file, error.reason)
            continue
        named = LabelImage(str(found[record.id]), coding).read(record.height, record.width)
        matrix += confusion(truth, named, classes=len(classes))
    return Segmentation(list(classes), matrix)


def _record(
    run: Run,
    dataset: DetectionDataset,
    file: DetectorFile,
    engine: str,
    metric: str,
    value: float,
    without_truth: Sequence[str],
) -> None:
    left_out = {"left_out": sorted(dataset.broken.files)} if dataset.broken.files else {}
    run.record(
        task=TASK,
        dataset=dataset.name,
        metric=metric,
        value=value,
        weights=file.encoder,
        init=file.init,
        engine=engine,
        recipe=file.recipe["task"],
        head=file.recipe["head"],
        iterations=file.recipe["iterations"],
        detector=file.sha256,
        form="pixels, one scale",
        **file.labels,
        classes_without_truth=list(without_truth),
        **left_out,
    )


def _keep(out: Path, dataset: DetectionDataset, measured: Segmentation) -> None:
    """`per_class.json`, `confusion.json`, and `segmentations.json`, which names the pictures."""
    write_text(out / "per_class.json", json.dumps({"semantic": measured.per_class()}, indent=1))
    counts = {"classes": list(measured.classes), "matrix": measured.matrix.tolist()}
    write_text(out / "confusion.json", json.dumps(counts))
    images = [
        {
            "id": record.id,
            "file": str(record.file),
            "height": record.height,
            "width": record.width,
            "depth": record.depth,
            "segmentation": f"{FOLDER}/{record.id}.png",
            "truth": record.labels.file if isinstance(record.labels, LabelImage) else None,
        }
        for record in dataset.records
    ]
    content = {"dataset": dataset.name, "classes": list(dataset.classes), "images": images}
    write_text(out / f"{FOLDER}.json", json.dumps(content))
