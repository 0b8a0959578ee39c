"""`visrep detect task=coco_densepose_fpn_s1x`: points on the surface of persons, DensePose.

Detectron2's project DensePose does the work (`visrep.d2.densepose`). What it measures becomes
records as of any other task. Its detector is kept in its own layout, as `model_final.pth` and
`detectron2.yaml`, which its programs read.
"""

from collections.abc import Mapping
from typing import Any

from visrep.d2 import densepose
from visrep.d2.recipe import DetectionRecipe
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet

# Settings that the project's own loop does not follow, at the one value that changes nothing.
AS_IT_IS: dict[str, Any] = {
    "precision": "fp32",
    "labels": 1.0,
    "accumulate": 1,
    "eval_every": 0,
    "repeat_threshold": 0.0,
    "max_broken": 0.001,
    "log_every": 20,
    "resume_data": "same",
    "extend": False,
    "d2_opts": [],
}


def refuse(recipe: DetectionRecipe, engine: str, stated: Mapping[str, Any]) -> None:
    """Raise ConfigError for what the project cannot follow, or where it is not installed.

    stated: the settings of the command, of which those of `AS_IT_IS` are looked at.
    """
    if engine != "detectron2":
        raise ConfigError(
            f"task={recipe.task} is learned by Detectron2's project DensePose only: "
            "engine=detectron2"
        )
    for key, value in AS_IT_IS.items():
        if stated.get(key, value) != value:
            raise ConfigError(
                f"task={recipe.task} runs in DensePose's own loop, which does not know "
                f"{key}={stated[key]}: leave it out"
            )
    why = densepose.problem()
    if why:
        raise ConfigError(f"task={recipe.task}: {why}")


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
