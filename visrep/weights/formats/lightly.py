"""Checkpoints of lightly: its ImageNet benchmarks, its small benchmarks and examples, its old CLI.

A Lightning checkpoint, or the state dict alone. `backbone` is a torchvision ResNet under its own
names (benchmarks), or the children of a ResNet in a row, so that their names are numbers:

* torchvision's conv1, bn1, relu, maxpool, layer1, ... (examples);
* those of lightly's own ResNet for small images (CIFAR-10 benchmark): conv1, bn1, layer1, ...,
  whose ReLU after the stem was in its `forward` and is therefore gone;
* the same behind a batch norm of the image and before a 1x1 convolution (CLI and model zoo). The
  batch norm goes into the input's mean and standard deviation, which gives the same numbers, border
  included; the convolution gives the same after the pooling, so it is the head's first layer.

Their methods name the encoders differently, see `_ENCODERS`.
"""

import re
from collections.abc import Collection
from functools import partial

import torch

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.architecture import NAME as BACKBONE_NAME
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import Tree, check_tensor, float_tensor
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import (
    MEAN,
    STD,
    Choice,
    ForeignTensors,
    Head,
    Raw,
    encoder_file,
    pick,
    unwrap,
)

NAME = "lightly"
BN_EPS = 1e-5

# A method's encoders, first the one that lightly evaluates; the first row whose prefixes are there.
_ENCODERS = (
    {"teacher": "teacher_backbone.", "student": "student_backbone."},  # DINO, example
    {"teacher": "backbone.", "student": "student_backbone."},  # DINO, benchmark
    {"online": "backbone.", "target": "teacher_backbone."},  # BYOL, benchmark
    {"query": "backbone.", "key": "key_backbone."},  # MoCo v2, benchmark
    {"online": "backbone.", "momentum": "backbone_momentum."},  # TiCo, examples
    {"online": "backbone.", "momentum": "momentum_backbone."},  # CLI
    {"": "backbone."},
)
_BLOCK = "0.conv1.weight"  # of a stage


def _in_a_row(*, stem: int, layers: int) -> dict[str, str]:
    """Numbers of the children -> our names; `stem`, `layers`: that of conv1 and of layer1."""
    stages = {str(layers + i): f"layer{i + 1}" for i in range(4)}
    return {str(stem): "conv1", str(stem + 1): "bn1", **stages}


_NAMED = {name: name for name in ("conv1", "bn1", "layer1", "layer2", "layer3", "layer4")}
_CHILDREN = _in_a_row(stem=0, layers=4)
_SMALL = _in_a_row(stem=0, layers=2)
_CLI = _in_a_row(stem=1, layers=3)
_ORDERS = (("layer1", _NAMED), ("2", _SMALL), ("3", _CLI), ("4", _CHILDREN))


def recognise(tree: Tree) -> bool:
    names = _state_dict(tree)[0].keys()
    row = _encoders(names)
    if row is None:
        return False
    if any(_order(prefix, names) is _NAMED for prefix in row.values()):
        mark = re.compile(r"(\w+_)?(projection_head(_\w+)?|projection_mlp)\.|online_classifier\.")
        return any(mark.match(name) for name in names)
    return True


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`; or a batch norm of the image that cannot be kept."""
    tensors, place = _state_dict(tree)
    foreign = ForeignTensors(tree, tensors)
    row = _encoders(tensors.keys())
    assert row is not None  # `recognise` has seen it
    encoder, prefix, others = pick(row, choice)
    order = _order(prefix, foreign.left.keys())
    assert order is not None
    backbone = foreign.take(prefix, lambda name: _our_name(name, order))
    _merge_splits(foreign, backbone)
    preprocess = None
    first: Raw = {}
    if order is _CLI:
        preprocess = _fold_input_norm(foreign, backbone, foreign.take(f"{prefix}0."))
        first = foreign.take(f"{prefix}7.")
    head = _head(foreign, prefix, first)
    classifier = foreign.take("online_classifier.classification_head.") if head is None else {}
    for other in others:
        foreign.drop(f"tensors of the {other} encoder", re.escape(row[other]))
    foreign.drop("tensors of further heads", r"(\w+_)?head(_\w+)?\.|(projection|prediction)_mlp\.")
    foreign.drop("tensors of the online classifier", r"online_classifier\.")
    foreign.drop("sets of prototypes", r"(prototypes|smog)\.")
    foreign.drop("tensors of the loss and its memory", r"criterion\.|memory_bank\.|queues\.")
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        fc=classifier or None,
        preprocess=preprocess,
        encoder=encoder,
        alternatives=others,
        source={"format": NAME, **place},
        stem="cifar" if order in (_SMALL, _CLI) else None,
        stem_relu=False if order in (_SMALL, _CLI) else None,
    )


def _state_dict(tree: Tree) -> tuple[Raw, dict[str, str]]:
    """The state dict without `model.`, which the CLI puts first, and with its newer names."""
    tensors, place = unwrap(tree, "state_dict")
    cli = re.compile(r"model\.(backbone|features)\.")
    if not any(cli.match(name) for name in tensors):
        return tensors, place
    plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    plain = {re.sub(r"^features\.", "backbone.", name): t for name, t in plain.items()}
    return plain, {**place, "prefix": "model."}


def _encoders(names: Collection[str]) -> dict[str, str] | None:
    """The first row of `_ENCODERS` whose every prefix has a ResNet's names."""
    rows = (row for row in _ENCODERS if all(_order(prefix, names) for prefix in row.values()))
    return next(rows, None)


def _order(prefix: str, names: Collection[str]) -> dict[str, str] | None:
    orders = (order for stage, order in _ORDERS if f"{prefix}{stage}.{_BLOCK}" in names)
    return next(orders, None)


def _our_name(name: str, order: dict[str, str]) -> str | None:
    module, _, rest = name.partition(".")
    ours = f"{order.get(module)}.{rest}".replace(".shortcut.", ".downsample.")
    return ours if BACKBONE_NAME.fullmatch(ours) else None


def _merge_splits(foreign: ForeignTensors, backbone: Raw) -> None:
    """Statistics that were kept for several parts of the batch, one after the other: their mean,
    which is what evaluation uses."""
    for name, tensor in backbone.items():
        if not name.endswith((".running_mean", ".running_var")):
            continue
        weight = backbone.get(f"{name.rpartition('.')[0]}.weight")
        if weight is None:
            continue
        stored, gamma = (check_tensor(foreign.tree, name, t) for t in (tensor, weight))
        if len(stored.shape) == len(gamma.shape) == 1 and _parts(stored, gamma) > 1:
            backbone[name] = stored.then(partial(_mean_of_parts, width=gamma.shape[0]))


def _parts(tensor: Stored, weight: Stored) -> int:
    """How many times the width of `weight` fits into `tensor`; 0 if not evenly."""
    (length,), (width,) = tensor.shape, weight.shape
    return length // width if width and not length % width else 0


def _mean_of_parts(tensor: torch.Tensor, *, width: int) -> torch.Tensor:
    return tensor.view(-1, width).mean(0)


def _fold_input_norm(foreign: ForeignTensors, backbone: Raw, norm: Raw) -> Preprocess:
    """The input that has been through ImageNet's statistics and then through `norm`.

    A channel whose gamma is negative is turned round in the first convolution instead.
    """
    path = foreign.tree.path
    shapes = {name: check_tensor(foreign.tree, name, t).shape for name, t in norm.items()}
    if shapes != dict.fromkeys(("weight", "bias", "running_mean", "running_var"), (3,)):
        raise UserError(f"{path}: what stands before its first convolution is no batch norm of 3")
    gamma, beta, mean, var = (
        float_tensor(foreign.tree, name, norm[name]).double()
        for name in ("weight", "bias", "running_mean", "running_var")
    )
    if not bool((gamma != 0).all()):
        raise UserError(f"{path}: the batch norm of its input leaves out a channel (gamma 0)")
    sigma = (var + BN_EPS).sqrt() / gamma
    std, shift = (torch.tensor(values, dtype=torch.float64) for values in (STD, MEAN))
    shift += std * (mean - beta * sigma)
    signs = gamma.sign().float()[:, None, None]
    conv = check_tensor(foreign.tree, "conv1.weight", backbone["conv1.weight"])
    backbone["conv1.weight"] = conv.then(lambda t: t * signs.to(t.device))
    foreign.count("tensors of the input's batch norm, now in mean and std", len(norm))
    return Preprocess(
        size=64,  # the CLI's own, unless it is told otherwise
        resize=64,
        mean=tuple(shift.tolist()),
        std=tuple((std * sigma.abs()).tolist()),
    )


def _head(foreign: ForeignTensors, backbone: str, first: Raw) -> Head | None:
    """The projection head on the encoder with prefix `backbone`, after the 1x1 convolution `first`.

    None where there is none, and for DINO's, which has GELUs.
    """
    prefix, older = (backbone.replace("backbone", f"projection_{end}") for end in ("head", "mlp"))
    if any(name.startswith(f"{prefix}last_layer.") for name in foreign.left):
        return None
    tensors: Raw = {}
    for start in (f"{prefix}layers.", prefix, f"{older}layers."):
        tensors |= foreign.take(start)
    return foreign.head(tensors, after=first)
