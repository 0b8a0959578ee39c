"""What several formats do to the names of a state dict before they are ours."""

import re
from collections.abc import Callable, Mapping
from typing import Any

# What wrappers of a module put before its names: DistributedDataParallel (and many others),
# torch.compile, FSDP, activation checkpointing, DeepSpeed and Lightning's strategies.
WRAPPERS = (
    "module.",
    "_orig_mod.",
    "_fsdp_wrapped_module.",
    "_checkpoint_wrapped_module.",
    "_forward_module.",
)
# Children of torchvision's ResNet in their order, where a Sequential was made of them.
CHILDREN = {"0": "conv1", "1": "bn1", **{f"{i + 3}": f"layer{i}" for i in range(1, 5)}}
_WRAPPED = re.compile(rf"(?<![^./])(?:{'|'.join(map(re.escape, WRAPPERS))})+")


def bare_name(name: str) -> str:
    """`name` without the parts of wrappers, wherever they stand in it."""
    return _WRAPPED.sub("", name)


def bare_names(value: Any) -> Any:
    """Nested dicts, as a file holds them, with the names of tensors bare where that is unique."""
    if not isinstance(value, dict):
        return value
    bare = {bare_name(k) if isinstance(k, str) and "." in k else k: v for k, v in value.items()}
    names = bare if len(bare) == len(value) else value
    return {name: bare_names(held) for name, held in names.items()}


def without_wrappers(tensors: Mapping[Any, Any]) -> tuple[dict[Any, Any], str]:
    """The tensors without the prefixes that wrappers put before every name, and these."""
    bare, prefix = dict(tensors), ""
    while bare:
        for wrapper in WRAPPERS:
            if all(isinstance(name, str) and name.startswith(wrapper) for name in bare):
                bare = {name.removeprefix(wrapper): tensor for name, tensor in bare.items()}
                prefix += wrapper
                break
        else:
            break
    return bare, prefix


def shortcut_names(tensors: Mapping[str, Any], prefix: str = "") -> Callable[[str], str]:
    """A renaming of shortcuts whose first module is a pool without tensors, as ResNet-D has them.

    In those the convolution is `downsample.1` and its norm `downsample.2`; in ours they are 0 and
    1 whatever is before them. `tensors` are all those under `prefix`, which the names given to the
    renaming do not have.
    """
    pooled = {
        name.removeprefix(prefix).removesuffix("2.weight")
        for name in tensors
        if name.startswith(prefix) and name.endswith(".downsample.2.weight")
    }

    def rename(name: str) -> str:
        start, found, end = name.partition("downsample.")
        if start + found not in pooled:
            return name
        index, _, kind = end.partition(".")
        return f"{start}{found}{int(index) - 1}.{kind}" if index in ("1", "2") else name

    return rename


def shortcut_kind(tensors: Mapping[str, Any]) -> str:
    """`shortcut` of a net with these names: ResNet-D's pool moves the norm to place 2."""
    pooled = any(name.endswith(".downsample.2.weight") for name in tensors)
    return "avg_down" if pooled else "conv"


def feature_width(backbone: Mapping[str, Any]) -> int:
    """Width of the features of a net under our names, as the last norm of layer4.0 has it; or 0."""
    for name in ("layer4.0.bn3.bias", "layer4.0.bn2.bias"):
        if name in backbone:
            return int(backbone[name].shape[0])
    return 0
