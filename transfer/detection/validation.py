"""A detector in training measured on a validation part, and the best one kept.

The test part has no say in it: what is chosen by a number is not measured by the same number.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from visrep import dist
from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset
from visrep.engine.hooks import Hook, Training
from visrep.engine.precise_bn import buffers_kept
from visrep.engine.run import Run
from visrep.transfer.detection import detector_file, measuring, prediction, segmentation
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.evaluation.rules import measured
from visrep.transfer.detection.evaluation.voc import evaluate_voc

log = logging.getLogger("visrep")

PREFIX = "val_"  # of the metrics in metrics.jsonl


@dataclass(kw_only=True)
class Validation:
    """Measures every `every` iterations, and after the last one.

    The better of two detectors has the higher AP, by the rules of the data, of what the task learns
    (boxes, masks, keypoints), or the higher mIoU; the earlier one where it is the same.

    Attributes:
        run: where the best detector is kept, beside the last one.
        dataset: the validation part, with the classes of the training part.
        recipe: of the task.
        every: iterations.
        file: makes of a detector, and of what is said of the best one, what is kept of it.
    """

    run: Run
    dataset: DetectionDataset
    recipe: DetectionRecipe
    every: int
    file: Callable[[Any, Mapping[str, Any]], DetectorFile]

    @property
    def metric(self) -> str:
        """The metric that the best one is chosen by."""
        if self.recipe.outputs == "semantic":
            return "mIoU"
        return list(measuring.kinds(self.recipe, self.dataset).values())[-1] + "AP"

    def measure(self, detector: Any, step: int) -> dict[str, float]:
        """Metrics of `detector` after `step` iterations, on the main process; keeps the best one.

        All processes call it together.
        """
        if self.recipe.outputs == "semantic":
            found = segmentation.validate(self.run, detector, self.dataset)
            if found:
                self._keep(detector, step, found[self.metric])
            return {f"{PREFIX}{name}": value for name, value in found.items()}
        predictions = measuring.gathered(self.run, self.dataset, detector.predict_all)
        if not dist.is_main():
            return {}
        dataset = prediction.predicted(self.dataset, predictions)
        found = {}
        if dataset.federated is None:
            found |= evaluate_voc(dataset, predictions).numbers()
        for kind, prefix in measuring.kinds(self.recipe, dataset).items():
            numbers = measured(dataset, predictions, kind=kind).numbers
            found |= {f"{prefix}{name}": value for name, value in numbers.items()}
        self._keep(detector, step, found[self.metric])
        return {f"{PREFIX}{name}": value for name, value in found.items()}

    def _keep(self, detector: Any, step: int, value: float) -> None:
        best = {
            "iteration": step,
            "metric": self.metric,
            "value": value,
            "dataset": self.dataset.name,
        }
        file = self.file(detector, best)
        path = self.run.out / detector_file.BEST[file.engine]
        known = detector_file.read(path).best if path.is_file() else None
        # A killed run may have kept that of an iteration which it now comes to again.
        if known is not None and (known["value"], -known["iteration"]) >= (value, -step):
            return
        detector_file.save(self.run.out, file)

    def conclude(self, engine: str) -> None:
        """Say which detector is the best, on the main process."""
        path = self.run.out / detector_file.BEST[engine]
        if dist.is_main() and path.is_file():
            best = detector_file.read(path).best
            log.info(
                "best on %s: %s %.2f at iteration %d, kept as %s",
                *(best[name] for name in ("dataset", "metric", "value", "iteration")),
                path,
            )


class Validate(Hook):
    """Calls `validation` in torchvision's training.

    Args:
        validation: what is measured.
        detector: in training.
        reestimate: gives it, at a step, the statistics that a training ends with; None: it keeps
            those it has.
    """

    def __init__(
        self,
        validation: Validation,
        detector: nn.Module,
        reestimate: Callable[[int], object] | None,
    ) -> None:
        self.validation = validation
        self.detector = detector
        self.reestimate = reestimate

    def after_step(self, trainer: Training) -> None:
        step = trainer.step
        if step % self.validation.every and step != trainer.total_steps:
            return
        with buffers_kept(self.detector):
            if self.reestimate is not None:
                self.reestimate(step)
            trainer.write(self.validation.measure(self.detector, step))
