"""SimCLR (arXiv 2002.05709) as sthalles/SimCLR trains it on STL-10 or CIFAR-10.

`{epoch, arch, state_dict, optimizer}` with torchvision's ResNet as `backbone`, whose `fc` is the
projection head: linear, ReLU, linear. Releases before 2021 save a bare state dict: the net's
children in a row as `features`, and the head as `l1` and `l2`.

Its images are in [0, 1], without mean and standard deviation, and the stem is ImageNet's on small
images too. Which of the two data sets it was is not in the file.
"""

from dataclasses import replace

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, unnormalised, unwrap
from visrep.weights.naming import CHILDREN

NAME = "sthalles/SimCLR"
_NOTE = (
    "the file does not name its data set: STL-10's 96 px are assumed, else give input=cifar10; "
    "images are not normalised, and the stem is ImageNet's, max-pool included"
)


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict")[0].keys()
    if any(name.startswith(("backbone.fc.1.", "projection_head.")) for name in names):
        return False
    new = {"backbone.conv1.weight", "backbone.fc.0.weight", "backbone.fc.2.weight"}
    old = {"features.0.weight", "features.4.0.conv1.weight", "l1.weight", "l2.weight"}
    return new <= names or old <= names


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """`choice.input` names the data set of the training, whose size is taken.

    Raises:
        UserError: see `encoder_file`.
    """
    tensors, place = unwrap(tree, "state_dict")
    foreign = ForeignTensors(tree, tensors)
    if "l1.weight" in tensors:
        linears = {f"{i}.{k}": t for i in (1, 2) for k, t in foreign.take(f"l{i}.").items()}
        head, backbone = foreign.head(linears), foreign.take("features.", _in_a_row)
    else:
        head = foreign.head(foreign.take("backbone.fc."))
        backbone = foreign.take("backbone.")
    return encoder_file(
        foreign,
        backbone,
        choice=replace(choice, input=None),
        head=head,
        source={"format": NAME, **place},
        preprocess=unnormalised(choice.input or "stl10"),
        note="" if choice.input else _NOTE,
    )


def _in_a_row(name: str) -> str | None:
    child, _, rest = name.partition(".")
    return f"{CHILDREN[child]}.{rest}" if child in CHILDREN else None
