"""SimCLR (arXiv 2002.05709) as lightning-bolts trains it.

A Lightning checkpoint, or its state dict alone: a ResNet as `encoder` with an `fc` that nothing
uses, and the head as `projection.model`: linear, batch norm, ReLU, linear.

`hyper_parameters` name the data set, which decides mean and standard deviation, and say whether the
net begins with a 7x7 convolution (`first_conv`) and whether a max-pool follows (`maxpool1`): for
CIFAR-10 it has neither, for STL-10 the convolution alone, which visrep's nets have not.
"""

from dataclasses import replace
from typing import Any

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.containers.tree import Tree, check_tensor
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import MEAN, STD, Choice, ForeignTensors, encoder_file, unwrap

NAME = "SimCLR of lightning-bolts"
# Its evaluation resizes to a tenth more than it crops.
_INPUTS = {
    "imagenet": Preprocess(size=224, resize=246, mean=MEAN, std=STD),
    "cifar10": Preprocess(
        size=32,
        resize=35,
        mean=(125.3 / 255, 123.0 / 255, 113.9 / 255),
        std=(63.0 / 255, 62.1 / 255, 66.7 / 255),
    ),
    "stl10": Preprocess(size=96, resize=105, mean=(0.43, 0.42, 0.39), std=(0.27, 0.26, 0.27)),
}


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict")[0].keys()
    return {"encoder.conv1.weight", "projection.model.0.weight"} <= names


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`; or the net has no max-pool after a 7x7 convolution."""
    tensors, place = unwrap(tree, "state_dict")
    settings = _settings(tree)
    foreign = ForeignTensors(tree, tensors)
    foreign.drop("of a classifier that was not trained", r"encoder\.fc\.")
    foreign.drop("of the online classifier", r"(non_linear|online)_evaluator\.")
    head = foreign.head(foreign.take("projection.model."))
    backbone = foreign.take("encoder.")
    first = check_tensor(tree, "encoder.conv1.weight", backbone["conv1.weight"])
    data = choice.input or settings.get("dataset")
    shown = _INPUTS.get(data) if isinstance(data, str) else None
    notes = []
    if shown is None and not choice.input:
        notes.append("the file does not name its data set: ImageNet's mean and std are assumed")
    stem = _stem(tree, settings.get("maxpool1"), tuple(first.shape[2:]), notes)
    return encoder_file(
        foreign,
        backbone,
        choice=replace(choice, input=None) if shown else choice,
        head=head,
        source={"format": NAME, **place},
        preprocess=shown or _INPUTS["imagenet"],
        note="; ".join(notes),
        stem=stem,
    )


def _settings(tree: Tree) -> dict[Any, Any]:
    value = tree.value.get("hyper_parameters")
    value = value.fields() if isinstance(value, Inert) else value
    return value if isinstance(value, dict) else {}


def _stem(tree: Tree, pool: object, kernel: tuple[int, ...], notes: list[str]) -> str | None:
    """`cifar` for a 3x3 convolution without a max-pool; None for what the shapes say or ask for.

    What has to be assumed goes into `notes`.

    Args:
        pool: whether a max-pool follows the first convolution; a bool, if the file says it.
        kernel: of the first convolution.

    Raises:
        UserError: visrep's nets have no such stem.
    """
    if not isinstance(pool, bool):
        if kernel == (7, 7):
            notes.append(
                "the file does not say whether a max-pool follows its first convolution: one is "
                "assumed, which a net for STL-10 has not"
            )
        return None
    if pool != (kernel == (7, 7)):
        size, pooled = "x".join(map(str, kernel)), "a" if pool else "no"
        raise UserError(
            f"{tree.path}: its stem is a {size} convolution with {pooled} max-pool (maxpool1="
            f"{pool}); visrep's nets have a max-pool after 7x7 and none after 3x3"
        )
    return None if pool else "cifar"
