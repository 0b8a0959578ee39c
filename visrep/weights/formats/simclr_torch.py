"""SimCLR v2 as SimCLRv2-Pytorch converts it: `{"resnet": ..., "head": ...}`.

VISSL's trunk `resnet_sk` is the same net under the same names. The weights are TensorFlow's, so
padding is `tf`, which the port does not follow; `padding=torch` is the net as the port runs it.
"""

import re
from collections.abc import Callable, Iterable

from visrep.data.preprocess import Preprocess
from visrep.weights.containers.tree import Tree, float_tensor
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Head, encoder_file
from visrep.weights.head_choice import head_or_classifier

NAME = "SimCLRv2-Pytorch checkpoint"
_STEM = {"0": "conv1", "1.0": "bn1"}
_DEEP_STEM = {
    "0": "conv1.0",
    "1.0": "conv1.1",
    "2": "conv1.3",
    "3.0": "conv1.4",
    "4": "conv1.6",
    "5.0": "bn1",
}
_BLOCK = {
    "projection.shortcut": "downsample.0",
    "projection.shortcut.2": "downsample.0",
    "projection.bn.0": "downsample.1",
    "net.0": "conv1",
    "net.1.0": "bn1",
    "net.2": "conv2",
    "net.3.0": "bn2",
    "net.4": "conv3",
    "net.5.0": "bn3",
    "net.2.main_conv.0": "sk.conv",
    "net.2.main_conv.1.0": "sk.bn",
    "net.2.mixing_conv.0": "sk.squeeze",
    "net.2.mixing_conv.1.0": "sk.squeeze_bn",
    "net.2.mixing_conv.2": "sk.excite",
    "net.3": "conv3",
    "net.4.0": "bn3",
}
_NAME = re.compile(r"net\.(?:0\.(\d(?:\.0)?)|([1-4])\.blocks\.(\d+)\.([\w.]+))\.(\w+)")


def recognise(tree: Tree) -> bool:
    value = tree.value
    if not isinstance(value, dict) or set(value) != {"resnet", "head"}:
        return False
    return isinstance(value["resnet"], dict) and "net.0.0.weight" in value["resnet"]


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the architecture is none that visrep holds."""
    tensors = {f"{part}.{k}": t for part in tree.value for k, t in _items(tree, part)}
    foreign = ForeignTensors(tree, tensors)
    backbone = foreign.take("resnet.", renaming(tree.value["resnet"]))
    fc = foreign.take("resnet.fc.")
    head, fc = head_or_classifier(foreign, choice, _head(foreign), fc, sits_on=None)
    return encoder_file(
        foreign,
        backbone,
        choice=choice,
        source={"format": NAME},
        preprocess=preprocess(),
        head=head,
        fc=fc,
        padding="tf",
    )


def renaming(names: Iterable[str]) -> Callable[[str], str | None]:
    """From the port's name of a tensor to ours; None for a name of none of its modules.

    Args:
        names: of the whole net, which tell a stem of one convolution from one of three.
    """
    stem = _DEEP_STEM if "net.0.4.weight" in names else _STEM

    def ours(name: str) -> str | None:
        match = _NAME.fullmatch(name)
        if match is None:
            return None
        of_stem, stage, block, inner, kind = match.groups()
        module = stem.get(of_stem) if of_stem else _BLOCK.get(inner)
        if module is None:
            return None
        return f"{module}.{kind}" if of_stem else f"layer{stage}.{block}.{module}.{kind}"

    return ours


def preprocess(size: int = 224) -> Preprocess:
    """SimCLR's input: RGB in [0, 1] without mean and standard deviation.

    ImageNet's is TensorFlow 1's bicubic resize of the central square of 7/8 of the short side; 32
    px is CIFAR's as it is.
    """
    resize = None if size == 32 else 256 * size // 224
    zero, one = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    return Preprocess(
        size=size,
        resize=resize,
        mean=zero,
        std=one,
        interpolation="bicubic_tf1",
        antialias=False,
    )


def _items(tree: Tree, part: str) -> Iterable[tuple[str, object]]:
    content = tree.value[part]
    return content.items() if isinstance(content, dict) else [("", content)]


def _head(foreign: ForeignTensors) -> Head | None:
    """The beta of its last batch norm is TensorFlow's absent one, a zero that is never trained."""
    tensors = foreign.take("head.layers.")
    if not tensors:
        return None
    last = f"{max(map(_place, tensors))}.bias"
    beta = tensors.get(last)
    if beta is not None and not float_tensor(foreign.tree, f"head.layers.{last}", beta).any():
        del tensors[last]
        foreign.count("of the head's last beta, which is zero", 1)
    return foreign.head(tensors)


def _place(name: str) -> int:
    place = name.partition(".")[0]
    return int(place) if place.isdecimal() else -1
