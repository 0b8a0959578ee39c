"""A kept detector finds the same in the engine that has not trained it."""

import dataclasses

import pytest
import torch

from tests.transfer.detection.kept import kept
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import translation


@pytest.mark.parametrize(
    ("settings", "net"),
    [
        ({"head": "c4"}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "c4", "extra_norm": False}, {"depth": 50, "width": 0.125, "stem": "imagenet"}),
        ({"head": "dc5"}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "fpn", "norm": "FrozenBN"}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "fpn", "fpn_first": 1, "fpn_norm": False}, {"depth": 50, "width": 0.125}),
    ],
)
def test_there_and_back_is_the_same(settings, net):
    file = kept(ResNet(**net), **settings)
    there = translation.to_detectron2(file)
    assert not set(there.tensors) & set(file.tensors) - {
        name for name in file.tensors if name.startswith("roi_heads.box_predictor.")
    }
    back = translation.to_torchvision(there)
    background = (
        "roi_heads.box_predictor.bbox_pred.weight",
        "roi_heads.box_predictor.bbox_pred.bias",
    )
    assert set(back.tensors) == set(file.tensors)
    for name, tensor in file.tensors.items():
        begin = 4 if name in background else 0  # rows that nothing reads
        assert torch.equal(back.tensors[name][begin:], tensor[begin:]), name


def test_what_only_detectron2_knows_stays_there():
    file = kept(ResNet(depth=18, width=0.125, stem="small"))
    with pytest.raises(ConfigError, match=r"only Detectron2 knows \(MODEL.ROI_HEADS.NAME\)"):
        translation.to_torchvision(dataclasses.replace(file, opts=["MODEL.ROI_HEADS.NAME", "X"]))
    own = {**file.recipe, "detectron2": {"INPUT": {"CROP": {"ENABLED": True}}}}
    with pytest.raises(ConfigError, match="INPUT.CROP.ENABLED"):
        translation.to_torchvision(dataclasses.replace(file, recipe=own))
