"""Encoder weights as Detectron2 reads them: a `.pkl` of renamed arrays and a config beside it.

Only names change, so the way back is exact to the bit. Nothing here imports Detectron2; the check
in its real backbone is `transfer.d2_verify.verify`.
"""

import json
import math
import re
from pathlib import Path
from typing import Any

import yaml

from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path
from visrep.nn.resnet import BASIC, DEEP_STEMS, RARE
from visrep.weights.canonical import EncoderFile, build, mismatch, shapes_of
from visrep.weights.pickle_files import write_pickle
from visrep.weights.torch_files import read_tree
from visrep.weights.tree import OnDemand

AUTHOR = "visrep"
FORMAT = "visrep-detectron2/1"
NORMS = ("SyncBN", "naiveSyncBN", "BN", "FrozenBN")

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
    if set(backbone) & set(RARE) or backbone["depth"] not in (18, 34, 50, 101, 152):
        return False
    # It fixes the widths of ResNet-18 and ResNet-34.
    return backbone["depth"] not in BASIC or build(backbone).channels[0] == 64


def with_stem_stride(backbone: dict[str, Any], stem_stride: int | None) -> dict[str, Any]:
    """`backbone` with the stride of its first convolution changed to `stem_stride`.

    A net with the cifar stem has strides 1, 2, 4, 8, and a detector on such maps does not fit in
    memory at a photograph's size. With stride 2 it is the net with the small stem: the same
    weights, another network.

    Raises:
        ConfigError: a cifar stem without `stem_stride`, or `stem_stride` where it has no meaning.
    """
    if backbone["stem"] != "cifar":
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
    tree = read_tree(path)
    content = tree.value
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


def settings(file: EncoderFile, *, norm: str = "SyncBN", fpn: bool = True) -> dict[str, Any]:
    """What Detectron2's config must say about this encoder, as nested dicts of its keys.

    Backbone, input, and with `fpn` the pyramid and all that depends on its strides: anchors are 8
    times the stride of their level, as in Detectron2's own FPN configs, one level above the last.

    Raises:
        ConfigError: `norm` is none that keeps the encoder's statistics.
    """
    if norm not in NORMS:
        raise ConfigError(f"norm={norm}: choose one of {', '.join(NORMS)}")
    backbone, net = file.backbone, build(file.backbone)
    own = native(backbone)
    stem_width = len(file.tensors["bn1.weight"])
    features = ["res2", "res3", "res4", "res5"] if fpn else ["res4"]
    mean, std = pixel_statistics(Preprocess.from_dict(file.preprocess))
    model: dict[str, Any] = {
        "META_ARCHITECTURE": "GeneralizedRCNN",
        "PIXEL_MEAN": mean,
        "PIXEL_STD": std,
        "BACKBONE": {
            "NAME": f"build_{'' if own else 'visrep_'}resnet{'_fpn' if fpn else ''}_backbone",
            "FREEZE_AT": 0,
        },
        "RESNETS": {
            "DEPTH": backbone["depth"],
            "STEM_OUT_CHANNELS": stem_width,
            "WIDTH_PER_GROUP": stem_width,
            "RES2_OUT_CHANNELS": net.channels[0],
            "STRIDE_IN_1X1": False,
            "NORM": norm,
            "OUT_FEATURES": features,
        },
    }
    if not own:
        model["VISREP"] = {key.upper(): value for key, value in backbone.items()}
        model["VISREP"]["WIDTH"] = float(backbone["width"])
    if fpn:
        levels = [int(math.log2(stride)) for stride in net.strides]
        levels.append(levels[-1] + 1)
        pyramid = [f"p{level}" for level in levels]
        model |= {
            "FPN": {"IN_FEATURES": list(features), "NORM": "" if norm == "FrozenBN" else norm},
            "ANCHOR_GENERATOR": {
                "SIZES": [[8 * 2**level] for level in levels],
                "ASPECT_RATIOS": [[0.5, 1.0, 2.0]],
            },
            "RPN": {
                "IN_FEATURES": pyramid,
                "PRE_NMS_TOPK_TRAIN": 2000,
                "PRE_NMS_TOPK_TEST": 1000,
                "POST_NMS_TOPK_TRAIN": 1000,
                "POST_NMS_TOPK_TEST": 1000,
            },
            "ROI_HEADS": {"NAME": "StandardROIHeads", "IN_FEATURES": pyramid[:-1]},
            "ROI_BOX_HEAD": {
                "NAME": "FastRCNNConvFCHead",
                "NUM_FC": 2,
                "POOLER_RESOLUTION": 7,
            },
            "ROI_MASK_HEAD": {
                "NAME": "MaskRCNNConvUpsampleHead",
                "NUM_CONV": 4,
                "POOLER_RESOLUTION": 14,
            },
        }
    return {"MODEL": model, "INPUT": {"FORMAT": file.preprocess["channel_order"]}}


def pixel_statistics(preprocess: Preprocess) -> tuple[list[float], list[float]]:
    """Mean and standard deviation on pixels of 0 to 255, in the order of the input's channels."""
    low, high = preprocess.range
    scale = (high - low) / 255
    mean = [round((value - low) / scale, 6) for value in preprocess.mean]
    return mean, [round(value / scale, 6) for value in preprocess.std]


def config_for(file: EncoderFile, *, weights: str | Path, norm: str = "SyncBN") -> str:
    """A Detectron2 config, as yaml text: Faster R-CNN with FPN on this encoder.

    Its schedule is Detectron2's 1x for COCO at batch 16. A net that Detectron2's own ResNet holds
    needs nothing but `get_cfg().merge_from_file(...)`; for others the text says what to import.

    Raises:
        ConfigError: see `settings`.
    """
    weights = Path(weights).absolute()
    config = settings(file, norm=norm)
    config["MODEL"] = {"WEIGHTS": str(weights), **config["MODEL"]}
    config["INPUT"] |= {"MIN_SIZE_TRAIN": [640, 672, 704, 736, 768, 800]}
    config |= {
        "DATASETS": {"TRAIN": ["coco_2017_train"], "TEST": ["coco_2017_val"]},
        "SOLVER": {
            "IMS_PER_BATCH": 16,
            "BASE_LR": 0.02,
            "STEPS": [60000, 80000],
            "MAX_ITER": 90000,
        },
        "TEST": {"PRECISE_BN": {"ENABLED": norm != "FrozenBN"}},
        "VERSION": 2,
    }
    yaml_name = weights.with_suffix(".yaml").name
    lines = [
        f"Faster R-CNN with FPN on {describe(file.backbone)}, written by visrep convert.",
        f"Encoder sha256 {file.sha256}.",
        "",
    ]
    if native(file.backbone):
        lines += [f"    cfg = detectron2.config.get_cfg(); cfg.merge_from_file({yaml_name!r})"]
    else:
        lines += [
            "Detectron2's own ResNet cannot hold this net; visrep registers one that can:",
            "    from transfer.d2_backbone import add_visrep_config",
            "    cfg = detectron2.config.get_cfg()",
            "    add_visrep_config(cfg)  # MODEL.VISREP, and the backbone that is named below",
            f"    cfg.merge_from_file({yaml_name!r})",
        ]
    lines += [
        "",
        "When the files move, set MODEL.WEIGHTS. With another batch size, scale BASE_LR with it",
        "and the iterations against it. On one device, NORM: BN does the same as SyncBN.",
    ]
    header = "".join(f"# {line}".rstrip() + "\n" for line in lines)
    return header + yaml.safe_dump(config, sort_keys=False, default_flow_style=None)


def describe(backbone: dict[str, Any]) -> str:
    """A net in words: `ResNet-50 of width 2 with selective kernels and the d stem`."""
    parts = [f"ResNet-{backbone['depth']}"]
    if backbone["width"] != 1:
        parts.append(f"of width {backbone['width']:g}")
    extras = ["selective kernels"] if backbone["sk"] else []
    extras += [f"the {backbone['stem']} stem"] if backbone["stem"] != "imagenet" else []
    extras += ["TF padding"] if backbone["padding"] == "tf" else []
    return " ".join(parts + (["with", " and ".join(extras)] if extras else []))
