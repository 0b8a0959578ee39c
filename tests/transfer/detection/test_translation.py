"""A kept detector finds the same in the engine that has not trained it."""

import dataclasses

import pytest
import torch

from tests.transfer.detection.shapes import shapes, small_recipe
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detector_file, engine_d2, engine_tv, translation
from visrep.transfer.detection.detector_file import DetectorFile

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))


def kept(encoder: ResNet, seed: int = 0, keypoints=None, **settings) -> DetectorFile:
    """A detector of torchvision's with weights and statistics that are all its own."""
    recipe = small_recipe(**{"score_threshold": 0.0, "outputs": "masks", **settings})
    file = DetectorFile(
        engine="torchvision",
        recipe=detector_file.plain_recipe(recipe),
        backbone=encoder.spec,
        preprocess=PREPROCESS.to_dict(),
        classes=["square", "disc"],
        encoder="0",
        init="random",
        keypoints=dataclasses.asdict(keypoints) if keypoints else {},
        tensors={},
    )
    net = engine_tv.empty(file)
    draw = torch.Generator().manual_seed(seed)
    for name, tensor in net.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=draw)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=draw) * 0.02)
    return dataclasses.replace(file, tensors=net.state_dict())


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, torch.device("cpu"), 0, {}, "")


@pytest.mark.detectron2
@pytest.mark.parametrize(
    ("settings", "net"),
    [
        ({"head": "c4", "anchor_sizes": [1, 2]}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "fpn"}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "dc5", "anchor_sizes": [1, 2]}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "dc5", "anchor_sizes": [1, 2]}, {"depth": 50, "width": 0.125}),
        ({"head": "fpn", "norm": "FrozenBN"}, {"depth": 18, "width": 0.125, "stem": "small"}),
        ({"head": "c4", "extra_norm": False}, {"depth": 50, "width": 0.125, "stem": "imagenet"}),
        ({"head": "fpn", "fpn_first": 1, "fpn_norm": False}, {"depth": 50, "width": 0.125}),
    ],
)
def test_both_engines_find_the_same_boxes(tmp_path, run, settings, net):
    data = shapes(tmp_path / "images", images=3, seed=3)
    file = kept(ResNet(**net), **settings)
    there = translation.to_detectron2(file)
    there.config = engine_d2.config_of(there, run)
    ours = engine_tv.load(file, run.device).predict_all(data)
    theirs = engine_d2.load(there, run).predict_all(data)
    for record in data.records:
        a, b = ours[record.id], theirs[record.id]
        assert len(a.scores) == len(b.scores) > 0
        assert torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.scores, b.scores, rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-2)
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
