"""Complete Detectron2 configs of the transfer tasks. Nothing here imports Detectron2.

A task is a yaml of `configs/d2_task`: the protocol whose numbers it takes (one of
`configs/protocol`, the same that `visrep detect` reads), Detectron2's names of its data sets, and
what else only Detectron2 has words for. The text that comes out has no `_BASE_`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf

from visrep.config import choices, named
from visrep.d2.heads import EXTRA_NORM
from visrep.d2.pkl import describe, native
from visrep.d2.protocol import Protocol
from visrep.d2.settings import detection_settings
from visrep.errors import ConfigError
from visrep.nn.resnet import BASIC
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
        return choices("d2_task")
    names = [tasks] if isinstance(tasks, str) else list(tasks)  # type: ignore[call-overload]
    for name in names:
        named("d2_task", name)
    return list(dict.fromkeys(names))


def protocol_named(name: str) -> Protocol:
    """The protocol that `visrep detect protocol=NAME` follows."""
    settings = OmegaConf.merge(
        OmegaConf.load(config_dir() / "detect.yaml"), named("protocol", name)
    )
    return Protocol.read(OmegaConf.to_container(settings))  # type: ignore[arg-type]


def task_settings(file: EncoderFile, task: str, *, norm: str = "SyncBN") -> dict[str, Any]:
    """Detectron2's config of `task` on this encoder, as nested dicts, without MODEL.WEIGHTS.

    norm: of the backbone, unless the task's recipe has its own.

    Raises:
        ConfigError: the task or the norm does not exist, or the net cannot do the task.
    """
    recipe: Any = OmegaConf.to_container(named("d2_task", task))
    cannot = problem(task, file.backbone)
    if cannot:
        raise ConfigError(f"task={task}: {cannot}")
    config = detection_settings(
        file,
        protocol_named(recipe["protocol"]),
        classes=recipe["classes"],
        norm=recipe.get("norm", norm),
    )
    config["DATASETS"] = {"TRAIN": recipe["train"], "TEST": recipe["test"]}
    _merge(config, recipe.get("detectron2", {}))
    config["VERSION"] = 2
    model = config["MODEL"]
    if "SEM_SEG_HEAD" in model:
        levels = model["ROI_HEADS"]["IN_FEATURES"]
        finest = 2 ** int(levels[0].removeprefix("p"))
        model["SEM_SEG_HEAD"] |= {"IN_FEATURES": list(levels), "COMMON_STRIDE": finest}
    return config


def problem(task: str, backbone: dict[str, Any]) -> str | None:
    """Why a net cannot do `task`, as a clause; None if it can."""
    dilated = OmegaConf.select(named("d2_task", task), "detectron2.MODEL.RESNETS.RES5_DILATION")
    if dilated and (not native(backbone) or backbone["depth"] in BASIC):
        return (
            "only Detectron2's own ResNet with bottlenecks can have a dilated res5, not "
            f"{describe(backbone)}"
        )
    return None


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
    about = named("d2_task", task).about
    lines = [
        f"{about}:",
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
    if head.startswith("Visrep"):
        words += [f"Detectron2 has no {head}; visrep registers it."]
        if head == EXTRA_NORM and "VISREP" not in model:
            words += ["MoCo's train_net.py has the same head under the name Res5ROIHeadsExtraNorm."]
        imports += ["from transfer import d2_heads"]
        code += ["d2_heads.register()"]
    code += [f"cfg.merge_from_file({name!r})"]
    return [*words, *(f"    {line}" for line in [*imports, *code])]


def _merge(config: dict[str, Any], other: Mapping[str, Any]) -> None:
    for key, value in other.items():
        if isinstance(value, Mapping):
            _merge(config.setdefault(key, {}), value)
        else:
            config[key] = value
