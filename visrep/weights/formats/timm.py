"""timm's ResNets: what its training script saves, and its deep stems and ResNet-D's shortcuts.

A plain net (resnet50, resnext50_32x4d, the semi-supervised fb_ssl and fb_swsl) in a file of its own
has torchvision's names and is read as such. timm is needed for none of this.
"""

from pathlib import Path
from typing import Any

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.safetensors_files import write_safetensors
from visrep.weights.containers.tree import Tree, renamed
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import MEAN, STD, Choice, ForeignTensors, encoder_file, pick
from visrep.weights.naming import shortcut_kind, shortcut_names, without_wrappers

NAME = "timm"
WITHOUT_FC = "create the model with num_classes=0"
EXTRAS = {"se": "squeeze and excite, or efficient channel attention", "aa": "anti-aliasing filters"}
_NETS = {"raw": "state_dict", "ema": "state_dict_ema"}

# (depth, stem, shortcut, groups, inner) -> timm's name
MODELS = {
    **{(n, "imagenet", "conv", 1, 1): f"resnet{n}" for n in (18, 26, 34, 50, 101, 152, 200)},
    **{(n, "d", "avg_down", 1, 1): f"resnet{n}d" for n in (18, 26, 34, 50, 101, 152, 200)},
    **{(n, "t", "avg_down", 1, 1): f"resnet{n}t" for n in (10, 14, 26, 50)},
    **{(n, "d", "conv", 1, 1): f"resnet{n}c" for n in (50, 101, 152)},
    **{(n, "imagenet", "conv", 1, 2): f"wide_resnet{n}_2" for n in (50, 101)},
    (50, "imagenet", "conv", 32, 2): "resnext50_32x4d",
    (50, "d", "avg_down", 32, 2): "resnext50d_32x4d",
    (101, "imagenet", "conv", 32, 2): "resnext101_32x4d",
    (101, "imagenet", "conv", 32, 4): "resnext101_32x8d",
    (101, "imagenet", "conv", 32, 8): "resnext101_32x16d",
    (101, "imagenet", "conv", 32, 16): "resnext101_32x32d",
    (101, "imagenet", "conv", 64, 4): "resnext101_64x4d",
}


def recognise(tree: Tree) -> bool:
    if not isinstance(tree.value, dict):
        return False
    if saved_by_timm(tree.value):
        return True
    names = {name for name in without_wrappers(tree.value)[0] if isinstance(name, str)}
    return "layer1.0.conv1.weight" in names and (
        "conv1.0.weight" in names or ("conv1.weight" in names and bool(_extras(names)))
    )


def saved_by_timm(value: dict[Any, Any]) -> bool:
    """Whether timm's CheckpointSaver wrote this."""
    return {"arch", "version", "state_dict"} <= set(value) and isinstance(value["state_dict"], dict)


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the net has parts that visrep's ResNet has not."""
    value, source, nets = tree.value, {"format": NAME}, {"": tree.value}
    if saved_by_timm(value):
        nets = {name: value[key] for name, key in _NETS.items() if isinstance(value.get(key), dict)}
        source |= {"arch": str(value["arch"])}
    name, tensors, others = pick(nets, choice)
    tensors, prefix = without_wrappers(tensors)
    if prefix:
        source["prefix"] = prefix
    _require_plain(tree, tensors, source.get("arch", ""))
    foreign = ForeignTensors(tree, tensors)
    return encoder_file(
        foreign,
        fc=foreign.take("fc."),
        backbone=foreign.take("", shortcut_names(foreign.left)),
        choice=choice,
        source=source,
        preprocess=_preprocess(value.get("args")),
        encoder=name if others else "",
        alternatives=others,
        shortcut=shortcut_kind(tensors),
    )


def model_name(spec: dict[str, Any]) -> str | None:
    """What timm calls the net `spec`; None if it has no such net."""
    if spec["sk"] or spec["padding"] != "torch" or spec["width"] != 1:
        return None
    if {"project", "stride_in_1x1", "stem_relu", "dilated"} & set(spec):
        return None
    usual = "simclr" if spec["stem"] == "d" else "conv"
    kind = (spec["depth"], spec["stem"], spec.get("shortcut", usual))
    return MODELS.get((*kind, spec.get("groups", 1), spec.get("inner", 1)))


def dump(path: str | Path, file: EncoderFile) -> None:
    """Write backbone and classifier of `file` as safetensors under timm's names.

    `timm.create_model(model_name(...), checkpoint_path=...)` loads it, with num_classes=0 where
    there is no classifier. It is written as it goes: for a temporary path.

    Raises:
        UserError: timm has no such net.
        OSError: a write failed.
    """
    if model_name(file.backbone) is None:
        shown = ", ".join(f"{key}={value}" for key, value in file.backbone.items())
        raise UserError(f"timm has no ResNet with {shown}: use to=visrep or to=detectron2")
    if file.head is not None and file.names("fc"):
        raise UserError("timm has no ResNet whose classifier sits on a projection head: to=visrep")
    shifted = file.backbone.get("shortcut") == "avg_down"
    kept = [*file.names(""), *file.names("fc")]
    names = {_their_name(name) if shifted else name: name for name in kept}
    write_safetensors(path, renamed(file.tensors, names), {"format": "pt"})


def own_class(file: EncoderFile) -> tuple[str, Any] | str:
    """timm's name of the net and the net, without classifier; or why it cannot be had."""
    try:
        import timm
    except ImportError:
        return "timm is not installed: not run in its class"
    name = model_name(file.backbone)
    assert name is not None  # `dump` has refused it
    return f"timm's {name}", timm.create_model(name, num_classes=0)


def _their_name(name: str) -> str:
    start, found, end = name.partition(".downsample.")
    return f"{start}{found}{int(end[0]) + 1}{end[1:]}" if found else name


def _require_plain(tree: Tree, names: Any, arch: str) -> None:
    found = _extras(names)
    # A pool in place of a filter has no tensors: the name of the net is all that tells.
    found |= {"aa"} if arch.startswith(("resnetaa", "resnetblur")) else set()
    if found:
        what = " and ".join(f"{EXTRAS[key]} ({key})" for key in sorted(found))
        raise UserError(f"{tree.path}: it is a ResNet of timm with {what}, which visrep's has not")


def _extras(names: Any) -> set[str]:
    parts = {part for name in names if isinstance(name, str) for part in name.split(".")}
    return parts & set(EXTRAS)


def _preprocess(args: Any) -> Preprocess:
    """timm trains with ImageNet's mean and std where its options give no others."""
    given = args.fields() if isinstance(args, Inert) else {}  # an argparse.Namespace
    return Preprocess(
        size=224, resize=256, mean=given.get("mean") or MEAN, std=given.get("std") or STD
    )
