"""A detector of one engine in the other: the same net under other names.

Detectron2 counts classes from 0 with the background last, torchvision from 1 with it first; and its
box regressor has no rows for the background, which nothing reads. All else is a matter of names.
"""

import math
import re
from dataclasses import replace

import torch
from torch import Tensor

from visrep.d2.pkl import detectron2_name
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.weights import place_of
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection.detector_file import DetectorFile

_SAME = {
    "rpn.head.conv.0.0": "proposal_generator.rpn_head.conv",
    "rpn.head.cls_logits": "proposal_generator.rpn_head.objectness_logits",
    "rpn.head.bbox_pred": "proposal_generator.rpn_head.anchor_deltas",
    "roi_heads.box_head.fc6": "roi_heads.box_head.fc1",
    "roi_heads.box_head.fc7": "roi_heads.box_head.fc2",
    "roi_heads.box_head.norm": "roi_heads.res5.norm",
    "roi_heads.box_predictor.cls_score": "roi_heads.box_predictor.cls_score",
    "roi_heads.box_predictor.bbox_pred": "roi_heads.box_predictor.bbox_pred",
}
_CLASSES, _BOXES = "roi_heads.box_predictor.cls_score.", "roi_heads.box_predictor.bbox_pred."


def detectron2_names(file: DetectorFile) -> dict[str, str]:
    """torchvision's name of each tensor of the net -> Detectron2's."""
    from visrep.transfer.detection import engine_tv

    recipe = DetectionRecipe(**file.recipe)
    net = engine_tv.empty(file)
    strides = ResNet(**file.backbone).strides[recipe.fpn_first - 1 :]
    levels = [int(math.log2(stride)) for stride in strides]
    names = [name for name in net.state_dict() if not name.endswith("num_batches_tracked")]
    return {name: _name(name, recipe, file.backbone["stem"], levels) for name in names}


def _name(name: str, recipe: DetectionRecipe, stem: str, levels: list[int]) -> str:
    trunk = re.sub(r"^(backbone\.encoder|roi_heads\.box_head(?=\.layer4))\.", "", name)
    if trunk != name:
        return place_of(detectron2_name(trunk, stem=stem), head=recipe.head)
    module, _, tensor = name.rpartition(".")
    if recipe.outputs == "semantic" and name.startswith("head."):
        return f"{_in_semantic_head(module, levels)}.{tensor}"
    if module in _SAME:
        return f"{_SAME[module]}.{tensor}"
    pyramid = re.fullmatch(r"backbone\.fpn\.(inner|layer)_blocks\.(\d+)\.([01])", module)
    if pyramid:
        kind = "lateral" if pyramid[1] == "inner" else "output"
        norm = ".norm" if pyramid[3] == "1" else ""
        return f"backbone.fpn_{kind}{levels[int(pyramid[2])]}{norm}.{tensor}"
    points = re.fullmatch(r"roi_heads\.keypoints\.head\.(convs\.(\d)|logits)", module)
    if points:
        layer = f"conv_fcn{int(points[2]) + 1}" if points[2] else "score_lowres"
        return f"roi_heads.keypoint_head.{layer}.{tensor}"
    number = int(module.removeprefix("roi_heads.masks."))
    first = 0 if recipe.head == "c4" else 8  # after four convolutions, each with its ReLU
    layer = {first: "deconv", first + 2: "predictor"}.get(number, f"mask_fcn{number // 2 + 1}")
    return f"roi_heads.mask_head.{layer}.{tensor}"


def _in_semantic_head(module: str, levels: list[int]) -> str:
    """Detectron2's name of a layer of the FCN head, which is ours there too, or of its own
    semantic FPN, where each branch is convolutions with a step of enlarging after each."""
    layer = re.fullmatch(r"head\.branches\.(\d+)\.(\d+)\.([01])", module)
    if not layer:
        return module.replace("head.", "sem_seg_head.", 1)
    branch, number = int(layer[1]), int(layer[2])
    place = f"sem_seg_head.p{levels[branch]}.{2 * number}"
    return f"{place}.norm" if layer[3] == "1" else place


def to_detectron2(file: DetectorFile) -> DetectorFile:
    """A detector of torchvision's as one of Detectron2's, whose config is still to be made."""
    tensors = {}
    for ours, theirs in detectron2_names(file).items():
        tensor = file.tensors[ours]
        if ours.startswith(_CLASSES):
            tensor = tensor.roll(-1, dims=0)
        elif ours.startswith(_BOXES):
            tensor = tensor[4:]
        tensors[theirs] = tensor.clone()
    return replace(file, engine="detectron2", tensors=tensors)


def to_torchvision(file: DetectorFile) -> DetectorFile:
    """A detector of Detectron2's as one of torchvision's.

    Raises:
        ConfigError: settings of its own (its task's, or d2_opts) made another net.
    """
    beyond = [*DetectionRecipe(**file.recipe).beyond, *file.opts[::2]]
    if beyond:
        raise ConfigError(
            "this detector has settings that only Detectron2 knows "
            f"({', '.join(map(str, beyond))}): measure it there"
        )
    tensors: dict[str, Tensor] = {}
    for ours, theirs in detectron2_names(file).items():
        tensor = file.tensors[theirs]
        if ours.startswith(_CLASSES):
            tensor = tensor.roll(1, dims=0)
        elif ours.startswith(_BOXES):
            tensor = torch.cat([torch.zeros_like(tensor[:4]), tensor])
        tensors[ours] = tensor.clone()
    return replace(file, engine="torchvision", config="", tensors=tensors)
