"""SimCLR v1 and v2 as google-research/simclr saves them: TensorFlow 1 checkpoints.

Variables have no names of their own: a convolution is `base_model/conv2d_K/kernel`, the K-th that
the code creates, and likewise a batch norm. The order is that of the code: stem, then in every
block the shortcut, which the first block of a group always has, before the rest.
"""

import re
from typing import Any

from visrep.errors import UserError
from visrep.nn.resnet import BASIC, BLOCKS
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Raw, encoder_file
from visrep.weights.formats.simclr_torch import preprocess
from visrep.weights.head_choice import head_or_classifier

NAME = "SimCLR checkpoint of TensorFlow"
_FIRST = "base_model/conv2d/kernel"
_PARTS = {
    "gamma": "weight",
    "beta": "bias",
    "moving_mean": "running_mean",
    "moving_variance": "running_var",
}
_CONV = re.compile(r"conv2d(?:_(\d+))?/kernel")
_NORM = re.compile(rf"batch_normalization(?:_(\d+))?/({'|'.join(_PARTS)})")
_HEAD = re.compile(rf"n?l_(\d+)/(dense/kernel|batch_normalization/({'|'.join(_PARTS)}))")
_CLASSIFIER = {"dense/kernel": "weight", "dense/bias": "bias"}


def recognise(tree: Tree) -> bool:
    return isinstance(tree.value, dict) and isinstance(tree.value.get(_FIRST), Stored)


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """The variables as they were trained; `encoder=ema` takes their moving average.

    Raises:
        UserError: the variables are not those of a SimCLR net that visrep holds.
    """
    foreign = ForeignTensors(tree, tree.value)
    foreign.drop("slots of the optimizer", r".*/(Momentum|Adam|Adam_1)$")
    foreign.drop("of the training's own", r"global_step$|.*memory")
    several = any(name.startswith("ema_model/") for name in foreign.left)
    ema = several and choice.encoder == "ema"
    prefix = "ema_model/" if ema else ""
    backbone, stem = _backbone(tree, foreign.take(f"{prefix}base_model/", _numbered))
    head = foreign.head(_matrices(foreign.take(f"{prefix}head_contrastive/", _of_head)))
    fc = _matrices(foreign.take("head_supervised/linear_layer/", _CLASSIFIER.get))
    head, fc = head_or_classifier(foreign, choice, head, fc, sits_on=None)
    if several:
        other = r"(base_model|head_contrastive)/" if ema else r"ema_model/"
        foreign.drop("of the other encoder", other)
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        source={"format": NAME},
        preprocess=preprocess(32 if stem == "cifar" else 224),
        head=head,
        fc=fc,
        encoder=("ema" if ema else "raw") if several else "",
        alternatives=(("raw",) if ema else ("ema",)) if several else (),
        padding="tf",
        stem=stem,
    )


def creation_order(depth: int, *, sk: bool, deep: bool) -> tuple[list[str], list[str]]:
    """Our names of the convolutions and of the batch norms as SimCLR's code creates them."""
    convs = ["conv1.0", "conv1.3", "conv1.6"] if deep else ["conv1"]
    norms = ["conv1.1", "conv1.4", "bn1"] if deep else ["bn1"]
    for stage, blocks in enumerate(BLOCKS[depth], start=1):
        for block in range(blocks):
            inner_convs, inner_norms = ["conv1", "conv2"], ["bn1", "bn2"]
            if sk:  # the last convolution of the attention has no batch norm
                inner_convs = ["conv1", "sk.conv", "sk.squeeze", "sk.excite"]
                inner_norms = ["bn1", "sk.bn", "sk.squeeze_bn"]
            if depth not in BASIC:
                inner_convs, inner_norms = [*inner_convs, "conv3"], [*inner_norms, "bn3"]
            if block == 0:
                inner_convs = ["downsample.0", *inner_convs]
                inner_norms = ["downsample.1", *inner_norms]
            convs += [f"layer{stage}.{block}.{name}" for name in inner_convs]
            norms += [f"layer{stage}.{block}.{name}" for name in inner_norms]
    return convs, norms


def _backbone(tree: Tree, numbered: Raw) -> tuple[Raw, str | None]:
    """Under our names; and the stem, if it is a single 3x3 convolution."""
    kernels = _in_order(tree, {k: t for k, t in numbered.items() if k.startswith("conv.")})
    norms = _in_order(tree, {k: t for k, t in numbered.items() if k.startswith("norm.")})
    depth, sk, deep = _kind(tree, [t.shape for parts in kernels for t in parts.values()])
    conv_names, norm_names = creation_order(depth, sk=sk, deep=deep)
    if len(norms) != len(norm_names):
        raise UserError(
            f"{tree.path}: it has {len(kernels)} convolutions and {len(norms)} batch norms, where "
            f"SimCLR's ResNet-{depth} has {len(norm_names)} batch norms"
        )
    ours: Raw = {}
    for name, parts in zip(conv_names, kernels, strict=True):
        ours[f"{name}.weight"] = parts["weight"].then(lambda t: t.permute(3, 2, 0, 1))
    for name, parts in zip(norm_names, norms, strict=True):
        ours |= {f"{name}.{part}": t for part, t in parts.items()}
    first = kernels[0]["weight"].shape
    return ours, "cifar" if not deep and first[:2] == (3, 3) else None


def _kind(tree: Tree, shapes: list[tuple[int, ...]]) -> tuple[int, bool, bool]:
    """Depth, whether it has selective kernels, and whether its stem is three convolutions.

    Number and order of the convolutions tell; whether every shape fits is checked later.
    """
    sides = [shape[0] if len(shape) == 4 else 0 for shape in shapes]
    deep = sides[1:2] == [3]
    stem = 3 if deep else 1
    basic = sides[stem + 1 : stem + 2] == [3]  # after the shortcut of the first block
    wide = shapes[stem + 2] if len(shapes) > stem + 4 else (0,) * 4
    sk = not basic and len(wide) == 4 and wide[3] == 2 * wide[2]
    each = 2 if basic else 5 if sk else 3
    blocks, rest = divmod(len(shapes) - stem - 4, each)
    depths = [d for d, counts in BLOCKS.items() if sum(counts) == blocks and (d in BASIC) == basic]
    if 0 in sides or rest or not depths:
        raise UserError(
            f"{tree.path}: its {len(shapes)} convolutions under base_model/ are those of no ResNet "
            "that SimCLR's code builds"
        )
    if deep and basic:
        raise UserError(
            f"{tree.path}: it has basic blocks and sk_ratio > 0, for which SimCLR's code pools the "
            "input of the whole block; visrep holds no such net"
        )
    return depths[0], sk, deep


def _in_order(tree: Tree, numbered: Raw) -> list[dict[str, Stored]]:
    """`kind.NUMBER.part` -> tensor, as one dict of parts for every number from 0 on."""
    modules: dict[int, dict[str, Stored]] = {}
    for name, tensor in numbered.items():
        kind, number, part = name.split(".")
        if not isinstance(tensor, Stored):
            raise UserError(f"{tree.path}: variable {number} of the {kind}s is {tensor}")
        modules.setdefault(int(number), {})[part] = tensor
    if sorted(modules) != list(range(len(modules))):
        missing = min(set(range(len(modules))) - set(modules))
        raise UserError(f"{tree.path}: its variables are numbered, and number {missing} is missing")
    return [modules[number] for number in range(len(modules))]


def _numbered(name: str) -> str | None:
    if match := _CONV.fullmatch(name):
        return f"conv.{int(match[1] or 0)}.weight"
    if match := _NORM.fullmatch(name):
        return f"norm.{int(match[1] or 0)}.{_PARTS[match[2]]}"
    return None


def _of_head(name: str) -> str | None:
    """As in an `nn.Sequential` of a linear and a batch norm for each layer."""
    match = _HEAD.fullmatch(name)
    if match is None:
        return None
    layer = int(match[1])
    return f"{2 * layer}.weight" if match[3] is None else f"{2 * layer + 1}.{_PARTS[match[3]]}"


def _matrices(tensors: Raw) -> Raw:
    """Kernels of dense layers, (in, out), become (out, in)."""

    def turned(tensor: Any) -> Any:
        two = isinstance(tensor, Stored) and len(tensor.shape) == 2
        return tensor.then(lambda t: t.T) if two else tensor

    return {name: turned(tensor) for name, tensor in tensors.items()}
