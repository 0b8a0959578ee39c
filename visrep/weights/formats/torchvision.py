"""State dicts under torchvision's names, bare or as training scripts save them.

The weights carry nothing about their input, so torchvision's own is recorded: RGB in [0, 1],
ImageNet's mean and standard deviation, short side to 256, centre crop of 224.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from torch import Tensor

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.architecture import NAME as BACKBONE_NAME
from visrep.weights.architecture import infer
from visrep.weights.canonical import COUNTER, EncoderFile, differences
from visrep.weights.torch_files import Tree, float_tensor, read_tree, save_torch

NAME = "torchvision state dict"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_CONTAINERS = ("state_dict", "model")
_CLASSIFIER = re.compile(r"fc\.(weight|bias)")


def recognise(tree: Tree) -> bool:
    names = [name for name in _state_dict(tree)[0] if isinstance(name, str)]
    return (
        {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)
        and len(names) == len(_state_dict(tree)[0])
        and all(BACKBONE_NAME.fullmatch(name) or _CLASSIFIER.fullmatch(name) for name in names)
    )


def read(tree: Tree) -> EncoderFile:
    """Raises UserError when the architecture is none that visrep holds."""
    state, place = _state_dict(tree)
    counters = [name for name in state if name.endswith(COUNTER)]
    tensors = {
        name: float_tensor(tree, name, value)
        for name, value in state.items()
        if name not in counters
    }
    types = sorted({str(state[name].dtype) for name in tensors} - {"torch.float32"})
    if types:
        place["stored_as"] = ", ".join(types).replace("torch.", "")
    shapes = {name: tuple(t.shape) for name, t in tensors.items() if not name.startswith("fc.")}
    backbone = infer(shapes, tree.path)
    file = EncoderFile(
        backbone=backbone,
        preprocess=imagenet_preprocess().to_dict(),
        tensors=tensors,
        source={"format": NAME, "file": tree.path.name, **place},
        dropped={"counters of batches": len(counters)} if counters else {},
    )
    _check_classifier(file, tree)
    return file


def dump(path: str | Path, file: EncoderFile) -> None:
    """Write `file` as a bare state dict that torch and torchvision load: backbone and classifier.

    It is written as it goes: for a temporary path.

    Raises:
        UserError: torchvision's names cannot say what this net is.
        OSError: a write failed.
    """
    spec = file.backbone
    if spec["stem"] != "imagenet" or spec["sk"] or spec["padding"] != "torch":
        raise UserError(
            f"torchvision has no ResNet with stem={spec['stem']}, sk={str(spec['sk']).lower()}, "
            f"padding={spec['padding']}: use to=visrep or to=detectron2"
        )
    if file.head is not None and file.part("fc"):
        raise UserError(
            "torchvision has no ResNet whose classifier sits on a projection head: use to=visrep"
        )
    state = OrderedDict((k, t) for k, t in file.tensors.items() if not k.startswith("head."))
    with open(path, "wb") as stream:
        save_torch(state, stream)


def inverse(path: str | Path) -> EncoderFile:
    """What `dump` wrote, read back."""
    return read(read_tree(path))


def imagenet_preprocess() -> Preprocess:
    """torchvision's input for its ResNets."""
    return Preprocess(size=224, resize=256, mean=MEAN, std=STD)


def _state_dict(tree: Tree) -> tuple[dict[str, Any], dict[str, str]]:
    """The state dict without wrappers, and the wrappers that were taken off.

    Nothing is returned when the file holds several nets: choosing would be a guess.
    """
    value, place = tree.value, {}
    if not isinstance(value, dict):
        return {}, {}
    inner = {k: v for k, v in value.items() if isinstance(v, dict) and _holds_a_net(v)}
    if inner:
        (container, value), *others = inner.items()
        if others or container not in _CONTAINERS:
            return {}, {}
        place["container"] = container
    if value and all(isinstance(name, str) and name.startswith("module.") for name in value):
        value = {name.removeprefix("module."): tensor for name, tensor in value.items()}
        place["prefix"] = "module."
    return value, place


def _holds_a_net(state: dict[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.endswith("conv1.weight") for name in state)


def _check_classifier(file: EncoderFile, tree: Tree) -> None:
    fc: dict[str, Tensor] = file.part("fc")
    if not fc:
        return
    width = len(file.tensors["layer4.0.bn1.weight"]) * (4 if file.backbone["depth"] >= 50 else 1)
    classes = len(fc["bias"]) if fc.get("bias") is not None and fc["bias"].dim() == 1 else 1
    problem = differences(
        {"weight": (classes, width), "bias": (classes,)},
        {name: tuple(tensor.shape) for name, tensor in fc.items()},
    )
    if problem:
        raise UserError(f"{tree.path}: in its classifier fc, {problem}")
