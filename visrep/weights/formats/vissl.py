"""VISSL: checkpoints of its training, and the files of its model zoo that were converted to it.

A training saves `classy_state_dict / base_model / model / {trunk, heads}`, with an average of the
weights as `ema_model` beside `base_model` where it kept one. Momentum encoders and queues belong to
the loss: the trunk is the query. Converted files are the trunk in `model_state_dict`, or bare. The
trunk has torchvision's names under `_feature_blocks.`, in feature extraction under
`base_model._feature_blocks.`; every width may be multiplied.

A single linear layer on the trunk is a classifier, unless the loss holds a queue or a memory of
features that it was trained against. That of a linear evaluation has a batch norm of the features
before it, which goes into its weights.

The trunk `resnet_sk` is SimCLR v2's net under SimCLRv2-Pytorch's names, and read as that. Other
trunks say nothing of their origin: BYOL's ResNet-200 came from haiku and needs `padding=haiku`.
"""

import re
from typing import Any

from visrep.errors import UserError
from visrep.weights.containers.tree import Tree, check_tensor, float_tensor, tensors_in
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Head, Raw, encoder_file, pick
from visrep.weights.formats import simclr_torch
from visrep.weights.naming import feature_width

NAME = "VISSL"
_TRUNK = re.compile(r"trunk\.(?:base_model\.)?_feature_blocks\.")
_PORT = re.compile(r"(trunk\.(?:base_model\.)?)net\.0\.0\.weight")  # of SimCLRv2-Pytorch
_HEAD = re.compile(r"heads\.(\d+)\.(?:clf|projection_head)\.(\d+)\.(\w+)")
_LINEAR = re.compile(r"heads\.0\.clf\.(?:clf\.)?0\.(?:weight|bias)")
_NORM = "heads.0.channel_bn."  # of a linear evaluation
_STATISTICS = ("weight", "bias", "running_mean", "running_var")
_BN_EPS = 1e-5
_PARTS = ("shard_list", "slice_list", "shard")
_MODELS = {"raw": "base_model", "ema": "ema_model"}


def recognise(tree: Tree) -> bool:
    value = tree.value
    if not isinstance(value, dict):
        return False
    if "classy_state_dict" in value or _type(value) in _PARTS:
        return True
    names = _flat(value.get("model_state_dict", value))
    return any(_TRUNK.match(name) or _PORT.match(name) for name in names)


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the checkpoint is spread over files, or its trunk is no ResNet."""
    if _type(tree.value) in _PARTS:
        raise UserError(
            f"{tree.path} is one part of a VISSL checkpoint in several files: make one file of "
            "them with VISSL's convert_sharded_checkpoint.py"
        )
    nets = _nets(tree)
    if not nets:
        raise UserError(f"{tree.path} looks like VISSL, but has no trunk; give a file of its model")
    encoder, tensors, others = pick(nets, choice)
    foreign = ForeignTensors(tree, tensors)
    backbone, input_and_padding = _trunk(foreign)
    width = feature_width(backbone)
    fc, note = _classifier(foreign, width, contrasted=_holds_memory(tree))
    head = None if fc else _head(foreign, width)
    foreign.drop("prototypes", r"heads\.\d+\.prototypes\d+\.")
    foreign.drop("linear probes and other heads", r"heads\.")
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        fc=fc,
        note=note,
        source={"format": NAME},
        encoder=encoder if others else "",
        alternatives=others,
        **input_and_padding,
    )


def _trunk(foreign: ForeignTensors) -> tuple[Raw, dict[str, Any]]:
    """The backbone, and the input and padding of one that was TensorFlow's.

    Raises:
        UserError: it is no ResNet.
    """
    port = next(filter(None, map(_PORT.fullmatch, foreign.left)), None)
    if port:
        start = port[1]
        names = [name.removeprefix(start) for name in foreign.left]
        backbone = foreign.take(start, simclr_torch.renaming(names))
        return backbone, {"preprocess": simclr_torch.preprocess(), "padding": "tf"}
    prefixes = {match[0] for name in foreign.left if (match := _TRUNK.match(name))}
    if len(prefixes) != 1 or f"{(prefix := prefixes.pop())}conv1.weight" not in foreign.left:
        raise UserError(
            f"{foreign.tree.path}: its VISSL trunk is no ResNet: it has no _feature_blocks.conv1"
        )
    return foreign.take(prefix), {}


def _holds_memory(tree: Tree) -> bool:
    """Whether the loss remembers features, as MoCo's and NPID's do."""
    value = tree.value.get("classy_state_dict", {})
    losses = [held.get("loss") for held in (tree.value, value) if isinstance(held, dict)]
    return any(True for loss in losses for _ in tensors_in(loss))


def _classifier(foreign: ForeignTensors, width: int, *, contrasted: bool) -> tuple[Raw | None, str]:
    """The only head, if it is one linear layer on the trunk's features, and what was assumed.

    Args:
        width: of the features.
        contrasted: the outputs of a head are compared with remembered ones: it is no classifier.
    """
    names = [name for name in foreign.left if name.startswith("heads.")]
    linear = {name.rpartition(".")[2]: name for name in names if _LINEAR.fullmatch(name)}
    norm = {name.rpartition(".")[2]: name for name in names if name.startswith(_NORM)}
    if set(linear) != {"weight", "bias"} or len(linear) + len(norm) != len(names):
        return None, ""
    shapes = {
        name: check_tensor(foreign.tree, name, foreign.left[name]).shape
        for name in (*linear.values(), *norm.values())
    }
    if shapes[linear["weight"]][1:] != (width,):
        return None, ""
    if not norm and not contrasted:
        fc = foreign.take("heads.", lambda name: name.rpartition(".")[2])
        return fc, "its head, one linear layer, is taken for a classifier"
    if {kind: shapes[name] for kind, name in norm.items()} != dict.fromkeys(_STATISTICS, (width,)):
        return None, ""
    fc = _folded(foreign, linear, norm)
    foreign.drop("of the classifier's batch norm, now in its weights", re.escape(_NORM))
    foreign.take("heads.")
    return fc, ""


def _folded(foreign: ForeignTensors, linear: Raw, norm: Raw) -> Raw:
    """Weight and bias that give of features what `linear` gives of those behind `norm`.

    linear, norm: names of the tensors by what they are.
    """
    gamma, beta, mean, var, weight, bias = (
        float_tensor(foreign.tree, name, foreign.left[name]).double()
        for name in (*(norm[kind] for kind in _STATISTICS), linear["weight"], linear["bias"])
    )
    scale = gamma / (var + _BN_EPS).sqrt()
    shifted = bias + weight @ (beta - mean * scale)
    return {
        "weight": foreign.left[linear["weight"]].then(
            lambda t: (t.double() * scale.to(t.device)).float()
        ),
        "bias": foreign.left[linear["bias"]].then(lambda t: shifted.float().to(t.device)),
    }


def _type(value: dict[Any, Any]) -> str:
    kind = value.get("type")
    return kind if isinstance(kind, str) else ""


def _nets(tree: Tree) -> dict[str, Raw]:
    """Encoder -> its tensors under `trunk.` and `heads.`."""
    value = tree.value
    if "classy_state_dict" not in value:
        return {"": _flat(value.get("model_state_dict", value))}
    nets = {}
    for encoder, key in _MODELS.items():
        model = value["classy_state_dict"]
        for name in (key, "model"):
            model = model.get(name) if isinstance(model, dict) else None
        if isinstance(model, dict) and isinstance(model.get("trunk"), dict):
            heads = model.get("heads")
            nets[encoder] = {f"trunk.{name}": t for name, t in model["trunk"].items()}
            nets[encoder] |= {
                f"heads.{name}": t for name, t in (heads if isinstance(heads, dict) else {}).items()
            }
    return nets


def _flat(value: object) -> Raw:
    """A converted state dict, its trunk under `trunk.` whether it was so or not."""
    named = (
        {k: t for k, t in value.items() if isinstance(k, str)} if isinstance(value, dict) else {}
    )
    return {k if k.startswith(("trunk.", "heads.")) else f"trunk.{k}": t for k, t in named.items()}


def _head(foreign: ForeignTensors, width: int) -> Head | None:
    """The projection head, whose layers may be spread over heads that follow one another.

    Heads beside one another, as of linear probes of several layers, do not fit end to end: they are
    left where they are. Every head but the last ends in a ReLU.

    Args:
        width: of the features.
    """
    places = {}
    for name in foreign.left:
        match = _HEAD.fullmatch(name)
        if match:
            places[name] = (int(match[1]), int(match[2]), match[3])
    if not places or any(".channel_bn." in name for name in foreign.left):
        return None
    order = sorted({place[:2] for place in places.values()})
    ours = {name: f"{order.index(place[:2])}.{place[2]}" for name, place in places.items()}
    for name in sorted(places, key=places.__getitem__):
        shape = foreign.left[name].shape
        if len(shape) == 2:
            if shape[1] != width:
                return None
            width = shape[0]
    return foreign.head(foreign.take("", ours.get))
