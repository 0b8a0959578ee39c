"""Detectron2's config of a run, complete: every key, its data, and the lines that load it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from visrep.d2.config_text import Part, headed
from visrep.d2.pkl import describe
from visrep.d2.recipe import DetectionRecipe
from visrep.data.detection import DetectionDataset
from visrep.transfer.detection.detector_file import BEST, CONFIG, NAMES


def text(
    resolved: str,
    *,
    out: str | Path,
    nodes: Mapping[str, Any],
    recipe: DetectionRecipe,
    backbone: Mapping[str, Any],
    train: DetectionDataset,
    test: DetectionDataset,
    labels: bool = False,
    best: bool = False,
) -> str:
    """What is written beside a model, or shown before it is trained.

    MODEL.WEIGHTS is that model, and DATASETS.TEST what it is measured on, so that Detectron2's
    programs take both files as they are.

    Args:
        resolved: Detectron2's own dump of the config of the training.
        out: the run folder.
        nodes: what reads `train` and `test`, their yaml as plain values.
        recipe: of the task.
        backbone: of the encoder, as in its file.
        train, test: the data.
        labels: whether a share of what `nodes` read is trained on.
        best: whether it goes with the best model by a validation part, not with the final one.
    """
    config = yaml.safe_load(resolved)
    parts = Part.both(train, test, nodes)
    config["DATASETS"] |= {"TRAIN": [parts[0].name], "TEST": [parts[1].name]}
    names = BEST if best else NAMES
    config["MODEL"]["WEIGHTS"] = str(Path(out).absolute() / names["detectron2"])
    return headed(
        config,
        about=[f"{recipe.about}:", f"{describe(dict(backbone))}, trained by visrep detect."],
        name=CONFIG,
        parts=parts,
        outputs=recipe.outputs,
        notes=[
            "When the files move, set MODEL.WEIGHTS.",
            *["Of the training images only those in labels.txt were trained on."] * labels,
        ],
    )
