"""SimCLR (arXiv 2002.05709) as Spijkervet/SimCLR trains it.

A bare state dict: torchvision's ResNet without `fc` as `encoder`, and `projector`, which is linear,
ReLU, linear without biases. Trained by Lightning, both are under `model.` in `state_dict`.

Its images are in [0, 1], without mean and standard deviation, resized to 224 px unless its
configuration says another `image_size`, which is not in the file. Its `modify_resnet_model` makes a
3x3 stem and may move the strides of bottlenecks: such a file is asked for its stem.
"""

from dataclasses import replace

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Raw, encoder_file, unnormalised, unwrap

NAME = "Spijkervet/SimCLR"
_NOTE = (
    "the file does not say its image_size: 224 px are assumed, else give input= the data set; "
    "images are not normalised"
)
_STRIDES = "the strides of the bottlenecks are taken to be in their 3x3 convolutions"
_OTHERS = ("projector.1.", "predictor.", "classifier.")


def recognise(tree: Tree) -> bool:
    names = _state_dict(tree)[0].keys()
    ours = {"encoder.conv1.weight", "projector.0.weight", "projector.2.weight"}
    return ours <= names and not any(name.startswith(_OTHERS) for name in names)


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """`choice.input` names the data set of the training, whose size is taken.

    Raises:
        UserError: see `encoder_file`.
    """
    tensors, place = _state_dict(tree)
    foreign = ForeignTensors(tree, tensors)
    head = foreign.head(foreign.take("projector."))
    backbone = foreign.take("encoder.")
    shown = unnormalised(choice.input or "imagenet")
    moved = choice.stem is not None and "layer1.0.conv3.weight" in backbone
    notes = [*([] if choice.input else [_NOTE]), *([_STRIDES] if moved else [])]
    return encoder_file(
        foreign,
        backbone,
        choice=replace(choice, input=None),
        head=head,
        source={"format": NAME, **place},
        preprocess=replace(shown, resize=shown.size),
        note="; ".join(notes),
    )


def _state_dict(tree: Tree) -> tuple[Raw, dict[str, str]]:
    """The state dict without `model.`, which Lightning puts first."""
    tensors, place = unwrap(tree, "state_dict")
    if "model.encoder.conv1.weight" not in tensors:
        return tensors, place
    plain = {name.removeprefix("model."): tensor for name, tensor in tensors.items()}
    return plain, {**place, "prefix": "model."}
