"""Which ResNet a set of our names and shapes is."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import BASIC, BLOCKS, DEEP_STEMS
from visrep.weights.encoder_file import build, differences, shapes_of

Shape = tuple[int, ...]

NAME = re.compile(
    r"(conv1\.weight|bn1\.\w+|layer[1-4]\.\d+\.(conv[123]\.weight|bn[123]\.\w+|downsample\.0\.weight|"
    r"downsample\.1\.\w+))"
)
_BLOCK = re.compile(r"layer([1-4])\.(\d+)\.")


def infer(shapes: Mapping[str, Shape], path: Path, **known: Any) -> dict[str, Any]:
    """The backbone's description from the names and shapes of its tensors (counters left out).

    Args:
        known: what the source of the weights says and shapes cannot: `padding`, `stem` (of a 3x3
            first convolution, whose stride no shape shows), `shortcut`, `stride_in_1x1`.

    Raises:
        UserError: it is no ResNet that visrep holds; the message says in what it differs.
    """
    spec = {
        "depth": depth_of(shapes, path),
        "width": 0.0,
        "sk": "layer1.0.sk.conv.weight" in shapes,
        "stem": _stem(shapes, path, known.get("stem")),
        "padding": "torch",
    }
    deep = spec["stem"] in DEEP_STEMS
    width = _outs(shapes, "conv1.6.weight" if deep else "conv1.weight", path) / 64
    spec["width"] = int(width) if width.is_integer() else width
    if spec["depth"] in BASIC:
        if "layer1.0.downsample.0.weight" in shapes:
            spec["project"] = True
    elif not spec["sk"]:
        spec |= _bottleneck(shapes, path)
    spec |= {key: value for key, value in known.items() if value is not None}
    name = f"a ResNet-{spec['depth']} of width {width:g}"
    try:
        spec = dict(build(spec).spec)  # without what is as usual
        difference = differences(shapes_of(build(spec)), shapes)
    except (ConfigError, UserError) as error:
        raise UserError(f"{path}: it is close to {name}, but {error}") from error
    if difference:
        raise UserError(
            f"{path}: it is close to {name}, but {difference}; visrep holds no attention but "
            "selective kernels, and no net whose widths follow another rule"
        )
    return spec


def depth_of(shapes: Mapping[str, Shape], path: Path) -> int:
    """Depth of the net of these names and shapes. Raises UserError where there is none."""
    blocks = tuple(
        len({match[2] for match in map(_BLOCK.match, shapes) if match and match[1] == str(stage)})
        for stage in (1, 2, 3, 4)
    )
    basic = "layer1.0.conv3.weight" not in shapes
    for depth, counts in BLOCKS.items():
        if counts == blocks and (depth in BASIC) == basic:
            return depth
    raise UserError(
        f"{path}: its stages have {', '.join(map(str, blocks))} "
        f"{'basic' if basic else 'bottleneck'} blocks; visrep holds ResNets of depth "
        f"{', '.join(map(str, BLOCKS))}"
    )


def _stem(shapes: Mapping[str, Shape], path: Path, known: str | None) -> str:
    first = shapes.get("conv1.weight", ())
    if first[1:] == (3, 7, 7):
        return "imagenet"
    if "conv1.0.weight" in shapes:
        one, two = (_outs(shapes, f"conv1.{i}.weight", path) for i in (0, 3))
        return "d" if one == two else "t"
    if first[1:] == (3, 3, 3) and known is not None:
        return known
    if first[1:] == (3, 3, 3):
        raise UserError(
            f"{path}: its first convolution is 3x3, and with these names nothing says its stride: "
            "give stem=cifar (stride 1) or stem=small (stride 2)"
        )
    raise UserError(
        f"{path}: its first convolution is {'x'.join(map(str, first)) or 'missing'}; visrep's nets "
        "begin with a 7x7 or 3x3 convolution of 3 channels"
    )


def _bottleneck(shapes: Mapping[str, Shape], path: Path) -> dict[str, Any]:
    """Groups and relative width of the 3x3 convolutions, as the first one shows them."""
    middle = shapes.get("layer1.0.conv2.weight", (0,) * 4)
    if len(middle) != 4 or not middle[1]:
        raise UserError(f"{path}: layer1.0.conv2.weight is missing or no convolution")
    inner = 4 * middle[0] / _outs(shapes, "layer1.0.conv3.weight", path)
    return {
        "groups": middle[0] // middle[1],
        "inner": int(inner) if inner.is_integer() else inner,
    }


def _outs(shapes: Mapping[str, Shape], name: str, path: Path) -> int:
    shape = shapes.get(name, ())
    if not shape or not shape[0]:
        raise UserError(f"{path}: {name} is missing or empty")
    return shape[0]
