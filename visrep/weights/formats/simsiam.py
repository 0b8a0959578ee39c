"""SimSiam (arXiv 2011.10566) as its training script saves it.

`{epoch, arch, state_dict, optimizer}`. The encoder is a torchvision ResNet whose `fc` is the
projection head of three layers, the last with a bias that is not trained and a batch norm without
gamma and beta.
"""

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, unwrap

NAME = "SimSiam"


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict")[0]
    return {"encoder.conv1.weight", "encoder.fc.0.weight", "predictor.0.weight"} <= names.keys()


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`."""
    tensors, place = unwrap(tree, "state_dict")
    foreign = ForeignTensors(tree, tensors)
    head = foreign.head(foreign.take("encoder.fc."))
    backbone = foreign.take("encoder.")
    foreign.drop("tensors of the predictor", r"predictor\.")
    source = {"format": NAME, **place}
    return encoder_file(foreign, backbone, choice=choice, head=head, source=source)
