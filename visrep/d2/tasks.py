"""Complete Detectron2 configs of the transfer tasks. Nothing here imports Detectron2.

A task is a yaml of `configs/task`, the same that `visrep detect` runs and that the linter compares
with. The text that comes out has no `_BASE_`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import DictConfig, OmegaConf

from visrep.d2 import heads, settings
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


def problem(task: str, backbone: dict[str, Any]) -> str | None:
    """Why there is no config of `task` on a net, as a clause; None if there is one."""
    recipe = recipe_of(task)
    if recipe.unsaid:
        lacking = ", ".join(recipe.unsaid)
        return f"its yaml does not name data of Detectron2 ({lacking}); visrep detect runs it"
    return settings.problem(backbone, recipe)


def task_settings(file: EncoderFile, task: str, *, norm: str = "SyncBN") -> dict[str, Any]:
    """Detectron2's config of `task` on this encoder, as nested dicts, without MODEL.WEIGHTS.

    norm: of what trains; a task with frozen norms keeps them.

    Raises:
        ConfigError: the task or the norm does not exist, or the net cannot do the task.
    """
    cannot = problem(task, file.backbone)
    if cannot:
        raise ConfigError(f"task={task}: {cannot}")
    return {**settings.detection_settings(file, recipe_of(task), norm=norm), "VERSION": 2}


def config_for(
    file: EncoderFile, *, weights: str | Path, norm: str = "SyncBN", task: str = PLAIN
) -> str:
    """The config of `task` as yaml text, headed by how it is loaded.

    Raises:
        ConfigError: see `task_settings`.
    """
    weights = Path(weights).absolute()
    config = task_settings(file, task, norm=norm)
    config["MODEL"] = {"WEIGHTS": str(weights), **config["MODEL"]}
    lines = [
        f"{stated(task).about}:",
        f"{describe(file.backbone)}, written by visrep convert.",
        f"Encoder sha256 {file.sha256}.",
        "",
        *_loading(config["MODEL"], config_path(weights, task).name),
        "",
        "When the files move, set MODEL.WEIGHTS. With another batch size, scale BASE_LR with it",
        "and the iterations against it. On one device, NORM: BN does the same as SyncBN.",
    ]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return header + yaml.safe_dump(config, sort_keys=False, default_flow_style=None)


def config_path(weights: Path, task: str) -> Path:
    """Where the config of `task` is written: x.yaml beside x.pkl, or x.TASK.yaml."""
    return weights.with_suffix(".yaml" if task == PLAIN else f".{task}.yaml")


def _loading(model: Mapping[str, Any], name: str) -> list[str]:
    """How the config `name` is loaded: words, and lines of Python."""
    words: list[str] = []
    imports, code = ["import detectron2.config"], ["cfg = detectron2.config.get_cfg()"]
    if "VISREP" in model:
        words += ["Detectron2's own ResNet cannot hold this net; visrep registers one that can."]
        imports += ["from visrep.d2.backbone import add_visrep_config"]
        code += ["add_visrep_config(cfg)  # MODEL.VISREP, and the backbone that is named below"]
    head = model["ROI_HEADS"]["NAME"]
    if head in (heads.EXTRA_NORM, *heads.OF_VISREP):
        whose = (
            "MoCo's train_net.py and visrep register it"
            if head == heads.EXTRA_NORM
            else ("visrep registers it")
        )
        words += [f"Detectron2 has no {head}; {whose}."]
        imports += ["from visrep.d2 import heads"]
        code += ["heads.register()"]
    code += [f"cfg.merge_from_file({name!r})"]
    return [*words, *(f"    {line}" for line in [*imports, *code])]
