"""State dicts under torchvision's names, bare or as training scripts save them.

The weights carry nothing about their input, so torchvision's own is recorded: RGB in [0, 1],
ImageNet's mean and standard deviation, short side to 256, centre crop of 224.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

from visrep.errors import UserError
from visrep.weights.architecture import NAME as BACKBONE_NAME
from visrep.weights.canonical import EncoderFile
from visrep.weights.state import Choice, State, encoder_file
from visrep.weights.torch_files import Tree, read_tree, save_torch

NAME = "torchvision state dict"
_CONTAINERS = ("state_dict", "model")
_CLASSIFIER = re.compile(r"fc\.(weight|bias)")


def recognise(tree: Tree) -> bool:
    names = [name for name in _state_dict(tree)[0] if isinstance(name, str)]
    return (
        bool(names)
        and "lemniscate" not in tree.value  # whose `fc` is an embedding
        and {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)
        and len(names) == len(_state_dict(tree)[0])
        and all(BACKBONE_NAME.fullmatch(name) or _CLASSIFIER.fullmatch(name) for name in names)
    )


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the architecture is none that visrep holds."""
    tensors, place = _state_dict(tree)
    state = State(tree, tensors)
    fc = state.take("fc.")
    source = {"format": NAME, **place}
    return encoder_file(state, state.take(""), choice=choice, fc=fc, source=source)


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
    return read(read_tree(path), Choice())


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
