"""SwAV, and DeepCluster v2 and SeLa v2 as its authors trained them (arXiv 2006.09882).

Published as a bare state dict; the training script saves `{epoch, state_dict, optimizer}`. The
projection head and one or several sets of prototypes stand beside torchvision's names, and every
width is multiplied by 1 to 5. The first convolution pads by 2 what was padded by 1 before, which is
a padding of 3.

The standard deviation of the red channel is 0.228 in their code, where everybody else has 0.229.
"""

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import MEAN, Choice, ForeignTensors, encoder_file, unwrap

NAME = "SwAV"
STD = (0.228, 0.224, 0.225)
_PROTOTYPES = "sets of prototypes"


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict")[0]
    parts = {name.partition(".")[0] for name in names}
    if "linear.weight" in names and parts <= {"linear", "bn"}:
        return True
    beside = {"projection_head", "prototypes"} & parts
    return bool(beside) and {"conv1.weight", "layer1.0.conv1.weight"} <= names.keys()


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`; or it is a linear classifier without its backbone."""
    tensors, place = unwrap(tree, "state_dict")
    if "conv1.weight" not in tensors:
        raise UserError(
            f"{tree.path} holds the linear classifier alone that SwAV's evaluation trained: give "
            "the file of its pretraining, which has the backbone"
        )
    foreign = ForeignTensors(tree, tensors)
    foreign.drop(_PROTOTYPES, r"prototypes\.")
    # Their script for finetuning names its classifier so, and keeps no prototypes.
    finetuned = "projection_head.weight" in foreign.left and not foreign.dropped.get(_PROTOTYPES)
    fc = foreign.take("projection_head.") if finetuned else None
    head = foreign.head(foreign.take("projection_head."))
    return encoder_file(
        foreign,
        foreign.take(""),
        choice=choice,
        head=head,
        fc=fc,
        preprocess=Preprocess(size=224, resize=256, mean=MEAN, std=STD),
        source={"format": NAME, **place},
    )
