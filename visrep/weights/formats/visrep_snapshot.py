"""A snapshot of visrep's own pretraining: its encoder and head, of an interrupted run for example.

A snapshot holds the method's modules; what they are and what their input goes through lies beside
it, in the run folder's `encoder.json`, which `visrep pretrain` writes before its first step.
"""

import json
from typing import Any

from visrep.errors import UserError
from visrep.weights.containers.tree import AGAIN, OnDemand, Tree
from visrep.weights.encoder_file import EncoderFile, mismatch
from visrep.weights.foreign import Choice, ForeignTensors

NAME = "visrep snapshot"
DESCRIPTION = "encoder.json"


def recognise(tree: Tree) -> bool:
    value = tree.value
    if not isinstance(value, dict) or not {"task", "optimizer"} <= value.keys():
        return False
    return isinstance(value["task"], dict)


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """The encoder that gradients train, and its head.

    Raises:
        UserError: the run's description is not beside the snapshot, or does not fit it; or the
            snapshot is of a training that is no pretraining.
    """
    folder = tree.path.absolute().parent.parent
    path = folder / DESCRIPTION
    try:
        about: Any = json.loads(path.read_text(encoding="utf-8"))
        known = {key: about[key] for key in ("backbone", "preprocess", "head", "source")}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(
            f"{tree.path} is a snapshot of visrep, and {path}, which says what net it holds, is "
            "missing or damaged: go on with the run (resume=auto), or give its encoder.safetensors"
        ) from error
    foreign = ForeignTensors(tree, tree.value["task"])
    raw = foreign.take("encoder.")
    if known["head"] is not None:
        raw |= {f"head.{name}": tensor for name, tensor in foreign.take("head.").items()}
    foreign.drop("tensors of the method's other parts", "")
    tensors = OnDemand(tree, raw)
    file = EncoderFile(
        tensors=tensors if choice.on_demand else dict(tensors), **known, dropped=foreign.dropped
    )
    problem = mismatch(file)
    if problem:
        raise UserError(f"{tree.path}: {problem}; {AGAIN}")
    return file
