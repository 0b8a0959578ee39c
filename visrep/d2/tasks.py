"""Complete Detectron2 configs of the transfer tasks. Nothing here imports Detectron2.

A task is a yaml of `configs/task`, the same that `visrep detect` runs and that the linter compares
with. The text that comes out has no `_BASE_`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from visrep.d2 import densepose, settings
from visrep.d2.config_text import Part, headed
from visrep.d2.pkl import describe
from visrep.d2.recipe import DetectionRecipe
from visrep.errors import ConfigError
from visrep.groups import check_name, choices, named
from visrep.paths import config_dir
from visrep.weights.encoder_file import EncoderFile

PLAIN = "coco_fpn_boxes_1x"  # of the config that every conversion writes


def selected(tasks: object) -> list[str]:
    """The names in `task=`: null, a name, a list of names, or `all`.

    Raises:
        ConfigError: a task that does not exist; the message names the nearest.
    """
    if tasks is None:
        return []
    if tasks == "all":
        return choices("task")
    names = [tasks] if isinstance(tasks, str) else list(tasks)  # type: ignore[call-overload]
    for name in names:
        named("task", name)
    return list(dict.fromkeys(names))


def stated(name: str) -> DictConfig:
    """What the yaml of a task states, over what the task states that its defaults list names."""
    own = named("task", name)
    bases = [line for line in own.pop("defaults", []) if isinstance(line, str) and line != "_self_"]
    merged = OmegaConf.merge(*(stated(base) for base in bases), own)
    assert isinstance(merged, DictConfig)
    check_name("task", name, merged)
    return merged


def usual_data(name: str) -> str | None:
    """The data set that a task brings, `detection=`; None where it leaves that to the user."""
    own = named("task", name)
    found = None
    for line in own.get("defaults", []):
        if isinstance(line, str) and line != "_self_":
            found = usual_data(line) or found
        elif not isinstance(line, str):
            found = line.get("override /detection", found)
    return found


def recipe_of(name: str) -> DetectionRecipe:
    """The recipe that `visrep detect task=NAME` follows."""
    whole = OmegaConf.merge(OmegaConf.load(config_dir() / "detect.yaml"), stated(name))
    return DetectionRecipe.read(OmegaConf.to_container(whole))  # type: ignore[arg-type]


def problem(task: str, backbone: dict[str, Any], own: "OwnData | None" = None) -> str | None:
    """Why there is no config of `task` on a net, as a clause; None if there is one."""
    recipe = recipe_of(task)
    absent = densepose.problem() if recipe.outputs == "densepose" else None
    if absent:
        return absent
    if own is not None:
        return own.problem(recipe) or settings.problem(backbone, recipe)
    if recipe.unsaid:
        lacking = ", ".join(recipe.unsaid)
        return (
            f"its yaml does not name data of Detectron2 ({lacking}): name yours, as with "
            "detection=voc detection.root=DIR; visrep detect runs it"
        )
    return settings.problem(backbone, recipe)


@dataclass(frozen=True)
class OwnData:
    """The user's data in place of those that a task's yaml names.

    Attributes:
        classes: their names, in order.
        train, test: the parts.
        masks: whether an object has a mask.
        keypoints: how many an object has.
    """

    classes: Sequence[str]
    train: Part
    test: Part
    masks: bool
    keypoints: int

    def problem(self, recipe: DetectionRecipe) -> str | None:
        """Why the task cannot be learned on them, as a clause; None if it can."""
        lacking = {
            "masks": not self.masks and "no object has a mask",
            "keypoints": not self.keypoints and "no object has keypoints",
            "semantic": "they are boxes",
            "densepose": "they are boxes",
        }
        why = lacking.get(recipe.outputs)
        return f"it learns {recipe.outputs}, and in {self.train.name} {why}" if why else None

    def settings(self, recipe: DetectionRecipe) -> dict[str, Any]:
        """What Detectron2's config says of them."""
        said: dict[str, Any] = {
            "DATASETS": {"TRAIN": [self.train.name], "TEST": [self.test.name]},
            "MODEL": {"ROI_HEADS": {"NUM_CLASSES": len(self.classes)}},
        }
        if recipe.masks:
            said["INPUT"] = {"MASK_FORMAT": "bitmask"}
        if recipe.keypoints:
            said["MODEL"]["ROI_KEYPOINT_HEAD"] = {"NUM_KEYPOINTS": self.keypoints}
        return said


def task_settings(
    file: EncoderFile, task: str, *, norm: str = "SyncBN", own: OwnData | None = None
) -> dict[str, Any]:
    """Detectron2's config of `task` on this encoder, as nested dicts, without MODEL.WEIGHTS.

    norm: of what trains; a task with frozen norms keeps them. own: data in place of the task's.

    Raises:
        ConfigError: the task or the norm does not exist, or net or data cannot do the task.
    """
    cannot = problem(task, file.backbone, own)
    if cannot:
        raise ConfigError(f"task={task}: {cannot}")
    recipe = recipe_of(task)
    config = {**settings.detection_settings(file, recipe, norm=norm), "VERSION": 2}
    if own is not None:
        settings.merge(config, own.settings(recipe))
    return config


def config_for(
    file: EncoderFile,
    *,
    weights: str | Path,
    norm: str = "SyncBN",
    task: str = PLAIN,
    own: OwnData | None = None,
) -> str:
    """The config of `task` as yaml text, headed by how it is loaded.

    Raises:
        ConfigError: see `task_settings`.
    """
    weights = Path(weights).absolute()
    config = task_settings(file, task, norm=norm, own=own)
    config["MODEL"] = {"WEIGHTS": str(weights), **config["MODEL"]}
    on = "" if own is None else ", on other data"
    return headed(
        config,
        about=[
            f"{stated(task).about}{on}:",
            f"{describe(file.backbone)}, written by visrep convert.",
            f"Encoder sha256 {file.sha256}.",
        ],
        name=config_path(weights, task).name,
        parts=[] if own is None else [own.train, own.test],
        outputs=recipe_of(task).outputs,
        notes=[
            "When the files move, set MODEL.WEIGHTS. With another batch size, scale BASE_LR with "
            "it",
            "and the iterations against it. On one device, NORM: BN does the same as SyncBN.",
        ],
    )


def config_path(weights: Path, task: str) -> Path:
    """Where the config of `task` is written: x.yaml beside x.pkl, or x.TASK.yaml."""
    return weights.with_suffix(".yaml" if task == PLAIN else f".{task}.yaml")
