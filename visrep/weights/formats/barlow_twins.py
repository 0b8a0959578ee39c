"""Barlow Twins (arXiv 2103.03230): the checkpoint that its training script goes on from.

`{epoch, model, optimizer}`. What it publishes, `resnet50.pth`, is torchvision's state dict without
`fc`, and what its evaluation saves is torchvision's with `fc`.
"""

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, unwrap

NAME = "Barlow Twins"


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "model")[0]
    return {"backbone.conv1.weight", "projector.0.weight", "bn.running_mean"} <= names.keys()


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`."""
    tensors, place = unwrap(tree, "model")
    foreign = ForeignTensors(tree, tensors)
    head = foreign.head(foreign.take("projector."))
    backbone = foreign.take("backbone.")
    foreign.drop("statistics of the batch norm in the loss", r"bn\.running_(mean|var)$")
    source = {"format": NAME, **place}
    return encoder_file(foreign, backbone, choice=choice, head=head, source=source)
