"""A Detectron2 config as a file: its values, headed by what it is and the lines that load it.

Nothing here imports Detectron2. The lines register what the config names and Detectron2 lacks: the
backbone, the head, and the user's own data.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from visrep.d2 import heads
from visrep.d2.semantic import FCN_HEAD
from visrep.data.detection import DetectionDataset
from visrep.engine.continuing import PLACES

OURS = "visrep/"  # before the names of data that visrep registers


@dataclass(frozen=True)
class Part:
    """A part of the user's data: its name in Detectron2's catalogues, and what reads it.

    Attributes:
        name: in DATASETS.TRAIN or DATASETS.TEST.
        reader: the dotted name of a function, `visrep.data.detection.read_voc`.
        arguments: its arguments, plain values.
    """

    name: str
    reader: str
    arguments: Mapping[str, Any]

    @classmethod
    def both(
        cls, train: DetectionDataset, test: DetectionDataset, nodes: Mapping[str, Any]
    ) -> "tuple[Part, Part]":
        """The parts that `nodes`, the yaml of their readers under `train` and `test`, have read.

        They have two names, and the classes of `train` in their order.
        """
        first, second = catalogued(train), catalogued(test)
        if first == second:  # as of two files of one name in two folders
            first, second = f"{first}/train", f"{second}/test"
        classes = train.classes
        return cls._of(first, nodes["train"], classes), cls._of(second, nodes["test"], classes)

    @classmethod
    def _of(cls, name: str, node: Mapping[str, Any], classes: Sequence[str]) -> "Part":
        arguments = {key: value for key, value in node.items() if key != "_target_"}
        for key in PLACES:
            if isinstance(arguments.get(key), str):
                arguments[key] = str(Path(arguments[key]).expanduser().absolute())
        if "classes" in arguments:
            arguments["classes"] = list(classes)
        return cls(name, str(node["_target_"]), arguments)

    def lines(self, *, outputs: str) -> tuple[list[str], str]:
        """Imports, and the line that registers it for a task with these outputs."""
        module, _, reader = self.reader.rpartition(".")
        kinds = {
            kind: kind == outputs and value
            for kind, value in self.arguments.items()
            if kind in ("masks", "keypoints")
        }
        given = ", ".join(f"{k}={v!r}" for k, v in {**self.arguments, **kinds}.items())
        imports, read = [f"from {module} import {reader}"], f"{reader}({given})"
        if outputs == "masks":  # what has none is left aside
            imports += ["from visrep.data.detection.readiness import with_masks"]
            read = f"with_masks({read})"
        return imports, f"data.register({read}, {self.name!r})"


def catalogued(dataset: DetectionDataset) -> str:
    """The name of `dataset` in Detectron2's catalogues."""
    return f"{OURS}{dataset.name}"


def headed(
    config: Mapping[str, Any],
    *,
    about: Sequence[str],
    name: str,
    parts: Sequence[Part] = (),
    outputs: str = "boxes",
    notes: Sequence[str] = (),
) -> str:
    """`config`, nested, as yaml under `about`, the lines that load the file `name`, and `notes`."""
    lines = [*about, "", *_loading(config, name, parts, outputs), "", *notes]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return header + yaml.safe_dump(dict(config), sort_keys=False, default_flow_style=None)


def _loading(
    config: Mapping[str, Any], name: str, parts: Sequence[Part], outputs: str
) -> list[str]:
    """How the config `name` is loaded: words, and lines of Python."""
    model, read = config["MODEL"], config["INPUT"].get("VISREP", {})
    words: list[str] = []
    imports, code = ["import detectron2.config"], ["cfg = detectron2.config.get_cfg()"]
    fcn = model.get("SEM_SEG_HEAD", {}).get("NAME") == FCN_HEAD
    if fcn or read.get("SCALES") or read.get("CROP"):
        words += ["Detectron2 has no FCN head and no random scales; visrep registers them."]
        imports += ["from visrep.d2.backbone import add_visrep_config"]
        code += ["add_visrep_config(cfg)  # the head, and INPUT.VISREP"]
    elif "VISREP" in model:
        words += ["Detectron2's own ResNet cannot hold this net; visrep registers one that can."]
        imports += ["from visrep.d2.backbone import add_visrep_config"]
        code += ["add_visrep_config(cfg)  # MODEL.VISREP, and the backbone that is named below"]
    if "DENSEPOSE_ON" in model:
        words += ["The surface points are of Detectron2's project DensePose."]
        imports += ["from densepose import add_densepose_config"]
        code += ["add_densepose_config(cfg)"]
    head = model["ROI_HEADS"].get("NAME", "")
    if head in (heads.EXTRA_NORM, *heads.OF_VISREP):
        mocos = head == heads.EXTRA_NORM
        who = "MoCo's train_net.py and visrep register it" if mocos else "visrep registers it"
        words += [f"Detectron2 has no {head}; {who}."]
        imports += ["from visrep.d2 import heads"]
        code += ["heads.register()"]
    if parts:
        words += ["The data are the user's own; visrep reads and registers them."]
        imports += ["from visrep.d2 import data"]
    for part in parts:
        needed, line = part.lines(outputs=outputs)
        imports += needed
        code += [line]
    code += [f"cfg.merge_from_file({name!r})"]
    return [*words, *(f"    {line}" for line in [*dict.fromkeys(imports), *code])]
