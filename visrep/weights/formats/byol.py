"""BYOL as deepmind-research saves it: pickles of haiku's parameters, pretraining or linear-eval.

Parameters are `MODULE -> {name: array}`: `res_net50/~/block_group_0/~/block_1/~/conv_2 -> {w}`. A
batch norm's statistics are apart, as moving averages that are kept with a `hidden` value which is
biased towards the start, and the `average` without that bias, which is the one in use.
"""

import re
from typing import Any

import torch

from visrep.data.preprocess import Preprocess
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import Tree, tensors_in
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import MEAN, STD, Choice, ForeignTensors, Raw, encoder_file
from visrep.weights.head_choice import head_or_classifier

NAME = "BYOL checkpoint of haiku"
# `tf.image.resize` of TensorFlow 2 on the central 7/8.
INPUT = Preprocess(
    size=224, resize=256, mean=MEAN, std=STD, interpolation="bicubic", antialias=False
)
_NET = re.compile(r"res_net\d+/~/(.+)")
_STEM = {"initial_conv": "conv1", "initial_batchnorm": "bn1"}
_BLOCK = re.compile(r"block_group_([0-3])/~/block_(\d+)/~/(\w+)")
_INNER = {
    **{f"conv_{i}": f"conv{i + 1}" for i in range(3)},
    **{f"batchnorm_{i}": f"bn{i + 1}" for i in range(3)},
    "shortcut_conv": "downsample.0",
    "shortcut_batchnorm": "downsample.1",
}
_PARTS = {
    "w": "weight",
    "b": "bias",
    "scale": "weight",
    "offset": "bias",
    "~/mean_ema/average": "running_mean",
    "~/var_ema/average": "running_var",
}
_OLD_STRIDES = (
    "haiku before December 2020 had the stride of basic blocks in their second convolution; the "
    "file does not say which haiku wrote it, and the first is taken"
)
_PROJECTOR = {  # as in an nn.Sequential
    "projector/linear": "head.0",
    "projector/batch_norm": "head.1",
    "projector/linear_1": "head.2",
}


def recognise(tree: Tree) -> bool:
    return _sides(tree) != ()


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """The online network, or with `encoder=target` its moving average.

    Raises:
        UserError: the parameters are not those of a ResNet that visrep holds.
    """
    sides = _sides(tree)
    side = choice.encoder if choice.encoder in sides else sides[0]
    content = _fields(_fields(tree.value)["experiment_state"])
    # Field by field: target and online may be one and the same object, which is visited once.
    tensors = {f"{field}/{at}": t for field in content for at, t in tensors_in(content[field])}
    foreign = ForeignTensors(tree, {path: _turned(path, t) for path, t in tensors.items()})
    ours = foreign.take("", lambda path: _renamed(path, side))
    foreign.drop("of the batch norms' biased averages", rf"{side}_state/.*_ema/(hidden|counter)$")
    projector, fc = _part(ours, "head."), _part(ours, "fc.")
    head, fc = head_or_classifier(foreign, choice, foreign.head(projector), fc, sits_on=0)
    others = tuple(other for other in sides if other != side)
    for other in others:
        foreign.drop(f"of the {other} network", rf"{other}_(params|state)/")
    foreign.drop("of the predictor", rf"{side}_(params|state)/predictor/")
    foreign.drop("of the optimizer", r"(\w+_)?opt_state/")
    return encoder_file(
        foreign,
        ours,
        choice=choice,
        source={"format": NAME},
        note="" if "layer1.0.conv3.weight" in ours else _OLD_STRIDES,
        preprocess=INPUT,
        head=head,
        fc=fc,
        encoder=side if others else "",
        alternatives=others,
        padding="haiku",
    )


def _sides(tree: Tree) -> tuple[str, ...]:
    """The networks of the file, the one that upstream evaluates first; none if it is another's."""
    fields = _fields(_fields(tree.value).get("experiment_state"))
    for sides in (("online", "target"), ("backbone",)):
        if all(f"{side}_{part}" in fields for side in sides for part in ("params", "state")):
            return sides
    return ()


def _fields(value: object) -> dict[Any, Any]:
    """A dict, a named tuple or haiku's frozen mapping as a dict."""
    if isinstance(value, Inert):
        value = value.fields()
    return value if isinstance(value, dict) else {}


def _part(tensors: Raw, prefix: str) -> Raw:
    """Take what is under `prefix` out of `tensors`."""
    names = [name for name in tensors if name.startswith(prefix)]
    return {name.removeprefix(prefix): tensors.pop(name) for name in names}


def _turned(path: str, tensor: Stored) -> Stored:
    """Haiku's weights are (..., in, out); its batch norms keep the axes that they average."""
    kind = path.rpartition("/")[2]
    if kind == "w" and len(tensor.shape) == 4:
        return tensor.then(lambda t: t.permute(3, 2, 0, 1))
    if kind == "w" and len(tensor.shape) == 2:
        return tensor.then(lambda t: t.T)
    return tensor if kind == "w" else tensor.then(torch.flatten)


def _renamed(path: str, side: str) -> str | None:
    """Our name of `online_params/MODULE/w` or of `online_state/NORM/~/mean_ema/average`."""
    parts = "|".join(_PARTS)
    match = re.fullmatch(rf"({side}|classif)_(?:params|state)/(.+?)/({parts})", path)
    module = _module(match[1], match[2]) if match else None
    return f"{module}.{_PARTS[match[3]]}" if match and module else None


def _module(side: str, name: str) -> str | None:
    if name == ("linear" if side == "classif" else "classifier"):
        return "fc"
    if name in _PROJECTOR:
        return _PROJECTOR[name]
    net = _NET.fullmatch(name)
    block = _BLOCK.fullmatch(net[1]) if net else None
    if block is None:
        return _STEM.get(net[1]) if net else None
    inner = _INNER.get(block[3])
    return f"layer{int(block[1]) + 1}.{int(block[2])}.{inner}" if inner else None
