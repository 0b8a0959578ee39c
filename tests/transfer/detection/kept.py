"""A detector as a run folder keeps it, small, with weights of its own."""

import dataclasses

import torch

from tests.transfer.detection.shapes import small_recipe
from visrep.data.preprocess import Preprocess
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detector_file, engine_tv
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
