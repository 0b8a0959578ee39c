"""OpenMMLab: OpenSelfSup, mmselfsup 0.x and 1.x, mmpretrain, and backbones extracted from them.

`{meta, state_dict}`, or `{author, state_dict}` of a backbone alone. The net is under `backbone.`;
0.x has it as part 0 of `encoder_q` or `online_net`, of which `backbone.` is a second name. The
momentum encoder is part 0 of `encoder_k`, `target_net` or `momentum_encoder` (1.x: under their
`module.`), the neck part 1. What the shapes do not show is read from the config's text in `meta`,
where there is one: the stride in the 1x1 convolution (style='caffe'), mean and standard deviation.
"""

import re

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import (
    MEAN,
    STD,
    Choice,
    ForeignTensors,
    Head,
    encoder_file,
    pick,
    unwrap,
)
from visrep.weights.naming import feature_width, shortcut_kind, shortcut_names

NAME = "OpenMMLab"
# (encoder, prefix of its net, prefix of its neck), the one that is evaluated first
_PAIRS = (
    (("query", "encoder_q.0.", "encoder_q.1."), ("key", "encoder_k.0.", "encoder_k.1.")),
    (("online", "online_net.0.", "online_net.1."), ("target", "target_net.0.", "target_net.1.")),
    (("query", "backbone.", "neck."), ("key", "encoder_k.module.0.", "encoder_k.module.1.")),
    (
        ("query", "backbone.", "neck."),
        ("key", "momentum_encoder.module.0.", "momentum_encoder.module.1."),
    ),
    (("online", "backbone.", "neck."), ("target", "target_net.module.0.", "target_net.module.1.")),
)
_FIRST = ("conv1.weight", "stem.0.weight", "stem.0.conv.weight")
_STEM = {
    "0": "conv1.0",
    "1": "conv1.1",
    "3": "conv1.3",
    "4": "conv1.4",
    "6": "conv1.6",
    "7": "bn1",
    "0.conv": "conv1.0",
    "0.bn": "conv1.1",
    "1.conv": "conv1.3",
    "1.bn": "conv1.4",
    "2.conv": "conv1.6",
    "2.bn": "bn1",
}
_NUMBERS = r"[\[(]([\d., \n]+)[\])]"
_NORMALISE = re.compile(rf"mean={_NUMBERS},\s*std={_NUMBERS}")


def recognise(tree: Tree) -> bool:
    value = tree.value
    if not isinstance(value, dict) or "pytorch-lightning_version" in value:
        return False
    names = set(unwrap(tree, "state_dict")[0])
    ours = {"meta", "author"} & set(value) or {
        name for name in names if name.startswith(("neck.", "head."))
    }
    momentum = any(_holds(names, slow[1]) for _, slow in _PAIRS)
    return momentum or (bool(ours) and (_holds(names, "backbone.") or _holds(names, "")))


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the net sees edges in place of an image, or see `encoder_file`."""
    tensors, place = unwrap(tree, "state_dict")
    encoders = _encoders(set(tensors))
    encoder, (prefix, neck), others = pick(encoders, choice)
    foreign = ForeignTensors(tree, tensors)
    first = tuple(getattr(tensors.get(f"{prefix}conv1.weight"), "shape", ()))
    if any("sobel_layer." in name for name in tensors) or first[1:2] == (2,):
        raise UserError(
            f"{tree.path}: its net sees the two edge maps of a Sobel filter, not an image of three "
            "channels, which visrep's does not"
        )
    plain = shortcut_names(tensors, prefix)
    backbone = foreign.take(prefix, lambda name: plain(_stem_name(name)))
    for other in others:
        for start in encoders[other]:
            foreign.drop(f"of the {other} encoder", re.escape(start))
    if prefix.startswith(("encoder_", "online_", "target_")):  # 0.x, or the slow one of 1.x
        foreign.drop("second names of the same", r"(backbone|neck)\.")
    head = _head(foreign, neck, feature_width(backbone))
    foreign.drop("neck", r"neck\.|" + re.escape(neck or "neck."))
    fc = {} if head or "neck" in foreign.dropped else foreign.take("head.", _classifier)
    foreign.drop("counters of steps", r"\w+\.steps$")
    foreign.drop("head of the loss", r"head\.")
    foreign.drop("queue", r"queue")
    foreign.drop("memory bank", r"memory_bank\.")
    text = _config(tree)
    small = first[2:] == (3, 3)  # its ResNet for CIFAR
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        fc=fc,
        source={"format": NAME, **place},
        preprocess=_preprocess(text, small=small),
        encoder=encoder if others else "",
        alternatives=others,
        shortcut=shortcut_kind(tensors),
        stride_in_1x1=bool(re.search(r"style=['\"]caffe['\"]", text)) or None,
        stem="cifar" if small else None,
    )


def _holds(names: set[str], prefix: str) -> bool:
    return f"{prefix}layer1.0.conv1.weight" in names and any(prefix + n in names for n in _FIRST)


def _encoders(names: set[str]) -> dict[str, tuple[str, str]]:
    """Encoder -> prefixes of its net and its neck; '' where it is the only one."""
    for pair in _PAIRS:
        if all(_holds(names, prefix) for _, prefix, _ in pair):
            return {encoder: (prefix, neck) for encoder, prefix, neck in pair}
    return {"": ("backbone.", "neck.") if _holds(names, "backbone.") else ("", "")}


def _stem_name(name: str) -> str:
    """A name of a deep stem as ours: a row of modules, or of pairs of convolution and norm."""
    module, _, kind = name.rpartition(".")
    place = module.removeprefix("stem.")
    return f"{_STEM[place]}.{kind}" if place != module and place in _STEM else name


def _head(foreign: ForeignTensors, neck: str, width: int) -> Head | None:
    """The neck as layers of an MLP, if it takes `width` features and is one."""
    if not neck:
        return None
    foreign.drop("dense projection head", re.escape(neck) + r"mlp2\.")
    if any(name.startswith(f"{neck}projection_neck.") for name in foreign.left):
        foreign.drop("second names of the same", re.escape(neck) + r"bn\.")
    places = {n: _place(n.removeprefix(neck)) for n in foreign.left if n.startswith(neck)}
    linears = [foreign.left[n].shape for n, place in places.items() if place == "0.weight"]
    if None in places.values() or [shape[1:] for shape in linears] != [(width,)]:
        return None
    # Of ODC, whose neck alone has a norm without gamma inside, the last ReLU is part.
    odc = f"{neck}bn0.running_mean" in places and f"{neck}bn0.weight" not in places
    return foreign.head(foreign.take("", places.get), last_relu=odc)


def _place(name: str) -> str | None:
    """Place in a row of modules: `mlp.0.weight` is 0.weight, `bn1.bias` 3.bias, `fc.weight` 0."""
    for start in ("mlp.", "projection_neck."):
        if name.startswith(start):
            place = name.removeprefix(start)
            return place if place[0].isdecimal() else f"0.{place}"
    match = re.fullmatch(r"(fc|bn)(\d+)\.(\w+)", name)
    if match:
        return f"{2 * int(match[2]) + (match[1] == 'bn')}.{match[3]}"
    return f"0.{name.removeprefix('fc.')}" if name.startswith("fc.") else None


def _classifier(name: str) -> str | None:
    match = re.fullmatch(r"fc(?:_cls)?\.(weight|bias)", name)
    return match[1] if match else None


def _config(tree: Tree) -> str:
    """The text of the config that the net was trained with, or ''."""
    meta = tree.value.get("meta")
    texts = [meta.get(key) for key in ("config", "cfg")] if isinstance(meta, dict) else []
    return next((text for text in texts if isinstance(text, str)), "")


def _preprocess(text: str, *, small: bool) -> Preprocess:
    """Of the one pair of mean and std in the config, on pixels of 0 to 255 or of 0 to 1.

    A mean of Caffe's order is of BGR, whatever the config calls the conversion.
    """
    pairs = {match.groups() for match in _NORMALISE.finditer(text)}
    mean: tuple[float, ...] = MEAN
    std: tuple[float, ...] = STD
    if len(pairs) == 1:
        mean, std = (tuple(map(float, re.findall(r"\d+\.?\d*", text))) for text in pairs.pop())
        if max(mean, default=0) > 1:
            mean, std = (tuple(round(v / 255, 6) for v in values) for values in (mean, std))
    order = "BGR" if mean == MEAN[::-1] else "RGB"
    size = {"size": 32, "resize": None} if small else {"size": 224, "resize": 256}
    return Preprocess(mean=mean, std=std, channel_order=order, **size)
