"""Which rules measure which data: LVIS' and Cityscapes' their own, COCO's all others."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from visrep.data.detection import DetectionDataset
from visrep.transfer.detection.evaluation.cityscapes import evaluate_cityscapes
from visrep.transfer.detection.evaluation.coco import CocoResult, evaluate_coco
from visrep.transfer.detection.evaluation.lvis import evaluate_lvis
from visrep.transfer.detection.prediction import Prediction


@dataclass(frozen=True, kw_only=True)
class Measured:
    """AP by one set of rules.

    Attributes:
        form: whose rules, of what: COCO bbox, LVIS segm, Cityscapes segm.
        numbers: AP, AP50 ... in percent.
        about: what else a record says of it.
        per_class: one row per class, where the rules' own evaluation gives them; else None.
        coco: the whole result, where the rules are COCO's; else None.
    """

    form: str
    numbers: dict[str, float]
    about: dict[str, Any] = field(default_factory=dict)
    per_class: list[dict[str, Any]] | None = None
    coco: CocoResult | None = None


def measured(
    dataset: DetectionDataset, predictions: Mapping[str, Prediction], *, kind: str
) -> Measured:
    """AP of boxes (`kind` bbox), masks (segm) or keypoints by the rules of the data.

    Raises UserError as the evaluations do.
    """
    if dataset.federated is not None:
        lvis = evaluate_lvis(dataset, predictions, kind=kind)
        return Measured(form=f"LVIS {kind}", numbers=lvis.numbers, per_class=lvis.per_class)
    if dataset.void is not None and kind == "segm":
        towns = evaluate_cityscapes(dataset, predictions)
        return Measured(form="Cityscapes segm", numbers=towns.numbers, per_class=towns.per_class)
    coco = evaluate_coco(dataset, predictions, kind=kind)
    about: dict[str, Any] = {"backend": coco.backend}
    if kind == "keypoints" and (points := dataset.keypoints) is not None:
        about["sigmas"] = [points.sigmas_of, *points.sigmas]
    return Measured(form=f"COCO {kind}", numbers=coco.numbers, about=about, coco=coco)
