"""Instance discrimination (NPID, arXiv 1805.01978) as lemniscate.pytorch saves it.

ImageNet: `{epoch, arch, state_dict, lemniscate, best_prec1, optimizer}`, torchvision's ResNet with
an `fc` to 128 numbers. CIFAR-10: `{net, lemniscate, acc, epoch}`, a ResNet with a 3x3 stem and no
max-pool, whose downsampling is called `shortcut` and whose `fc` is called `linear`. `lemniscate` is
a whole pickled module, the memory of all images: it stays a record, and only its tensors are
counted.
"""

from visrep.data.preprocess import Preprocess
from visrep.weights.containers.tree import Tree, tensors_in
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, unwrap

NAME = "NPID"
CIFAR = Preprocess(size=32, resize=32, mean=(0.4914, 0.4822, 0.4465), std=(0.2023, 0.1994, 0.2010))


def recognise(tree: Tree) -> bool:
    names = unwrap(tree, "state_dict", "net")[0].keys()
    with_memory = isinstance(tree.value, dict) and "lemniscate" in tree.value
    return with_memory and {"conv1.weight", "layer1.0.conv1.weight"} <= names


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`."""
    tensors, place = unwrap(tree, "state_dict", "net")
    foreign = ForeignTensors(tree, tensors)
    cifar = "linear.weight" in tensors
    head = foreign.head(foreign.take("linear." if cifar else "fc."))
    backbone = foreign.take("", lambda name: name.replace(".shortcut.", ".downsample."))
    foreign.count("tensors of the memory", len(list(tensors_in(tree.value["lemniscate"]))))
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        head=head,
        preprocess=CIFAR if cifar else None,
        source={"format": NAME, **place},
        stem="cifar" if cifar else None,
    )
