"""Encoder weights as Detectron2 reads them: a `.pkl` of renamed arrays, and their net in its words.

Only names change, so the way back is exact to the bit. Nothing here imports Detectron2; whole
configs are made by `visrep.d2.tasks`, and the check in its real backbone is
`visrep.d2.verify.verify`.
"""

import json
import re
from pathlib import Path
from typing import Any

from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path
from visrep.nn.resnet import BASIC, DEEP_STEMS, STEM_STRIDES
from visrep.weights.containers.pickle_files import write_pickle
from visrep.weights.containers.tree import OnDemand, Tree
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import EncoderFile, build, mismatch, shapes_of

AUTHOR = "visrep"
FORMAT = "visrep-detectron2/1"
NORMS = ("SyncBN", "naiveSyncBN", "BN", "FrozenBN")
DEPTHS = (18, 34, 50, 101, 152)  # of Detectron2's own ResNet

_STAGE = re.compile(r"layer([1-4])\.(\d+)\.(.+)")
_DEEP_STEM = {
    "conv1.0": "stem.conv1",
    "conv1.1": "stem.conv1.norm",
    "conv1.3": "stem.conv2",
    "conv1.4": "stem.conv2.norm",
    "conv1.6": "stem.conv3",
    "bn1": "stem.conv3.norm",
}
_STEM = {"conv1": "stem.conv1", "bn1": "stem.conv1.norm"}
_BLOCK = {
    "downsample.0": "shortcut",
    "downsample.1": "shortcut.norm",
    "sk.conv": "sk.conv",
    "sk.bn": "sk.conv.norm",
    "sk.squeeze": "sk.squeeze",
    "sk.squeeze_bn": "sk.squeeze.norm",
    "sk.excite": "sk.excite",
}
for _n in (1, 2, 3):
    _BLOCK |= {f"conv{_n}": f"conv{_n}", f"bn{_n}": f"conv{_n}.norm"}


def detectron2_name(name: str, *, stem: str) -> str:
    """Detectron2's name of the backbone tensor `name` of a net with that stem.

    Selective kernels, which Detectron2 has not, are named in its manner. Raises KeyError for a name
    that no ResNet of ours has.
    """
    module, _, tensor = name.rpartition(".")
    stage = _STAGE.fullmatch(module)
    if stage:
        return f"res{int(stage[1]) + 1}.{stage[2]}.{_BLOCK[stage[3]]}.{tensor}"
    return f"{(_DEEP_STEM if stem in DEEP_STEMS else _STEM)[module]}.{tensor}"


def native(backbone: dict[str, Any]) -> bool:
    """Whether Detectron2's own ResNet holds this net."""
    if backbone["stem"] != "imagenet" or backbone["sk"] or backbone["padding"] != "torch":
        return False
    beyond = {"shortcut", "project", "stem_relu", "dilated"} & set(backbone)
    if beyond or backbone["depth"] not in DEPTHS:
        return False
    if backbone["depth"] in BASIC:  # it fixes the widths of ResNet-18 and ResNet-34
        return build(backbone).channels[0] == 64
    # It doubles the first stage's width of the 3x3 convolutions; ours may round at each stage.
    return float(int(64 * backbone["width"]) * backbone.get("inner", 1)).is_integer()


def with_stem_stride(backbone: dict[str, Any], stem_stride: int | None) -> dict[str, Any]:
    """`backbone` with the stride of its first convolution changed to `stem_stride`.

    A net with a cifar stem has strides 1, 2, 4, 8, and a detector on such maps does not fit in
    memory at a photograph's size. With stride 2 it is the net with the small stem, padded by 1: the
    same weights, another network.

    Raises:
        ConfigError: a cifar stem without `stem_stride`, or `stem_stride` where it has no meaning.
    """
    if STEM_STRIDES[backbone["stem"]] != 1:
        if stem_stride is not None:
            raise ConfigError(
                f"stem_stride={stem_stride} is for nets with the cifar stem; this one has the "
                f"stem {backbone['stem']}: leave it out"
            )
        return backbone
    if stem_stride != 2:
        given = "" if stem_stride is None else f", not {stem_stride}"
        raise ConfigError(
            "this net has the cifar stem (strides 1, 2, 4, 8), too fine for detection: give "
            f"stem_stride=2 to convert the changed network with strides 2, 4, 8, 16{given}"
        )
    return {**backbone, "stem": "small"}


# Weights


def write_pkl(path: str | Path, file: EncoderFile) -> None:
    """Write the backbone of `file` as Detectron2's checkpointer reads it, whole or not at all.

    Raises:
        UserError: the file cannot be written.
    """
    with atomic_path(path) as temporary:
        dump_pkl(temporary, file)


def dump_pkl(path: str | Path, file: EncoderFile) -> None:
    """`write_pkl` as it goes: for a temporary path.

    Raises:
        OSError: a write failed.
    """
    stem = file.backbone["stem"]
    kept = {
        "format": FORMAT,
        "backbone": file.backbone,
        "preprocess": file.preprocess,
        "source": file.source,
        "sha256": file.sha256,
    }
    content = {
        "model": {detectron2_name(k, stem=stem): t.numpy() for k, t in file.part("").items()},
        "__author__": AUTHOR,
        "matching_heuristics": True,
        "visrep": json.loads(json.dumps(kept)),  # plain values only, whoever reads it
    }
    with open(path, "wb") as stream:
        write_pickle(stream, content)


def read_pkl(path: str | Path) -> EncoderFile:
    """The inverse of `write_pkl`: backbone, preprocessing and source; head and classifier are gone.

    Its tensors are read on demand.

    Raises:
        UserError: the file is damaged, or visrep did not write it.
    """
    return from_tree(read_tree(path))


def from_tree(tree: Tree) -> EncoderFile:
    """`read_pkl` of a file that is open already."""
    path, content = tree.path, tree.value
    kept = content.get("visrep") if isinstance(content, dict) else None
    if not isinstance(kept, dict) or kept.get("format") != FORMAT:
        raise UserError(f"{path} is no Detectron2 file that visrep wrote")
    try:
        backbone, model = kept["backbone"], content["model"]
        names = {detectron2_name(n, stem=backbone["stem"]): n for n in shapes_of(build(backbone))}
        unknown = sorted(set(model) - set(names))
        if unknown:
            raise UserError(f"it has an unknown {unknown[0]}")
        file = EncoderFile(
            backbone=backbone,
            preprocess=kept["preprocess"],
            source=kept["source"],
            tensors=OnDemand(tree, {names[name]: t for name, t in model.items()}),
        )
        problem = mismatch(file)
    except (UserError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{path} is inconsistent: {error}") from error
    if problem:
        raise UserError(f"{path} is inconsistent: {problem}")
    return file


# Config


def settings(file: EncoderFile, *, norm: str = "SyncBN", own: bool | None = None) -> dict[str, Any]:
    """What Detectron2's config must say about this encoder's net and input, as nested dicts.

    own: whether Detectron2's own ResNet runs it; None: where it can. `BACKBONE.NAME` is that of a
    backbone without a pyramid; which maps are taken is left to the caller.

    Raises:
        ConfigError: `norm` is none that keeps the encoder's statistics.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm={norm}: choose one of {', '.join(NORMS)}")
    backbone = file.backbone
    own = native(backbone) if own is None else own
    mean, std = pixel_statistics(Preprocess.from_dict(file.preprocess))
    model: dict[str, Any] = {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "PIXEL_MEAN": mean,
        "PIXEL_STD": std,
        "BACKBONE": {"NAME": f"build_{'' if own else 'visrep_'}resnet_backbone", "FREEZE_AT": 0},
        "RESNETS": {**resnets(backbone), "NORM": norm},
    }
    if not own:
        model["VISREP"] = visrep_node(backbone)
    return {"MODEL": model, "INPUT": {"FORMAT": file.preprocess["channel_order"]}}


def resnets(backbone: dict[str, Any]) -> dict[str, Any]:
    """The shape of a net in the keys of MODEL.RESNETS, as near as these come to it."""
    stem_width, groups = int(64 * backbone["width"]), backbone.get("groups", 1)
    return {
        "DEPTH": backbone["depth"],
        "STEM_OUT_CHANNELS": stem_width,
        "NUM_GROUPS": groups,
        "WIDTH_PER_GROUP": int(stem_width * backbone.get("inner", 1)) // groups,
        "RES2_OUT_CHANNELS": build(backbone).channels[0],
        "STRIDE_IN_1X1": backbone.get("stride_in_1x1", False),
    }


def visrep_node(backbone: dict[str, Any]) -> dict[str, Any]:
    """`backbone` as the node MODEL.VISREP of `visrep.d2.backbone`, whose types are fixed."""
    floats = ("width", "inner")
    return {key.upper(): float(v) if key in floats else v for key, v in backbone.items()}


def pixel_statistics(preprocess: Preprocess) -> tuple[list[float], list[float]]:
    """Mean and standard deviation on pixels of 0 to 255, in the order of the input's channels."""
    low, high = preprocess.range
    scale = (high - low) / 255
    mean = [round((value - low) / scale, 6) for value in preprocess.mean]
    return mean, [round(value / scale, 6) for value in preprocess.std]


def describe(backbone: dict[str, Any]) -> str:
    """A net in words: `ResNet-50 of width 2 with selective kernels and the d stem`."""
    groups, inner = backbone.get("groups", 1), backbone.get("inner", 1)
    grouped = f"ResNeXt-{backbone['depth']} {groups}x{64 * inner / groups:g}d"
    parts = [grouped if groups > 1 else f"ResNet-{backbone['depth']}"]
    if backbone["width"] != 1:
        parts.append(f"of width {backbone['width']:g}")
    extras = ["selective kernels"] if backbone["sk"] else []
    extras += [f"3x3 convolutions {inner:g} times as wide"] if groups == 1 and inner != 1 else []
    extras += [f"the {backbone['stem']} stem"] if backbone["stem"] != "imagenet" else []
    extras += ["no ReLU after the stem"] if not backbone.get("stem_relu", True) else []
    extras += [f"{backbone['shortcut']} shortcuts"] if "shortcut" in backbone else []
    extras += ["a projection in every stage"] if backbone.get("project") else []
    extras += ["the stride in the 1x1"] if backbone.get("stride_in_1x1") else []
    extras += ["a dilated layer4"] if backbone.get("dilated") else []
    padding = {"tf": ["TF padding"], "haiku": ["haiku padding"]}
    extras += padding.get(backbone["padding"], [])
    return " ".join(parts + (["with", " and ".join(extras)] if extras else []))
