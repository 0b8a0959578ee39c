"""Converted files in a folder, and Detectron2's config of them."""

from pathlib import Path
from typing import Any

from tests.oracles.encoders import in_memory
from visrep.d2 import pkl as d2
from visrep.d2 import tasks
from visrep.d2.verify import Report, verify_all
from visrep.errors import CheckFailed
from visrep.weights import EncoderFile
from visrep.weights.encoder_file import fingerprint


def converted(
    folder: Path, *, norm: str = "SyncBN", task: str = tasks.PLAIN, **spec: Any
) -> EncoderFile:
    """`x.pkl` and `x.yaml` of a stirred net in `folder`."""
    file = in_memory(**spec)
    d2.write_pkl(folder / "x.pkl", file)
    text = tasks.config_for(file, weights=folder / "x.pkl", norm=norm, task=task)
    (folder / "x.yaml").write_text(text)
    return file


def verified(folder: Path, file: EncoderFile, *, norm: str = "BN") -> dict[str, Report]:
    """`file` converted, and checked in Detectron2's FPN and C4: head -> report.

    Raises CheckFailed unless every tensor is set in both, the way back is bit-equal, and res2 to
    res5 agree.
    """
    pkl = folder / "x.pkl"
    d2.write_pkl(pkl, file)
    back = d2.read_pkl(pkl)
    if (back.sha256, back.backbone) != (fingerprint(file.part("")), file.backbone):
        raise CheckFailed(f"{pkl}: read back, it is not the same")
    configs = []
    for task in ("coco_fpn_boxes_1x", "voc0712_c4"):
        configs.append(folder / f"{task}.yaml")
        configs[-1].write_text(tasks.config_for(file, weights=pkl, norm=norm, task=task))
    return {report.head: report for report in verify_all(pkl, file, configs)}


def config(folder: Path, *options: object, visrep: bool = False) -> Any:
    """`x.yaml` merged into Detectron2's defaults and `options`."""
    from detectron2.config import get_cfg

    from visrep.d2.backbone import add_visrep_config

    cfg = get_cfg()
    if visrep:
        add_visrep_config(cfg)
    cfg.merge_from_file(str(folder / "x.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg
