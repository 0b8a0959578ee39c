"""What is measured of a detector: it predicts a test part, and every metric becomes a record."""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from visrep import dist
from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.files import write_text
from visrep.transfer.detection import prediction, segmentation
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.evaluation import errors
from visrep.transfer.detection.evaluation.rules import measured
from visrep.transfer.detection.evaluation.voc import FORMS, evaluate_voc
from visrep.transfer.detection.prediction import Prediction

# What an engine can learn -> the task that its records name.
OUTPUTS = {
    "boxes": "detection",
    "masks": "instance",
    "keypoints": "keypoints",
    "semantic": segmentation.TASK,
}


def predict_and_measure(
    run: Run, detector: Any, test: DetectionDataset, file: DetectorFile, *, engine: str
) -> None:
    """Predict `test` on all processes, each its share; measure, record, keep the predictions."""
    if file.recipe["outputs"] == "semantic":
        return segmentation.predict_and_measure(run, detector, test, file, engine=engine)
    names = by_name(file.classes, test)
    started = time.perf_counter()
    predictions = gathered(run, test, lambda share: detector.predict_all(share))
    run.log.info("predicted %d images in %.1f s", len(predictions), time.perf_counter() - started)
    if not dist.is_main():
        return  # measuring takes its time, and the others have nothing to wait for
    test = prediction.predicted(test, predictions)
    for found in predictions.values():
        found.labels = names[found.labels]
    prediction.save(run.out / "predictions.json", dataset=test, predictions=predictions)
    recipe = DetectionRecipe(**file.recipe)
    about = {"weights": file.encoder, "init": file.init, "detector": file.sha256}
    measure(run, test, predictions, recipe=recipe, engine=engine, labels=file.labels, **about)


def by_name(classes: Sequence[str], dataset: DetectionDataset) -> Tensor:
    """For each of the detector's `classes`, its number in `dataset`, int64.

    Raises:
        ConfigError: they do not have the same classes.
    """
    absent = [name for name in classes if name not in dataset.classes]
    absent += [name for name in dataset.classes if name not in classes]
    if absent:
        raise ConfigError(
            f"the detector and {dataset.name} do not have the same classes: only one of them has "
            f"{', '.join(absent[:5])}; measure on data that are labelled alike"
        )
    return torch.tensor([dataset.classes.index(name) for name in classes])


def measure(
    run: Run,
    dataset: DetectionDataset,
    predictions: Mapping[str, Prediction],
    *,
    recipe: DetectionRecipe,
    engine: str,
    weights: str,
    init: str,
    detector: str,
    labels: Mapping[str, Any] = MappingProxyType({}),
) -> None:
    """Compute every metric; log it, append its record, write `per_class.json` and `errors.json`."""
    left_out = {"left_out": sorted(dataset.broken.files)} if dataset.broken.files else {}

    def record(metric: str, value: float, form: str, **extra: Any) -> None:
        run.record(
            task=OUTPUTS[recipe.outputs],
            dataset=dataset.name,
            metric=metric,
            value=value,
            weights=weights,
            init=init,
            engine=engine,
            recipe=recipe.task,
            head=recipe.head,
            iterations=recipe.iterations,
            detector=detector,
            form=form,
            **labels,
            **left_out,
            **extra,
        )

    tables: dict[str, Any] = {}
    if dataset.federated is None:  # VOC's rules want every object labelled
        voc = evaluate_voc(dataset, predictions)
        for form in FORMS:
            run.log.info("%s", voc.table(form))
        for metric, value in voc.numbers().items():
            form = "VOC area" if metric.endswith("_area") else "VOC 11-point"
            record(metric, value, form, classes_without_truth=voc.without_truth)
        tables |= {form: voc.per_class(form) for form in FORMS}
    for kind, prefix in kinds(recipe, dataset).items():
        found = measured(dataset, predictions, kind=kind)
        for metric, value in found.numbers.items():
            record(f"{prefix}{metric}", value, found.form, **found.about)
        shown = " ".join(f"{name} {value:.2f}" for name, value in found.numbers.items())
        by = f" ({found.about['backend']})" if "backend" in found.about else ""
        run.log.info("%s%s: %s", found.form, by, shown)
        if found.per_class is not None:
            tables[found.form] = found.per_class
        if found.coco is not None and kind == "bbox":
            looked = errors.look(dataset, predictions, found.coco)
            write_text(run.out / "errors.json", json.dumps(looked))
    write_text(run.out / "per_class.json", json.dumps(tables, indent=1))


def kinds(recipe: DetectionRecipe, dataset: DetectionDataset) -> dict[str, str]:
    """What `rules.measured` compares, the task's own last, and how its metrics are called."""
    boxes = "coco_" if dataset.federated is None else "lvis_"
    further = {"masks": {"segm": "mask_"}, "keypoints": {"keypoints": "keypoint_"}}
    return {"bbox": boxes} | further.get(recipe.outputs, {})


def gathered(run: Run, dataset: DetectionDataset, predict: Any) -> dict[str, Prediction]:
    """The predictions of all processes, each of which does its share of the images."""
    share = replace(dataset, records=dataset.records[dist.rank() :: dist.world_size()])
    mine = predict(share)
    if dist.world_size() == 1:
        return mine
    path = run.out / f"predictions.rank{dist.rank()}.json"
    prediction.save(path, dataset=share, predictions=mine)
    dist.barrier()
    everything: dict[str, Prediction] = {}
    if dist.is_main():
        for rank in range(dist.world_size()):
            part = run.out / f"predictions.rank{rank}.json"
            everything |= prediction.load(part)
            part.unlink()
    return everything
