"""MoCo v1 and v2 (arXiv 1911.05722, 2003.04297) as their training script saves them.

`{epoch, arch, state_dict, optimizer}`. The query encoder and its average over the steps, the key
encoder, are torchvision's ResNets whose `fc` is the projection head: one linear layer (v1) or
linear, ReLU, linear (v2). The state dict of a linear evaluation is torchvision's.
"""

import re

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, pick, unwrap

NAME = "MoCo"
_ENCODERS = {"query": "encoder_q.", "key": "encoder_k."}


def recognise(tree: Tree) -> bool:
    return "encoder_q.conv1.weight" in unwrap(tree, "state_dict")[0]


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """The query encoder, or `encoder=key`. Raises UserError, see `encoder_file`."""
    tensors, place = unwrap(tree, "state_dict")
    foreign = ForeignTensors(tree, tensors)
    present = {name: p for name, p in _ENCODERS.items() if f"{p}conv1.weight" in tensors}
    encoder, prefix, others = pick(present, choice)
    head = foreign.head(foreign.take(f"{prefix}fc."))
    backbone = foreign.take(prefix)
    for other in others:
        foreign.drop(f"tensors of the {other} encoder", re.escape(present[other]))
    foreign.drop("tensors of the queue", r"queue(_ptr)?$")
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        encoder=encoder,
        alternatives=others,
        source={"format": NAME, **place},
    )
