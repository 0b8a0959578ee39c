"""The tensors of the backbone that a Detectron2 config describes, and which of them a file fills.

The names and shapes follow from MODEL.RESNETS (or visrep's MODEL.VISREP); the matching is that of
Detectron2's checkpointer: a tensor of the model takes the longest name of the file that is equal to
its own or a dotted end of it, if the shapes agree.
"""

from collections.abc import Mapping
from dataclasses import dataclass

from visrep.d2 import heads
from visrep.d2.lint.config import Config
from visrep.d2.pkl import DEPTHS, detectron2_name
from visrep.d2.weights import place_of
from visrep.errors import UserError
from visrep.nn.resnet import BASIC, BLOCKS
from visrep.weights.encoder_file import build, shapes_of

Shape = tuple[int, ...]
NORM = ("weight", "bias", "running_mean", "running_var")


def head_of(config: Config) -> str:
    """Where the encoder sits in the model: `c4`, `fpn` or `plain`."""
    if "fpn" in config["MODEL.BACKBONE.NAME"]:
        return "fpn"
    whole = config["MODEL.META_ARCHITECTURE"] == "GeneralizedRCNN"
    return (
        "c4"
        if whole and config["MODEL.ROI_HEADS.NAME"].startswith((heads.PLAIN, heads.VISREP_PLAIN))
        else "plain"
    )


def is_resnet(config: Config) -> bool:
    """Whether the backbone is a ResNet of Detectron2's or visrep's."""
    return is_own(config) or config["MODEL.BACKBONE.NAME"].startswith("build_visrep_resnet_")


def is_own(config: Config) -> bool:
    """Whether it is Detectron2's own ResNet, which MODEL.RESNETS describes."""
    name = config["MODEL.BACKBONE.NAME"]
    return bool(name.startswith(("build_resnet_", "build_retinanet_resnet_")))


def model_shapes(config: Config) -> dict[str, Shape]:
    """Place in the model -> shape, of every tensor that the encoder is to fill.

    Raises:
        UserError: there is no such net.
    """
    head = head_of(config)
    try:
        if config["MODEL.BACKBONE.NAME"].startswith("build_visrep_"):
            shapes = _visrep_shapes(config)
        else:
            shapes = _resnet_shapes(config)
            if head == "c4":
                shapes = {k: s for k, s in shapes.items() if not k.startswith("res5.")}
                shapes |= _stage_shapes(config, 5, blocks=3, basic=False)
    except (KeyError, TypeError, ValueError, ArithmeticError) as error:
        raise UserError(f"MODEL.RESNETS describes no net: {error}") from error
    last = max((str(name) for name in config["MODEL.RESNETS.OUT_FEATURES"]), default="res5")
    if head == "plain" and last in ("res2", "res3", "res4"):
        shapes = {k: s for k, s in shapes.items() if k.startswith("stem.") or k[:4] <= last}
    return {place_of(name, head=head): shape for name, shape in shapes.items()}


def _visrep_shapes(config: Config) -> dict[str, Shape]:
    usual = {"depth": 50, "width": 1.0, "sk": False, "stem": "imagenet", "padding": "torch"}
    stated = {key.lower(): value for key, value in config.node("MODEL.VISREP").items()}
    spec = {**usual, **{k: v for k, v in stated.items() if v is not None}}
    shapes = shapes_of(build(spec))
    return {detectron2_name(name, stem=spec["stem"]): shape for name, shape in shapes.items()}


def _resnet_shapes(config: Config) -> dict[str, Shape]:
    depth, stem = config["MODEL.RESNETS.DEPTH"], config["MODEL.RESNETS.STEM_OUT_CHANNELS"]
    if depth not in DEPTHS:
        raise ValueError(f"depth {depth} is none of {', '.join(map(str, DEPTHS))}")
    shapes = _conv("stem.conv1", (stem, 3, 7, 7))
    for stage, blocks in zip((2, 3, 4, 5), BLOCKS[depth], strict=True):
        shapes |= _stage_shapes(config, stage, blocks=blocks, basic=depth in BASIC)
    return shapes


def _stage_shapes(config: Config, stage: int, *, blocks: int, basic: bool) -> dict[str, Shape]:
    groups = config["MODEL.RESNETS.NUM_GROUPS"]
    factor = 2 ** (stage - 2)
    middle = groups * config["MODEL.RESNETS.WIDTH_PER_GROUP"] * factor
    outs = config["MODEL.RESNETS.RES2_OUT_CHANNELS"] * factor
    ins = config["MODEL.RESNETS.STEM_OUT_CHANNELS"] if stage == 2 else outs // 2
    shapes: dict[str, Shape] = {}
    for block in range(blocks):
        place = f"res{stage}.{block}"
        if ins != outs:
            shapes |= _conv(f"{place}.shortcut", (outs, ins, 1, 1))
        if basic:
            shapes |= _conv(f"{place}.conv1", (outs, ins, 3, 3))
            shapes |= _conv(f"{place}.conv2", (outs, outs, 3, 3))
        else:
            shapes |= _conv(f"{place}.conv1", (middle, ins, 1, 1))
            shapes |= _conv(f"{place}.conv2", (middle, middle // groups, 3, 3))
            shapes |= _conv(f"{place}.conv3", (outs, middle, 1, 1))
        ins = outs
    return shapes


def _conv(name: str, shape: Shape) -> dict[str, Shape]:
    return {f"{name}.weight": shape, **{f"{name}.norm.{kind}": shape[:1] for kind in NORM}}


@dataclass(frozen=True)
class Load:
    """What a file fills of a model.

    Attributes:
        filled: places that get a tensor.
        empty: places that get none.
        misshapen: place -> (name in the file, its shape, the model's), not filled either.
    """

    filled: list[str]
    empty: list[str]
    misshapen: dict[str, tuple[str, Shape, Shape]]

    @property
    def total(self) -> int:
        return len(self.filled) + len(self.empty) + len(self.misshapen)

    def convolutions(self) -> tuple[int, int]:
        """Filled ones, and all."""
        places = [*self.filled, *self.empty, *self.misshapen]
        filled, all_ = (
            sum(p.endswith("weight") and ".norm." not in p for p in part)
            for part in (self.filled, places)
        )
        return filled, all_


def load(model: Mapping[str, Shape], tensors: Mapping[str, Shape], *, heuristics: bool) -> Load:
    """Fill `model` (place -> shape) from `tensors` (name -> shape) as Detectron2 would."""
    filled, empty, misshapen = [], [], {}
    for place, shape in model.items():
        parts = place.split(".")
        ends = [".".join(parts[i:]) for i in range(len(parts) if heuristics else 1)]
        name = next((end for end in ends if end in tensors), None)
        if name is None:
            empty.append(place)
        elif tuple(tensors[name]) != shape:
            misshapen[place] = (name, tuple(tensors[name]), shape)
        else:
            filled.append(place)
    return Load(filled, empty, misshapen)
