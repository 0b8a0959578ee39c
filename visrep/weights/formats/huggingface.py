"""ResNets of Hugging Face's transformers: `model.safetensors` or `pytorch_model.bin`.

`resnet.embedder.`, `resnet.encoder.` and `classifier.1`, or without `resnet.` as the bare model
saves itself. Its config.json is not read: a net with `downsample_in_bottleneck` (stride in the
first 1x1 convolution, false in all that are published by its authors) looks the same.
"""

import re

from visrep.weights.containers.tree import Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, encoder_file, unwrap

NAME = "Hugging Face ResNet"
_KINDS = {"convolution": "conv", "normalization": "bn"}
_STEM = re.compile(r"embedder\.embedder\.(convolution|normalization)\.(\w+)")
_BLOCK = re.compile(
    r"encoder\.stages\.(\d+)\.layers\.(\d+)\.(?:layer\.(\d+)|shortcut)"
    r"\.(convolution|normalization)\.(\w+)"
)


def recognise(tree: Tree) -> bool:
    names = {name.removeprefix("resnet.") for name in unwrap(tree, "state_dict")[0]}
    return {
        "embedder.embedder.convolution.weight",
        "encoder.stages.0.layers.0.layer.0.convolution.weight",
    } <= names


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError, see `encoder_file`."""
    tensors, place = unwrap(tree, "state_dict")
    prefix = "resnet." if "resnet.embedder.embedder.convolution.weight" in tensors else ""
    foreign = ForeignTensors(tree, tensors)
    return encoder_file(
        foreign,
        fc=foreign.take("classifier.1."),
        backbone=foreign.take(prefix, _ours),
        choice=choice,
        source={"format": NAME, **place},
    )


def _ours(name: str) -> str | None:
    stem = _STEM.fullmatch(name)
    if stem:
        return f"{_KINDS[stem[1]]}1.{stem[2]}"
    match = _BLOCK.fullmatch(name)
    if match is None:
        return None
    stage, block, layer, kind, tensor = match.groups()
    place = f"layer{int(stage) + 1}.{block}"
    if layer is None:
        return f"{place}.downsample.{0 if kind == 'convolution' else 1}.{tensor}"
    return f"{place}.{_KINDS[kind]}{int(layer) + 1}.{tensor}"
