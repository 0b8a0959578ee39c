"""Converted files in a folder, and Detectron2's config of them."""

from pathlib import Path
from typing import Any

from tests.oracles.encoders import in_memory
from visrep.weights import EncoderFile
from visrep.weights import detectron2 as d2


def converted(folder: Path, *, norm: str = "SyncBN", **spec: Any) -> EncoderFile:
    """`x.pkl` and `x.yaml` of a stirred net in `folder`."""
    file = in_memory(**spec)
    d2.write_pkl(folder / "x.pkl", file)
    text = d2.config_for(file, weights=folder / "x.pkl", norm=norm)
    (folder / "x.yaml").write_text(text)
    return file


def config(folder: Path, *options: object, visrep: bool = False) -> Any:
    """`x.yaml` merged into Detectron2's defaults and `options`."""
    from detectron2.config import get_cfg

    from transfer.d2_backbone import add_visrep_config

    cfg = get_cfg()
    if visrep:
        add_visrep_config(cfg)
    cfg.merge_from_file(str(folder / "x.yaml"))
    cfg.merge_from_list(["MODEL.DEVICE", "cpu", *options])
    return cfg
