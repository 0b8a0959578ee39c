"""Detectron2: converted backbones, whole detectors, and the Caffe2 files of Detectron1.

A backbone is `{model, __author__}` with `stem.conv1`, `res2` to `res5` and their `norm`s; in a
detector it is under `backbone.` or `backbone.bottom_up.`, with C4 res5 under `roi_heads.`. Caffe2's
names are `conv1_w`, `res2_0_branch2a_w`, alone or under `blobs`. A file that visrep wrote for
Detectron2 says itself what it is.

Weights from Caffe2 (MSRA, FAIR) have their batch norms folded into a scale and an offset, and their
nets see BGR of 0 to 255 less the mean; MSRA's divide by no deviation and have the stride in the 1x1
convolution; FAIR's ResNeXts do and have not. Nothing else has its norms folded, which tells the
origin in files under Detectron2's names too. Channels stay as stored: their order is recorded.
"""

import re
from typing import Any

import torch

from visrep.d2 import pkl as written
from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.tree import Tree, float_tensor
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Raw, encoder_file

NAME = "Detectron2"
EPS = 1e-5  # of a batch norm
_PREFIXES = ("backbone.bottom_up.", "backbone.", "")
_PARTS = {"shortcut": "downsample.0", "shortcut.norm": "downsample.1"}
_PARTS |= {f"conv{n}": f"conv{n}" for n in (1, 2, 3)} | {
    f"conv{n}.norm": f"bn{n}" for n in (1, 2, 3)
}
_NAME = re.compile(r"(?:stem|res([2-5])\.(\d+))\.([\w.]+)\.(\w+)")
_CAFFE2 = re.compile(r"(?:res_)?conv1_(\w+)|res([2-5])_(\d+)_branch(1|2[abc])_(\w+)")
_BRANCHES = {"1": "shortcut", "2a": "conv1", "2b": "conv2", "2c": "conv3"}
_CLASSIFIER = {
    f"{name}{end}": kind
    for name in ("fc1000", "pred", "linear")
    for end, kind in (("_w", "weight"), ("_b", "bias"), (".weight", "weight"), (".bias", "bias"))
}
_KINDS = {
    "w": "weight",
    "bn_s": "norm.weight",
    "bn_b": "norm.bias",
    "bn_rm": "norm.running_mean",
    "bn_riv": "norm.running_var",
}


def recognise(tree: Tree) -> bool:
    names = _tensors(tree)
    return ("conv1_w" in names and "res2_0_branch2a_w" in names) or _prefix(names) is not None


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`; or the file is visrep's own and damaged."""
    if "visrep" in tree.value:
        if choice.stem or choice.padding:
            raise UserError(
                f"{tree.path} says itself what net it holds: leave out stem= and padding="
            )
        return written.from_tree(tree)
    tensors, source = _tensors(tree), {"format": NAME}
    caffe2 = "conv1_w" in tensors
    if caffe2:
        tensors = {_from_caffe2(name): t for name, t in tensors.items()}
        source["names"] = "Caffe2"
    elif isinstance(tree.value.get("__author__"), str):
        source["author"] = tree.value["__author__"]
    prefix = _prefix(tensors) or ""
    foreign = ForeignTensors(tree, tensors)
    backbone = foreign.take(prefix, _ours)
    fc = foreign.take("", _CLASSIFIER.get)
    foreign.drop("classifier or projection head", r"stem\.fc\.")
    if not any(name.startswith("layer4.") for name in backbone):
        backbone |= foreign.take("roi_heads.", _ours)
    if prefix or caffe2:
        foreign.drop("layers of the detector", r"(?!stem\.|res[2-5]\.)")
    of_caffe2 = _unfold(backbone) or caffe2 or _is_folded(tree, backbone)
    grouped = _grouped(backbone)
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        source=source,
        fc=fc,
        preprocess=_caffe2_preprocess(grouped=grouped) if of_caffe2 else None,
        note="" if of_caffe2 or not prefix else NOTE,
        stride_in_1x1=True if of_caffe2 and not grouped else None,
    )


NOTE = (
    "a detector does not say what its input went through, nor where its strides are: RGB with "
    "ImageNet's mean and std, and the stride in the 3x3, are taken for granted"
)


def _tensors(tree: Tree) -> Raw:
    """The state dict, wherever it is, less momenta."""
    value = tree.value
    for container in ("model", "blobs"):
        if isinstance(value, dict) and isinstance(value.get(container), dict):
            value = value[container]
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return {}
    return {name: t for name, t in value.items() if not name.endswith("_momentum")}


def _prefix(names: Raw) -> str | None:
    """What is before the names of the backbone; None if there is none."""
    for prefix in _PREFIXES:
        if {f"{prefix}stem.conv1.weight", f"{prefix}res2.0.conv1.weight"} <= set(names):
            return prefix
    return None


def _from_caffe2(name: str) -> str:
    """Detectron2's name of a tensor of Caffe2, or `name` if it is of no backbone."""
    match = _CAFFE2.fullmatch(name)
    if match is None:
        return name
    of_stem, stage, block, branch, of_block = match.groups()
    kind = _KINDS.get(of_stem or of_block)
    place = "stem.conv1" if of_stem else f"res{stage}.{block}.{_BRANCHES[branch]}"
    return f"{place}.{kind}" if kind else name


def _ours(name: str) -> str | None:
    match = _NAME.fullmatch(name)
    if match is None or match[3] not in _PARTS:
        return None
    place = f"layer{int(match[1]) - 1}.{match[2]}." if match[1] else ""
    return f"{place}{_PARTS[match[3]]}.{match[4]}"


def _unfold(backbone: Raw) -> bool:
    """Give scales and offsets without statistics those that change nothing: 0 and 1 - eps."""
    bare = [
        name.removesuffix("bias")
        for name in backbone
        if name.endswith(".bias") and name.replace(".bias", ".running_mean") not in backbone
    ]
    for norm in bare:
        bias = backbone[f"{norm}bias"]
        backbone[f"{norm}running_mean"] = _filled(bias, 0.0)
        backbone[f"{norm}running_var"] = _filled(bias, 1 - EPS)
    return bool(bare)


def _filled(like: Any, value: float) -> Any:
    return like.then(lambda t: torch.full_like(t, value))


def _is_folded(tree: Tree, backbone: Raw) -> bool:
    """Whether the norms are scales and offsets: means of 0 and variances of 1, less eps or not."""
    for name, stored in backbone.items():
        if name.endswith(("running_mean", "running_var")):
            expected = 0.0 if name.endswith("mean") else 1.0
            if not bool((float_tensor(tree, name, stored) - expected).abs().max() <= 2 * EPS):
                return False
    return True


def _grouped(backbone: Raw) -> bool:
    weight = backbone.get("layer1.0.conv2.weight")
    return weight is not None and weight.shape[1] < weight.shape[0]


def _caffe2_preprocess(*, grouped: bool) -> Preprocess:
    """Detectron2's configs of R-50 to R-101 and of X-101-32x8d."""
    return Preprocess(
        size=224,
        resize=256,
        mean=(103.53, 116.28, 123.675),
        std=(57.375, 57.12, 58.395) if grouped else (1, 1, 1),
        channel_order="BGR",
        range=(0, 255),
    )
