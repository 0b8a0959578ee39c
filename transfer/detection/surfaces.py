"""`visrep detect task=coco_densepose_fpn_s1x`: points on the surface of persons, DensePose.

Detectron2's project DensePose does the work (`visrep.d2.densepose`). What it measures becomes
records as of any other task. Its detector is kept in its own layout, as `model_final.pth` and
`detectron2.yaml`, which its programs read.
"""

from collections.abc import Sequence
from typing import Any

from visrep.d2 import densepose
from visrep.d2.recipe import DetectionRecipe
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet


def refuse(
    recipe: DetectionRecipe, engine: str, *, precision: str, labels: Any, opts: Sequence[Any]
) -> None:
    """Raise ConfigError for what the project cannot follow, or where it is not installed."""
    if engine != "detectron2":
        raise ConfigError(
            f"task={recipe.task} is learned by Detectron2's project DensePose only: "
            "engine=detectron2"
        )
    why = densepose.problem()
    if why:
        raise ConfigError(f"task={recipe.task}: {why}")
    if precision != "fp32":
        raise ConfigError(f"task={recipe.task} is learned in precision=fp32 only")
    if labels != 1:
        raise ConfigError(f"task={recipe.task} takes all labels: leave labels= out")
    if opts:
        raise ConfigError(
            f"task={recipe.task}: state Detectron2's settings in the task's detectron2 section, "
            "not in d2_opts="
        )


def train_and_measure(
    recipe: DetectionRecipe,
    *,
    encoder: ResNet,
    preprocess: Preprocess,
    sha256: str,
    init: str,
    run: Run,
    root: str,
    workers: int,
    snapshot_every: int,
) -> None:
    """Train, keep, measure; one record for each number of the project's evaluation."""
    numbers = densepose.train_and_measure(
        encoder,
        preprocess,
        recipe,
        run=run,
        root=root,
        workers=workers,
        snapshot_every=snapshot_every,
    )
    for metric, value in numbers.items():
        run.record(
            task="densepose",
            dataset="+".join(recipe.detectron2["DATASETS"]["TEST"]),
            metric=metric,
            value=value,
            weights=sha256,
            init=init,
            engine="detectron2",
            recipe=recipe.task,
            head=recipe.head,
            iterations=recipe.iterations,
            form="of Detectron2's project DensePose",
        )
    shown = " ".join(f"{name} {value:.2f}" for name, value in numbers.items())
    run.log.info("DensePose: %s", shown)
