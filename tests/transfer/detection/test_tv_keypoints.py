"""Keypoints by torchvision's engine: against plain loops, against Detectron2, and end to end."""

import dataclasses
import itertools
import math

import pytest
import torch

from tests.transfer.detection.kept import kept
from tests.transfer.detection.shapes import CORNERS, shapes, small_recipe, with_corners
from visrep.data.detection import Box, ImageRecord
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import UserError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import engine_d2, engine_tv, translation
from visrep.transfer.detection.batches import TrainingBatches, mirror, truth
from visrep.transfer.detection.engine_tv import DetectionTask
from visrep.transfer.detection.tv_detector import Detector
from visrep.transfer.detection.tv_keypoints import (
    KeypointHead,
    Keypoints,
    from_maps,
    holding,
    to_cells,
)

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return with_corners(shapes(tmp_path_factory.mktemp("shapes"), images=6, seed=0))


@pytest.fixture
def run(tmp_path):
    return Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="visrep detect")


def encoder(**spec):
    torch.manual_seed(1)
    return ResNet(**{"depth": 18, "width": 0.125, "stem": "small", **spec})


# Cells and maps


def test_a_point_is_in_the_cell_of_its_place_in_the_box():
    boxes = torch.tensor([[10.0, 20.0, 18.0, 36.0]])  # cells of 2 x 4 px on a map of 4 x 4
    rows = [
        ((10.0, 20.0, 2), 0, True),  # the corner
        ((13.9, 20.0, 1), 1, True),
        ((14.0, 31.9, 2), 2 * 4 + 2, True),
        ((18.0, 36.0, 2), 3 * 4 + 3, True),  # the far corner counts as inside
        ((18.1, 30.0, 2), None, False),
        ((9.9, 30.0, 2), None, False),
        ((14.0, 30.0, 0), None, False),  # not labelled
    ]
    points = torch.tensor([[point for point, _, _ in rows]])
    cells, valid = to_cells(points, boxes, side=4)
    assert valid[0].tolist() == [inside for _, _, inside in rows]
    assert [int(c) for c, v in zip(cells[0], valid[0], strict=True) if v] == [
        cell for _, cell, inside in rows if inside
    ]
    assert holding(boxes, points).tolist() == [True]
    assert holding(boxes, points[:, 4:]).tolist() == [False]


def test_a_map_s_peak_becomes_pixels_of_the_image():
    logits = torch.full((1, 1, 8, 8), -4.0)
    logits[0, 0, 2, 5] = 6.0
    found = from_maps(logits, torch.tensor([[100.0, 50.0, 116.0, 82.0]]))  # cells of 2 x 4 px
    x, y, score = found[0, 0].tolist()
    assert 110 <= x <= 112 and 58 <= y <= 62
    assert (x % 1, y % 1) == (0.5, 0.5), "the middle of a pixel"
    assert score > 0 and from_maps(logits[:0], torch.zeros(0, 4)).shape == (0, 1, 3)


def test_a_score_is_the_share_of_the_map_at_its_peak():
    """At the map's own size the enlargement changes nothing."""
    logits = torch.randn(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    found = from_maps(logits, torch.tensor([[0.0, 0.0, 8.0, 8.0]] * 2))
    for region, point in itertools.product(range(2), range(3)):
        share = logits[region, point].flatten().softmax(0).max()
        assert found[region, point, 2] == pytest.approx(float(share), rel=1e-5)
        place = int(logits[region, point].argmax())
        assert found[region, point, :2].tolist() == [place % 8 + 0.5, place // 8 + 0.5]


def test_an_object_below_a_pixel_has_keypoints_too():
    found = from_maps(torch.zeros(1, 2, 8, 8), torch.tensor([[3.0, 4.0, 3.2, 4.1]]))
    assert found[0, :, :2].tolist() == [[3.5, 4.5]] * 2


@pytest.mark.detectron2
def test_cells_and_maps_are_detectron2_s():
    from detectron2.structures import Keypoints as TheirKeypoints
    from detectron2.structures import heatmaps_to_keypoints

    draw = torch.Generator().manual_seed(0)
    corner = torch.rand(20, 2, generator=draw) * 100
    boxes = torch.cat((corner, corner + 0.3 + torch.rand(20, 2, generator=draw) * 60), dim=1)
    flags = torch.randint(0, 3, (20, 5, 1), generator=draw).float()
    points = torch.cat((corner[:, None] + torch.rand(20, 5, 2, generator=draw) * 40, flags), dim=2)
    points[0, :3, 0], points[1, :3, 1] = boxes[0, 2], boxes[1, 3]
    theirs, there = TheirKeypoints(points).to_heatmap(boxes, 56)
    cells, valid = to_cells(points, boxes, side=56)
    assert torch.equal(valid, there.bool()) and 10 < valid.sum() < 90
    assert torch.equal(cells[valid], theirs[valid])
    logits = torch.randn(20, 5, 28, 28, generator=draw) * 3
    wanted = heatmaps_to_keypoints(logits, boxes)[:, :, [0, 1, 3]]
    torch.testing.assert_close(from_maps(logits, boxes), wanted, rtol=1e-6, atol=1e-5)


# Truth


def test_keypoints_are_resized_and_mirrored_with_their_image():
    points = (1.0, 2.0, 2, 31.0, 2.0, 1, 0.0, 0.0, 0, 50.0, 9.0, 2)  # the last is outside
    record = ImageRecord("a.png", "a", 20, 40, [Box((0.0, 0.0, 40.0, 20.0), 0, keypoints=points)])
    record.boxes.append(Box((5.0, 5.0, 9.0, 9.0), 0))
    target = truth(record, (40, 80), masks=False, keypoints=4)
    assert target["keypoints"].tolist() == [
        [[2, 4, 2], [62, 4, 1], [0, 0, 0], [0, 0, 0]],
        [[0, 0, 0]] * 4,
    ]
    image = torch.zeros(3, 40, 80, dtype=torch.uint8)
    mirrored = mirror(image, target, partners=CORNERS.partners)[1]
    assert mirrored["keypoints"][0].tolist() == [[18, 4, 1], [78, 4, 2], [0, 0, 0], [0, 0, 0]]


@pytest.mark.detectron2
def test_both_engines_learn_the_same_keypoints(data, run):
    from visrep.d2.data import dataset_dict, mapper

    recipe = small_recipe(outputs="keypoints", flip=False)
    cfg = engine_d2.configure(encoder(), PREPROCESS, data, recipe, run=run, workers=0)
    assert cfg.MODEL.ROI_KEYPOINT_HEAD.NUM_KEYPOINTS == 4
    for flip in ("none", "horizontal"):
        changed = cfg.clone()
        changed.defrost()
        changed.INPUT.RANDOM_FLIP = flip
        read = mapper(changed, training=True)
        seen = set()
        for record, _ in itertools.product(data.records, range(4)):
            theirs = read(dataset_dict(record, keypoints=4))
            ours = truth(record, theirs["image"].shape[1:], masks=False, keypoints=4)
            turned = mirror(theirs["image"], ours, partners=CORNERS.partners)[1]
            boxes = theirs["instances"].gt_boxes.tensor
            mirrored = not torch.allclose(boxes.double(), ours["boxes"], atol=1e-4)
            seen.add(mirrored)
            wanted = (turned if mirrored else ours)["keypoints"].float()
            torch.testing.assert_close(
                theirs["instances"].gt_keypoints.tensor, wanted, rtol=0, atol=1e-5
            )
        assert seen == ({False} if flip == "none" else {False, True})


@pytest.mark.detectron2
def test_images_without_a_labelled_keypoint_are_not_trained_on(tmp_path, run):
    from visrep.d2.loader import TrainingLoader
    from visrep.data.images import BrokenImages

    some = with_corners(shapes(tmp_path / "images", images=4, seed=0))
    for box in some.records[1].boxes:
        box.keypoints = None
    recipe = small_recipe(outputs="keypoints", flip=False)
    assert len(TrainingBatches(some, recipe=recipe, seed=0).records) == 3
    cfg = engine_d2.configure(encoder(), PREPROCESS, some, recipe, run=run, workers=0)
    loader = TrainingLoader(cfg, seed=0, start=0, broken=BrokenImages(0, 1))
    drawn = [image["image_id"] for batch in itertools.islice(loader, 12) for image in batch]
    assert set(drawn) == {"000", "002", "003"}


# Detectors


def losses(data, *, steps=2, **settings):
    recipe = small_recipe(outputs="keypoints", score_threshold=0.0, **settings)
    model = Detector(
        encoder=encoder(),
        classes=2,
        keypoints=4,
        recipe=recipe,
        preprocess=PREPROCESS,
        seed=0,
    )
    task = DetectionTask(model)
    stream = TrainingBatches(data, recipe=recipe, seed=0).iterate(0)
    optimizer = torch.optim.SGD(task.parameters(), lr=0.01)
    seen = []
    for batch in itertools.islice(stream, steps):
        optimizer.zero_grad()
        found = task(batch)
        found["loss"].backward()
        optimizer.step()
        seen.append({name: float(value.detach()) for name, value in found.items()})
    return seen, model


def test_training_is_finite_repeatable_and_predicts_keypoints(data):
    first, model = losses(data)
    second, _ = losses(data)
    assert first == second and all(math.isfinite(v) for row in first for v in row.values())
    assert first[0]["loss_keypoint"] == pytest.approx(math.log(56 * 56), rel=0.1)
    found = model.predict_all(data)
    for record in data.records:
        points = found[record.id].keypoints
        assert points.shape == (len(found[record.id].scores), 4, 3) and len(points)
        boxes = found[record.id].boxes[:, None]
        within = (points[..., :2] >= boxes[..., :2] - 1) & (points[..., :2] <= boxes[..., 2:] + 1)
        assert within.all() and (points[..., 2] > 0).all()


@pytest.mark.slow
def test_keypoints_are_learned(data):
    """Of one picture, over and over: the loss falls far below that of chance."""
    one = dataclasses.replace(data, records=data.records[:1])
    seen, _ = losses(one, steps=60, batch_size=1, flip=False, keypoint_width=32, roi_batch=32)
    last = sum(row["loss_keypoint"] for row in seen[-5:]) / 5
    assert last < 0.6 * seen[0]["loss_keypoint"]


def test_a_batch_without_a_keypoint_in_its_regions_costs_nothing():
    head = KeypointHead(4, 3, 8)
    branch = Keypoints(lambda _f, boxes, _s: torch.rand(sum(map(len, boxes)), 4, 14, 14), head)
    boxes, points = [torch.tensor([[0.0, 0.0, 9.0, 9.0]])], [torch.zeros(1, 3, 3)]
    loss = branch.loss({}, boxes, points, [(20, 20)])
    loss.backward()
    assert float(loss.detach()) == 0 and head.logits.weight.grad is not None
    assert branch.find({}, [torch.zeros(0, 4)], [(20, 20)])[0].shape == (0, 3, 3)


def test_the_box_loss_is_squared_below_beta(data):
    plain, squared = (losses(data, steps=1, box_beta=beta)[0][0] for beta in (0.0, 0.5))
    assert squared["loss_box_reg"] < plain["loss_box_reg"]
    assert squared["loss_classifier"] == plain["loss_classifier"]


def test_data_without_keypoints_are_refused(tmp_path):
    bare = shapes(tmp_path, images=2, seed=0)
    with pytest.raises(UserError, match=r"no object has a labelled keypoint.*coco_keypoints"):
        TrainingBatches(bare, recipe=small_recipe(outputs="keypoints"), seed=0)


@pytest.mark.detectron2
def test_both_engines_find_the_same_keypoints(data, run):
    """The same weights in both: boxes and keypoints within 1e-3 px, scores within 1e-4."""
    file = kept(encoder(), outputs="keypoints", keypoints=CORNERS)
    there = translation.to_detectron2(file)
    there.config = engine_d2.config_of(there, run)
    ours = engine_tv.load(file, run.device).predict_all(data)
    theirs = engine_d2.load(there, run).predict_all(data)
    for record in data.records:
        a, b = ours[record.id], theirs[record.id]
        assert len(a.scores) == len(b.scores) > 0 and torch.equal(a.labels, b.labels)
        torch.testing.assert_close(a.scores, b.scores, rtol=0, atol=1e-4)
        torch.testing.assert_close(a.boxes, b.boxes, rtol=0, atol=1e-3)
        torch.testing.assert_close(a.keypoints[..., :2], b.keypoints[..., :2], rtol=0, atol=1e-3)
        torch.testing.assert_close(a.keypoints[..., 2], b.keypoints[..., 2], rtol=0, atol=1e-4)
    back = translation.to_torchvision(there)
    for name, tensor in file.tensors.items():
        if "keypoints" in name:
            assert torch.equal(back.tensors[name], tensor), name


@pytest.mark.detectron2
@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
def test_both_engines_have_the_same_losses(data, run, norm):
    """Where all anchors and regions are sampled nothing is drawn, and the losses must agree."""
    from detectron2.utils.events import EventStorage

    whole = {"rpn_batch": 8192, "roi_batch": 4096, "flip": False, "box_beta": 0.5, "norm": norm}
    file = kept(encoder(), outputs="keypoints", keypoints=CORNERS, **whole)
    there = translation.to_detectron2(file)
    there.config = engine_d2.config_of(there, run)
    recipe = small_recipe(outputs="keypoints", score_threshold=0.0, **whole)
    ours = engine_tv.load(file, run.device).train()
    theirs = engine_d2.load(there, run).model.train()
    batch = next(TrainingBatches(data, recipe=recipe, seed=0).iterate(0))
    images = [
        {"image": image, "instances": _instances(image, target)}
        for image, target in zip(batch["images"], batch["targets"], strict=True)
    ]
    ours.seed(0)
    mine = ours([image.float() / 255 for image in batch["images"]], batch["targets"])
    with EventStorage():
        other = theirs(images)
    for here, name in {
        "loss_keypoint": "loss_keypoint",
        "loss_classifier": "loss_cls",
        "loss_box_reg": "loss_box_reg",
        "loss_objectness": "loss_rpn_cls",
        "loss_rpn_box_reg": "loss_rpn_loc",
    }.items():
        value, wanted = (float(loss.detach()) for loss in (mine[here], other[name]))
        assert value == pytest.approx(wanted, rel=1e-4, abs=1e-6) and value > 0, here


def _instances(image, target):
    from detectron2.structures import Boxes, Instances
    from detectron2.structures import Keypoints as TheirKeypoints

    return Instances(
        tuple(image.shape[1:]),
        gt_boxes=Boxes(target["boxes"]),
        gt_classes=target["labels"] - 1,
        gt_keypoints=TheirKeypoints(target["keypoints"]),
    )
