"""Which ResNet a set of torchvision names and shapes is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visrep.errors import UserError
from visrep.nn.resnet import BLOCKS
from visrep.weights.canonical import build, differences, shapes_of

Shape = tuple[int, ...]

NAME = re.compile(
    r"(conv1\.weight|bn1\.\w+|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.\w+|downsample\.0\.weight|"
    r"downsample\.1\.\w+))"
)
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")


def infer(shapes: Mapping[str, Shape], path: Path, *, padding: str = "torch") -> dict[str, Any]:
    """The backbone's description from the names and shapes of its tensors (counters left out).

    Raises:
        UserError: it is no ResNet that visrep holds; the message says in what it differs.
    """
    blocks = tuple(
        len({match[2] for match in map(_BLOCK.match, shapes) if match and match[1] == str(stage)})
        for stage in (1, 2, 3, 4)
    )
    bottleneck = "layer1.0.conv3.weight" in shapes
    depths = [d for d, counts in BLOCKS.items() if counts == blocks and (d >= 50) == bottleneck]
    if not depths:
        raise UserError(
            f"{path}: its stages have {', '.join(map(str, blocks))} "
            f"{'bottleneck' if bottleneck else 'basic'} blocks; visrep holds ResNets of depth "
            f"{', '.join(map(str, BLOCKS))}"
        )
    stem = shapes["conv1.weight"]
    if stem[1:] != (3, 7, 7):
        raise UserError(
            f"{path}: its first convolution is {'x'.join(map(str, stem))}; with these names visrep "
            "reads nets that begin with a 7x7 convolution of 3 channels, whose stride is known"
        )
    width = stem[0] / 64
    spec = {
        "depth": depths[0],
        "width": int(width) if width.is_integer() else width,
        "sk": False,
        "stem": "imagenet",
        "padding": padding,
    }
    difference = differences(shapes_of(build(spec)), shapes)
    if difference:
        raise UserError(
            f"{path}: it is close to a ResNet-{depths[0]} of width {width:g}, but {difference}; "
            "visrep holds no ResNeXt, no ResNet that is wide inside its blocks only, and no "
            "attention but selective kernels"
        )
    return spec
