"""Both engines are one detector: the same weights give the same proposals, boxes, masks, losses.

What is drawn at random is drawn from different generators, so anchors and regions are all taken.
"""

import dataclasses

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.transfer.detection.kept import PREPROCESS, kept
from tests.transfer.detection.shapes import shapes, small_recipe
from visrep.data.detection import Box
from visrep.engine.run import Run
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import engine_d2, engine_tv, translation
from visrep.transfer.detection.batches import load, truth
from visrep.transfer.detection.tv_detector import Detector

pytestmark = pytest.mark.detectron2

SMALL = {"depth": 18, "width": 0.125, "stem": "small"}
WIDE = {"depth": 50, "width": 0.125}
C4 = {"head": "c4", "anchor_sizes": [1, 2]}
DC5 = {"head": "dc5", "anchor_sizes": [1, 2]}
FPN = {"head": "fpn"}
CASES = [
    (C4, SMALL),
    ({**C4, "extra_norm": False}, WIDE),
    (DC5, SMALL),
    (DC5, WIDE),
    (DC5, {**WIDE, "sk": True, "stem": "d"}),
    (FPN, SMALL),
    ({**FPN, "norm": "FrozenBN"}, SMALL),
    ({**FPN, "fpn_first": 1, "fpn_norm": False}, WIDE),
]
LOSSES = {
    "loss_classifier": "loss_cls",
    "loss_box_reg": "loss_box_reg",
    "loss_objectness": "loss_rpn_cls",
    "loss_rpn_box_reg": "loss_rpn_loc",
    "loss_mask": "loss_mask",
}


@pytest.fixture
def run(tmp_path):
    return Run(tmp_path, torch.device("cpu"), 0, {}, "")


def pair(run, settings, net, **more):
    """The same detector in torchvision's engine and in Detectron2's."""
    file = kept(ResNet(**net), **settings, **more)
    there = translation.to_detectron2(file)
    there.config = engine_d2.config_of(there, run)
    return engine_tv.load(file, run.device), engine_d2.load(there, run)


def partners(same):
    """The one of the columns that each row is the `same` as, every one once.

    Two scores that are equal but for rounding may change places.
    """
    partner = same.int().argmax(1)
    assert same.any(1).all() and sorted(partner.tolist()) == list(range(len(partner)))
    return partner


@pytest.mark.parametrize(("settings", "net"), CASES)
def test_boxes_and_masks_are_the_same(tmp_path, run, settings, net):
    data = shapes(tmp_path / "images", images=3, seed=3)
    ours, theirs = (detector.predict_all(data) for detector in pair(run, settings, net))
    for record in data.records:
        a, b = ours[record.id], theirs[record.id]
        assert len(a.scores) == len(b.scores) > 0
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
        same = (a.boxes[:, None] - b.boxes).abs().amax(2) < 1e-3
        same &= a.labels[:, None] == b.labels
        same &= (a.scores[:, None] - b.scores).abs() < 1e-4
        partner = partners(same)
        drawn = rle.decode(a.masks), rle.decode([b.masks[i] for i in partner.tolist()])
        # A pixel whose probability is 0.5 but for rounding may be in or out, and of some nets none
        # is in: see the next test.
        assert (drawn[0] != drawn[1]).mean() < 5e-4


@pytest.mark.parametrize(("settings", "net"), CASES)
def test_probabilities_of_masks_are_the_same(tmp_path, run, settings, net):
    tv, d2 = pair(run, settings, net)
    for record in shapes(tmp_path / "images", images=3, seed=3).records:
        image = load(record, short=48, most=80)
        with torch.no_grad():
            ours = tv([image.float() / 255])[0]
            theirs = d2.model.inference([{"image": image}], do_postprocess=False)[0]
        assert len(ours["boxes"]) == len(theirs) > 0
        same = (ours["boxes"][:, None] - theirs.pred_boxes.tensor).abs().amax(2) < 1e-3
        same &= ours["labels"][:, None] - 1 == theirs.pred_classes
        same &= (ours["scores"][:, None] - theirs.scores).abs() < 1e-4
        masks, wanted = ours["masks"], theirs.pred_masks[partners(same), 0]
        off = (masks - wanted).abs().amax((1, 2))
        # Small against how a mask differs from place to place, and masks from each other.
        assert (off < 1e-3 * masks.flatten(1).std(1)).all()
        assert off.max() < 1e-3 * masks.std(0).max()


@pytest.mark.parametrize(("settings", "net"), CASES)
def test_proposals_are_the_same(tmp_path, run, settings, net):
    tv, d2 = pair(run, settings, net)
    record = shapes(tmp_path / "images", images=1, seed=3).records[0]
    image = load(record, short=48, most=80)
    with torch.no_grad():
        padded, _ = tv.transform([image.float() / 255])
        ours = tv.rpn(padded, tv.backbone(padded.tensors))[0][0]
        theirs = d2.model.preprocess_image([{"image": image}])
        found, _ = d2.model.proposal_generator(theirs, d2.model.backbone(theirs.tensor))
    torch.testing.assert_close(padded.tensors, theirs.tensor, rtol=0, atol=1e-5)
    assert len(ours) > 5
    torch.testing.assert_close(ours, found[0].proposal_boxes.tensor, rtol=0, atol=1e-3)


@pytest.mark.parametrize(("settings", "net"), CASES)
def test_losses_are_the_same(tmp_path, run, settings, net):
    """Two images as a batch, in training mode; of an image every anchor and region counts."""
    from detectron2.structures import BitMasks, Boxes, Instances
    from detectron2.utils.events import EventStorage

    tv, d2 = pair(run, settings, net, rpn_batch=20_000, roi_batch=400)
    records = shapes(tmp_path / "images", images=4, seed=3).records[::2]
    images = [load(record, short=48, most=80) for record in records]
    targets = [truth(record, image.shape[1:], masks=True) for record, image in
               zip(records, images, strict=True)]  # fmt: skip
    targets = [{**target, "boxes": target["boxes"].float()} for target in targets]
    assert images[0].shape == images[1].shape and sum(len(t["labels"]) for t in targets) > 1
    entries = []
    for image, target in zip(images, targets, strict=True):
        instances = Instances(
            tuple(image.shape[1:]),
            gt_boxes=Boxes(target["boxes"]),
            gt_classes=target["labels"] - 1,
            gt_masks=BitMasks(target["masks"].bool()),
        )
        entries.append({"image": image, "instances": instances})
    with EventStorage():
        wanted = d2.model.train()(entries)
    found = tv.train()([image.float() / 255 for image in images], targets)
    assert {LOSSES[name] for name in found} == set(wanted)
    for name, loss in found.items():
        assert loss.item() > 0
        assert loss.item() == pytest.approx(float(wanted[LOSSES[name]]), rel=1e-4), name


@pytest.mark.parametrize("head", ["fpn", "c4", "dc5"])
def test_proposal_losses_are_the_same_where_boxes_lie_inside_many_anchors(head, tmp_path):
    """Of the same maps and heads: which anchor is the best hangs on the last bit of a box."""
    from detectron2.modeling import build_model
    from detectron2.structures import ImageList as Theirs
    from detectron2.utils.events import EventStorage
    from torchvision.models.detection.image_list import ImageList

    from visrep.d2.data import dataset_dict, mapper

    run = Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="x")
    data = shapes(tmp_path / "data", images=24, seed=0)
    rng = np.random.default_rng(0)
    recipe = small_recipe(  # no anchor is left out, so that nothing is drawn
        head=head, rpn_batch=10**6, flip=False, train_sizes=[333], max_size=999, anchor_sizes=[4]
    )
    torch.manual_seed(1)
    net = ResNet(**SMALL)
    cfg = engine_d2.configure(net, PREPROCESS, data, recipe, run=run, workers=0)
    theirs = build_model(cfg).train().proposal_generator
    ours = Detector(
        encoder=net, classes=2, recipe=recipe, preprocess=PREPROCESS, seed=0
    ).rpn.train()
    for name, layer in (
        ("conv", ours.head.conv[0][0]),
        ("objectness_logits", ours.head.cls_logits),
        ("anchor_deltas", ours.head.bbox_pred),
    ):
        torch.nn.init.normal_(layer.weight, std=0.1)
        getattr(theirs.rpn_head, name).load_state_dict(layer.state_dict())
    read, width = mapper(cfg, training=True), theirs.rpn_head.conv.in_channels
    for record in data.records:
        x, y, w, h = rng.uniform((0, 0, 5, 5), (30, 30, 18, 18))
        boxes = [Box(xyxy=(x, y, x + w, y + h), category=0)]
        record = dataclasses.replace(record, boxes=boxes)
        entry = read(dataset_dict(record))
        size = tuple(entry["image"].shape[1:])
        target = truth(record, size, masks=False)
        target["boxes"] = target["boxes"].float()
        assert torch.equal(target["boxes"], entry["instances"].gt_boxes.tensor)
        maps = [
            torch.randn(1, width, -(-size[0] // stride), -(-size[1] // stride))
            for stride in recipe.strides(net.strides)
        ]
        padded = torch.zeros(1, 3, *size)
        with EventStorage(), torch.no_grad():
            names = dict(zip(theirs.in_features, maps, strict=True))
            _, wanted = theirs(Theirs(padded, [size]), names, [entry["instances"]])
            _, found = ours(ImageList(padded, [size]), dict(enumerate(maps)), [target])
        assert found["loss_objectness"] == pytest.approx(float(wanted["loss_rpn_cls"]), rel=1e-4)
        assert found["loss_rpn_box_reg"] == pytest.approx(float(wanted["loss_rpn_loc"]), rel=1e-4)
