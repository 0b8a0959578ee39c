"""State dicts under torchvision's names, bare or as training scripts save them.

Such are torchvision's own (`model`, and `model_ema` on request), plain nets of timm, and what the
linear evaluations of MoCo and SimSiam save (`state_dict`, names under `module.`). The weights
carry nothing about their input, so torchvision's own is recorded: RGB in [0, 1], ImageNet's mean
and standard deviation, short side to 256, centre crop of 224. Weights that were converted from
SimCLR v1 look the same: `origin=simclr` says that they are.
"""

import re
from collections import OrderedDict
from pathlib import Path
from typing import Any

import torchvision.models as models
from torch import nn

from visrep.d2.pkl import describe
from visrep.errors import UserError
from visrep.weights.architecture import NAME as BACKBONE_NAME
from visrep.weights.containers.torch_files import save_torch
from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, pick
from visrep.weights.formats import simclr_torch
from visrep.weights.naming import without_wrappers

NAME = "torchvision state dict"
WITHOUT_FC = "load it with strict=False"
_CONTAINERS = ("state_dict", "model", "model_state_dict")
_OTHERS = ("version", "author", "meta", "lemniscate")  # keys of timm, OpenMMLab and NPID
_CLASSIFIER = re.compile(r"fc\.(weight|bias)")

# (depth, groups, inner) -> torchvision's name
MODELS = {
    **{(n, 1, 1): f"resnet{n}" for n in (18, 34, 50, 101, 152)},
    **{(n, 1, 2): f"wide_resnet{n}_2" for n in (50, 101)},
    (50, 32, 2): "resnext50_32x4d",
    (101, 32, 4): "resnext101_32x8d",
    (101, 64, 4): "resnext101_64x4d",
}


def recognise(tree: Tree) -> bool:
    nets = _nets(tree)
    return bool(nets) and all(
        {"conv1.weight", "layer1.0.conv1.weight"} <= set(names)
        and all(_known(name) for name in names)
        for names, _ in nets.values()
    )


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the architecture is none that visrep holds."""
    encoder, (tensors, place), others = pick(_nets(tree), choice)
    foreign = ForeignTensors(tree, tensors)
    source = {"format": NAME, **place}
    if choice.origin == "simclr":
        # Nothing in the file tells it from torchvision's. Its converter has lost the fc.bias.
        foreign.drop("of the classifier without its bias", r"fc\.")
        return encoder_file(
            foreign,
            foreign.take(""),
            choice=choice,
            source={**source, "origin": "simclr"},
            preprocess=simclr_torch.preprocess(),
            padding="tf",
        )
    return encoder_file(
        foreign,
        fc=foreign.take("fc."),
        backbone=foreign.take(""),
        choice=choice,
        source=source,
        encoder=encoder,
        alternatives=others,
    )


def dump(path: str | Path, file: EncoderFile) -> None:
    """Write `file` as a bare state dict that torch and torchvision load: backbone and classifier.

    It is written as it goes: for a temporary path.

    Raises:
        UserError: torchvision's names cannot say what this net is.
        OSError: a write failed.
    """
    strange = [
        f"{key}={str(value).lower()}"
        for key, value in file.backbone.items()
        if key not in ("depth", "width", "groups", "inner")
        and value != {"stem": "imagenet", "sk": False, "padding": "torch"}.get(key)
    ]
    if strange:
        raise UserError(
            f"torchvision has no ResNet with {', '.join(strange)}: use to=visrep or to=detectron2"
        )
    if file.head is not None and file.names("fc"):
        raise UserError(
            "torchvision has no ResNet whose classifier sits on a projection head: use to=visrep"
        )
    kept = [*file.names(""), *file.names("fc")]
    tensors = OrderedDict((name, file.tensors[name]) for name in kept)
    with open(path, "wb") as stream:
        save_torch(tensors, stream)


def own_class(file: EncoderFile) -> tuple[str, nn.Module] | str:
    """torchvision's name of the net and the net, without classifier; or why there is none."""
    spec = file.backbone
    name = MODELS.get((spec["depth"], spec.get("groups", 1), spec.get("inner", 1)))
    if spec["width"] != 1 or name is None:
        return f"torchvision has no {describe(spec)}: not run in its class"
    net = getattr(models, name)(weights=None)
    net.fc = nn.Identity()
    return f"torchvision's {name}", net


def _nets(tree: Tree) -> dict[str, tuple[dict[Any, Any], dict[str, str]]]:
    """Encoder -> its state dict without wrappers, and these; '' where it is the only one.

    Nothing is returned when the file holds several nets that are not torchvision's own pair:
    choosing would be a guess.
    """
    value = tree.value
    if not isinstance(value, dict) or any(key in value for key in _OTHERS):
        return {}
    inner = {k: v for k, v in value.items() if isinstance(v, dict) and _holds_a_net(v)}
    if not inner:
        return {"": _unwrapped(value, "")}
    if set(inner) == {"model", "model_ema"}:
        averaged = {k: v for k, v in inner["model_ema"].items() if k != "n_averaged"}
        return {
            "raw": _unwrapped(inner["model"], "model"),
            "ema": _unwrapped(averaged, "model_ema"),
        }
    (container, tensors), *others = inner.items()
    return {} if others or container not in _CONTAINERS else {"": _unwrapped(tensors, container)}


def _unwrapped(tensors: dict[Any, Any], container: str) -> tuple[dict[Any, Any], dict[str, str]]:
    tensors, prefix = without_wrappers(tensors)
    place = {"container": container, "prefix": prefix}
    return tensors, {key: value for key, value in place.items() if value}


def _known(name: object) -> bool:
    return isinstance(name, str) and bool(
        BACKBONE_NAME.fullmatch(name) or _CLASSIFIER.fullmatch(name)
    )


def _holds_a_net(value: dict[Any, Any]) -> bool:
    return any(isinstance(name, str) and name.endswith("conv1.weight") for name in value)
