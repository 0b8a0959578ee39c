"""solo-learn's Lightning checkpoints, of pretraining and of linear evaluation.

`backbone` is a torchvision ResNet without `fc` (`encoder` in older releases), `momentum_backbone`
its average over the steps, DINO's teacher. For CIFAR its first convolution is 3x3, padded by 2.

What is not in the file is the data set, by which solo-learn chooses mean and standard deviation;
and whether the head has ReLUs, which all have but DINO's (told by its prototypes) and VIbCReg's.
"""

import re
from collections.abc import Collection

from visrep.weights.containers.tree import Tree, check_tensor
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import INPUTS, Choice, ForeignTensors, encoder_file, pick, unwrap

NAME = "solo-learn"
_GROUPS = {
    "tensors of the predictor": r"predictor2?\.",
    "tensors of further heads": r"(momentum_)?(projector|head)\.|transformer_encoder\.",
    "tensors of the online classifiers": r"(momentum_)?classifier\.",
    "sets of prototypes": r"prototypes\.",
    "tensors of the queue": r"queue(_\w+)?$|local_memory_(index|embeddings)$",
    "tensors of the loss": r"dino_loss_func\.",
}


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict")[0].keys()
    lightning = isinstance(tree.value, dict) and "pytorch-lightning_version" in tree.value
    return lightning and "classifier.weight" in names and bool(_backbones(names))


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """The encoder that gradients train, or `encoder=momentum` (DINO's: `encoder=teacher`).

    Raises UserError, see `encoder_file`.
    """
    tensors, place = unwrap(tree, "state_dict")
    foreign = ForeignTensors(tree, tensors)
    prefixes = _backbones(tensors.keys())
    dino = "head.last_layer.weight_g" in tensors or "head.last_layer.weight_v" in tensors
    names = ("student", "teacher") if dino else ("online", "momentum")
    encoders = dict(zip(names if len(prefixes) > 1 else [""], prefixes, strict=False))
    encoder, prefix, others = pick(encoders, choice)
    start = "momentum_" if prefix.startswith("momentum_") else ""
    backbone = foreign.take(prefix)
    vibcreg = any(name.startswith("projector.7.running_wm") for name in tensors)
    head = None if vibcreg else foreign.head(foreign.take(f"{start}projector."))
    fc = foreign.take(f"{start}classifier.") if head is None else {}
    for other in others:
        foreign.drop(f"tensors of the {other} encoder", re.escape(encoders[other]))
    for group, pattern in _GROUPS.items():
        foreign.drop(group, pattern)
    first = check_tensor(tree, f"{prefix}conv1.weight", backbone["conv1.weight"])
    cifar = tuple(first.shape[2:]) == (3, 3)
    data = "cifar10" if cifar else "imagenet"
    others_data = ", ".join(name for name in INPUTS if name != data)
    note = f"the file does not name its data set: {data}'s mean and std are assumed, else give "
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        fc=fc or None,
        preprocess=INPUTS[data],
        note="" if choice.input else f"{note}input= one of {others_data}",
        encoder=encoder,
        alternatives=others,
        source={"format": NAME, **place},
        stem="cifar_pad2" if cifar else None,
    )


def _backbones(names: Collection[str]) -> list[str]:
    """Prefixes of the encoders that are there, the one that gradients train first."""
    prefixes = ("backbone.", "encoder.", "momentum_backbone.", "momentum_encoder.")
    return [prefix for prefix in prefixes if f"{prefix}conv1.weight" in names]
