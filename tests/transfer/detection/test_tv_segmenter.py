"""Nets that name pixels: the same in both engines, and one that learns."""

import dataclasses

import pytest
import torch

from tests.transfer.detection.shapes import small_recipe
from tests.transfer.detection.test_label_batches import FCN
from tests.visrep.data.semantic.layouts import own
from visrep.data.preprocess import Preprocess
from visrep.data.semantic.folder import read_folder
from visrep.data.semantic.readiness import labels_of
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detector_file, engine_d2, engine_tv, translation
from visrep.transfer.detection.detector_file import DetectorFile

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.5, 0.4, 0.3), std=(0.25, 0.2, 0.3))
FPN = {"outputs": "semantic", "head": "fpn", "semantic_width": 32, "train_sizes": [48]}
SMALL = {"depth": 18, "width": 0.125, "stem": "small"}
OWN = {"depth": 50, "width": 0.125}  # which Detectron2's own ResNet holds


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path / "run", torch.device("cpu"), 0, {}, "")


def kept(net, **settings) -> DetectorFile:
    """A net of torchvision's engine with weights and statistics that are all its own."""
    file = DetectorFile(
        engine="torchvision",
        recipe=detector_file.plain_recipe(small_recipe(**settings)),
        backbone=ResNet(**net).spec,
        preprocess=PREPROCESS.to_dict(),
        classes=["road", "wall", "sky"],
        encoder="0",
        init="random",
        tensors={},
    )
    made = engine_tv.empty(file)
    draw = torch.Generator().manual_seed(0)
    for name, tensor in made.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5, generator=draw)
        elif tensor.is_floating_point():
            tensor.add_(torch.randn(tensor.shape, generator=draw) * 0.05)
    return dataclasses.replace(file, tensors=made.state_dict())


BOTH = [
    (FCN, SMALL),
    (FCN, OWN),
    ({**FCN, "test_size": 33}, {"depth": 18}),
    ({**FCN, "norm": "FrozenBN"}, {**OWN, "stem": "d"}),
    (FPN, SMALL),
    ({**FPN, "fpn_first": 1}, OWN),
]


@pytest.mark.detectron2
@pytest.mark.parametrize(("settings", "net"), BOTH)
def test_both_engines_compute_the_same(tmp_path, run, settings, net):
    run.out.mkdir()
    data = read_folder(own(tmp_path / "data"), "train")
    file = kept(net, **settings)
    there = translation.to_detectron2(file)
    there.config = engine_d2.config_of(there, run)
    ours, theirs = engine_tv.load(file, run.device), engine_d2.load(there, run)
    native = net == OWN
    assert theirs.config.MODEL.BACKBONE.NAME.startswith("build_resnet") == native
    record = data.records[0]
    image = record.image()
    given = {"image": image, "height": record.height, "width": record.width}
    with torch.no_grad():
        mine = ours.logits([image.float() / 255])[0, :, : record.height, : record.width]
        other = theirs.model([given])[0]["sem_seg"]
    torch.testing.assert_close(mine, other, rtol=1e-4, atol=1e-4)
    assert mine.std() > 0.01, "all logits are alike, which compares nothing"
    same = ours.segment(record) == theirs.segment(record)
    assert same.float().mean() > 0.995
    # Losses, on images of two sizes, with the statistics of the batch.
    whole, part = data.records[:2]
    two = [(whole.image(), labels_of(whole)), (part.image()[:, :37], labels_of(part)[:37])]
    ours.train()
    theirs.model.train()
    loss = ours([i.float() / 255 for i, _ in two], [{"classes": c} for _, c in two])
    batch = [{"image": image, "sem_seg": classes.long()} for image, classes in two]
    torch.testing.assert_close(
        loss["loss_sem_seg"], theirs.model(batch)["loss_sem_seg"], rtol=1e-4, atol=1e-5
    )
    back = translation.to_torchvision(there)
    assert set(back.tensors) == set(file.tensors)
    assert all(torch.equal(back.tensors[name], tensor) for name, tensor in file.tensors.items())


def train(run, data, **settings):
    torch.manual_seed(1)
    return engine_tv.train(
        encoder=ResNet(**SMALL),
        preprocess=PREPROCESS,
        dataset=data,
        recipe=small_recipe(**settings),
        run=run,
        workers=0,
        precision="fp32",
        snapshot_every=0,
        log_every=100,
    )


LEARNING = {"fcn_dilation": 1, "scales": [1.0, 1.25], "crop": 40}


@pytest.mark.parametrize("settings", [{**FCN, **LEARNING}, FPN], ids=["fcn", "fpn"])
def test_it_learns_what_follows_from_the_colour(tmp_path, run, settings):
    run.out.mkdir()
    data = read_folder(own(tmp_path / "data"), "train")
    net = train(run, data, **settings, iterations=60, batch_size=4, lr=0.05)
    right = total = 0
    for record in data.records:
        truth, named = labels_of(record), net.segment(record)
        assert named.shape == truth.shape and named.dtype == torch.uint8
        known = truth != 255
        right += int((named[known] == truth[known]).sum())
        total += int(known.sum())
    assert right > 0.65 * total, "to name one class everywhere is right for less than half"


def test_frozen_parts_stay_and_the_head_trains():
    settings = {**FCN, "freeze_at": 2, "norm": "FrozenBN"}
    net = engine_tv.empty(kept(SMALL, **settings))
    trained = {name for name, parameter in net.named_parameters() if parameter.requires_grad}
    assert not any(name.startswith("backbone.encoder.conv1") for name in trained)
    assert not any(name.startswith("backbone.encoder.layer1") for name in trained)
    assert any(name.startswith("backbone.encoder.layer2") for name in trained)
    assert "head.convs.0.1.weight" in trained


def test_the_dilated_net_is_at_the_stride_of_layer3():
    net = engine_tv.empty(kept(SMALL, **FCN))
    assert (net.stride, net.divisor) == (8, 1)
    maps = net.backbone(torch.zeros(1, 3, 33, 40))["layer4"]
    assert maps.shape[-2:] == (5, 5)
    with pytest.raises(ConfigError, match="expect BGR images"):
        engine_tv.empty(
            dataclasses.replace(
                kept(SMALL, **FCN), preprocess={**PREPROCESS.to_dict(), "channel_order": "BGR"}
            )
        )
