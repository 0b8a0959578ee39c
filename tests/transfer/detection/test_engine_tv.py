"""The torchvision engine: its parts against plain formulas, its detectors end to end."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from torchvision.ops import roi_align

from tests.transfer.detection.shapes import shapes, small_recipe
from visrep.data.detection import Box, ImageRecord
from visrep.data.preprocess import Preprocess
from visrep.engine import optim
from visrep.engine.trainer import Trainer
from visrep.errors import ConfigError, UserError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import ResNet
from visrep.transfer.detection.batches import TrainingBatches, load, mirror, resized, truth
from visrep.transfer.detection.engine_tv import DetectionTask
from visrep.transfer.detection.masks import paste, to_rle
from visrep.transfer.detection.tv_detector import Detector
from visrep.transfer.detection.tv_heads import AlignedRoIAlign, crop_masks
from visrep.transfer.detection.tv_proposals import Anchors, ProposalNetwork, Sampler

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("shapes"), images=10, seed=0)


def encoder(stem="small", depth=18):
    torch.manual_seed(1)
    return ResNet(depth=depth, width=0.125, stem=stem)


def detector(*, seed=0, stem="small", depth=18, **settings):
    return Detector(
        encoder=encoder(stem, depth),
        classes=2,
        recipe=small_recipe(**settings),
        preprocess=PREPROCESS,
        seed=seed,
    )


# Anchors, pooling, sampling, losses


def test_anchors_are_floats_at_multiples_of_the_stride():
    from torchvision.models.detection.image_list import ImageList

    anchors = Anchors(sizes=[[32], [64]], ratios=[0.5, 1.0, 2.0], strides=[8, 16])
    images = ImageList(torch.zeros(1, 3, 20, 24), [(20, 24)])
    maps = [torch.zeros(1, 4, 3, 3), torch.zeros(1, 4, 2, 2)]
    boxes = anchors(images, maps)[0]
    assert boxes.shape == ((9 + 4) * 3, 4)
    half = 32 / math.sqrt(0.5) / 2, 32 * math.sqrt(0.5) / 2  # ratio 0.5: wide
    assert boxes[0].tolist() == pytest.approx([-half[0], -half[1], half[0], half[1]])
    # The second cell of the first row is one stride to the right, whatever the image's size.
    assert (boxes[3] - boxes[0]).tolist() == pytest.approx([8, 0, 8, 0])
    assert (boxes[27 + 6] - boxes[27]).tolist() == pytest.approx([0, 16, 0, 16])


def test_regions_are_pooled_aligned_from_the_level_of_their_size():
    torch.manual_seed(0)
    maps = {"a": torch.randn(2, 3, 32, 32), "b": torch.randn(2, 3, 16, 16)}
    pool = AlignedRoIAlign(maps=["a", "b"], strides=[8, 16], output_size=7)
    small, large = [10.0, 20.0, 60.0, 70.0], [0.0, 0.0, 240.0, 230.0]
    boxes = [torch.tensor([small]), torch.tensor([large, small])]
    got = pool(maps, boxes, [(256, 256)] * 2)
    for row, (name, stride, image, box) in enumerate(
        [("a", 8, 0, small), ("b", 16, 1, large), ("a", 8, 1, small)]
    ):
        roi = torch.tensor([[image, *box]])
        want = roi_align(maps[name], roi, 7, 1 / stride, sampling_ratio=0, aligned=True)
        assert torch.equal(got[row], want[0])


def test_pooling_passes_gradients_to_the_maps():
    maps = {"a": torch.randn(1, 2, 8, 8, requires_grad=True), "b": torch.randn(1, 2, 4, 4)}
    pool = AlignedRoIAlign(maps=["a", "b"], strides=[8, 16], output_size=2)
    pool(maps, [torch.tensor([[0.0, 0.0, 30.0, 30.0]])], [(64, 64)]).sum().backward()
    assert maps["a"].grad.abs().sum() > 0


def test_sampling_is_a_function_of_the_seed():
    labels = [torch.tensor([1.0] * 40 + [0.0] * 100 + [-1.0] * 20)]
    sampler = Sampler(count=32, positive=0.25)
    drawn = []
    for seed in (1, 1, 2):
        sampler.generator.manual_seed(seed)
        torch.rand(3)  # the global generator plays no part
        positive, negative = sampler(labels)
        assert positive[0].sum() == 8 and negative[0].sum() == 24
        assert not positive[0][40:].any() and not negative[0][:40].any()
        assert not negative[0][140:].any()
        drawn.append((positive[0], negative[0]))
    assert torch.equal(drawn[0][0], drawn[1][0]) and torch.equal(drawn[0][1], drawn[1][1])
    assert not torch.equal(drawn[0][1], drawn[2][1])


def test_few_positives_are_made_up_for_by_negatives():
    positive, negative = Sampler(count=16, positive=0.5)([torch.tensor([1.0, 1.0] + [0.0] * 50)])
    assert (positive[0].sum(), negative[0].sum()) == (2, 14)


def test_proposal_loss_is_l1_over_all_anchors_that_may_be_sampled():
    rpn = detector(rpn_batch=8).rpn
    assert isinstance(rpn, ProposalNetwork)
    labels = [torch.tensor([1.0, 0.0, -1.0]), torch.tensor([0.0, -1.0, -1.0])]
    logits = torch.tensor([[2.0], [1.0], [9.0], [-1.0], [9.0], [9.0]])
    deltas, targets = torch.randn(6, 4), [torch.randn(3, 4), torch.randn(3, 4)]
    objects, boxes = rpn.compute_loss(logits, deltas, labels, targets)
    want = sum(math.log(1 + math.exp(v)) for v in (-2.0, 1.0, -1.0)) / (8 * 2)
    assert objects.item() == pytest.approx(want)
    assert boxes.item() == pytest.approx((deltas[0] - targets[0][0]).abs().sum().item() / 16)


def test_box_loss_is_l1_of_objects_over_all_regions():
    from visrep.transfer.detection.tv_heads import _box_losses

    logits, predicted = torch.randn(4, 3), torch.randn(4, 12)
    labels, deltas = torch.tensor([2, 0, 0, 1]), torch.randn(4, 4)
    losses = _box_losses(logits, predicted, labels, deltas)
    own = [predicted[0, 8:12] - deltas[0], predicted[3, 4:8] - deltas[3]]
    assert losses["loss_box_reg"].item() == pytest.approx(
        sum(x.abs().sum().item() for x in own) / 4
    )
    expected = torch.nn.functional.cross_entropy(logits, labels)
    assert losses["loss_classifier"].item() == pytest.approx(expected.item())


def test_heads_start_as_detectron2s():
    model = detector(head="fpn", box_width=256, fpn_channels=64)
    predictor = model.roi_heads.box_predictor
    assert predictor.cls_score.weight.std().item() == pytest.approx(0.01, rel=0.1)
    assert predictor.bbox_pred.weight.std().item() == pytest.approx(0.001, rel=0.1)
    assert model.rpn.head.conv[0][0].weight.std().item() == pytest.approx(0.01, rel=0.1)
    fc6 = model.roi_heads.box_head.fc6
    assert fc6.weight.abs().max().item() == pytest.approx(math.sqrt(3 / fc6.in_features), rel=0.01)
    for layer in (predictor.cls_score, predictor.bbox_pred, fc6):
        assert not layer.bias.any()


# Masks


def test_mask_targets_are_the_part_inside_the_box():
    mask = torch.zeros(1, 20, 20, dtype=torch.uint8)
    mask[0, 5:15, 5:10] = 1
    crop = crop_masks(mask, torch.tensor([[5.0, 5.0, 15.0, 15.0]]), 10)
    want = torch.zeros(10, 10)
    want[:, :5] = 1
    assert torch.equal(crop[0], want)
    assert crop_masks(mask[:0], torch.zeros(0, 4), 7).shape == (0, 7, 7)


def test_pasted_masks_fill_their_box():
    full = paste(
        torch.ones(2, 28, 28),
        torch.tensor([[2.0, 3.0, 12.0, 9.0], [-4.0, -4.0, 5.0, 30.0]]),
        height=20,
        width=16,
    )
    want = torch.zeros(2, 20, 16, dtype=torch.bool)
    want[0, 3:9, 2:12] = True
    want[1, :, :5] = True
    assert torch.equal(full, want)
    assert paste(torch.zeros(0, 1, 1), torch.zeros(0, 4), height=4, width=5).shape == (0, 4, 5)


@pytest.mark.detectron2
def test_pasting_equals_detectron2s():
    from detectron2.layers import paste_masks_in_image

    torch.manual_seed(0)
    corner = torch.rand(6, 2) * 30 - 4
    boxes = torch.cat([corner, corner + 3 + torch.rand(6, 2) * 25], dim=1)
    probabilities = torch.rand(6, 14, 14)
    ours = paste(probabilities, boxes, height=40, width=36)
    assert torch.equal(ours, paste_masks_in_image(probabilities, boxes, (40, 36)))


def test_rle_holds_the_mask():
    from pycocotools import mask as rle

    masks = torch.rand(3, 9, 7, generator=torch.Generator().manual_seed(0)) > 0.5
    codes = to_rle(masks)
    assert all(isinstance(code["counts"], str) for code in codes)
    assert np.array_equal(rle.decode(codes).transpose(2, 0, 1), masks.numpy())
    assert to_rle(masks[:0]) == []


# Images and boxes


def test_resizing_keeps_the_long_side_within_bounds():
    assert resized(375, 500, short=800, most=1333) == (800, 1067)
    assert resized(200, 1000, short=800, most=1333) == (267, 1333)
    assert resized(64, 64, short=64, most=100) == (64, 64)


@pytest.mark.detectron2
def test_resizing_equals_detectron2s():
    from detectron2.data.transforms import ResizeShortestEdge

    for height, width in [(375, 500), (333, 500), (500, 281), (128, 160), (200, 1000), (97, 113)]:
        for short in (480, 512, 800):
            want = ResizeShortestEdge.get_output_shape(height, width, short, 1333)
            assert resized(height, width, short=short, most=1333) == want


def test_boxes_and_masks_follow_the_image(data):
    record = data.records[0]
    image = load(record, short=96, most=200)
    target = truth(record, image.shape[-2:], masks=True)
    assert image.dtype == torch.uint8 and image.shape == (3, 128, 96)
    for box, mask, original in zip(target["boxes"], target["masks"], record.boxes, strict=True):
        assert box.tolist() == pytest.approx([2 * v for v in original.xyxy])
        rows, columns = torch.where(mask > 0)
        drawn = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
        assert [float(v) for v in drawn] == pytest.approx(box.tolist())
    assert target["labels"].tolist() == [box.category + 1 for box in record.boxes]
    flipped_image, flipped = mirror(image, target)
    assert torch.equal(flipped_image.flip(-1), image)
    for box, mask in zip(flipped["boxes"], flipped["masks"], strict=True):
        columns = torch.where(mask > 0)[1]
        assert [float(columns.min()), float(columns.max() + 1)] == pytest.approx(
            box[[0, 2]].tolist()
        )
    again = mirror(flipped_image, flipped)[1]
    assert torch.equal(again["boxes"], target["boxes"])


def test_boxes_are_scaled_and_mirrored_in_float64():
    """Rounded once, at the end: the last bit decides which of many anchors is the best."""
    box = Box(xyxy=(3.7, 1.1, 20.3, 17.9), category=0)
    record = ImageRecord(file="x.png", id="x", height=48, width=61, boxes=[box])
    target = truth(record, (200, 254), masks=False)
    x, y = 254 / 61, 200 / 48
    expected = np.array([3.7 * x, 1.1 * y, 20.3 * x, 17.9 * y])
    assert np.array_equal(target["boxes"][0].numpy(), expected)
    _, mirrored = mirror(torch.zeros(3, 200, 254), target)
    assert mirrored["boxes"][0, 0].item() == 254 - 20.3 * x


def test_batches_from_any_step_are_the_same(data):
    recipe = small_recipe(train_sizes=[48, 64], max_size=100, outputs="masks")
    batches = TrainingBatches(data, recipe=recipe, seed=3)
    stream = batches.iterate(0)
    first = [next(stream) for _ in range(6)]
    late = next(TrainingBatches(data, recipe=recipe, seed=3, workers=1).iterate(5))
    assert late["seed"] == first[5]["seed"]
    for a, b in zip(first[5]["images"], late["images"], strict=True):
        assert torch.equal(a, b)
    for a, b in zip(first[5]["targets"], late["targets"], strict=True):
        assert all(torch.equal(a[key], b[key]) for key in a)
    assert {image.shape[-1] > image.shape[-2] for image in first[0]["images"]} in ({True}, {False})
    sizes = {min(image.shape[-2:]) for batch in first for image in batch["images"]}
    assert sizes == {48, 64}


def test_every_image_is_seen_once_per_epoch(data):
    recipe = small_recipe(batch_size=1)
    members = TrainingBatches(data, recipe=recipe, seed=0).members()
    positions = [next(members)[0] for _ in range(30)]
    assert sorted(positions) == list(range(30))


def test_rare_classes_come_more_often_and_batches_follow_from_the_step(data):
    records = [
        dataclasses.replace(r, boxes=[b for b in r.boxes if not b.category][:1])
        for r in data.records
    ]
    rare = dataclasses.replace(records[0], boxes=[Box((4.0, 4.0, 20.0, 20.0), 1)])
    uneven = dataclasses.replace(data, records=[rare, *(r for r in records[1:] if r.boxes)])
    count = len(uneven.records)
    # Of class 1 there is one image of `count`: its factor is sqrt(t * count) = 2.
    recipe = small_recipe(batch_size=1, train_sizes=[48], repeat_threshold=4 / count)

    def batches():
        return TrainingBatches(uneven, recipe=recipe, seed=3)

    members = batches().members()
    epoch = [next(members)[0] for _ in range(count + 1)]
    assert sorted(epoch) == list(range(count + 1))
    targets = [batches().sample(position)[1]["labels"].tolist() for position in epoch]
    assert targets.count([2]) == 2
    stream = batches().iterate(0)
    first = [next(stream) for _ in range(count + 4)]
    late = next(batches().iterate(count + 3))
    assert torch.equal(late["images"][0], first[-1]["images"][0])


def test_data_that_cannot_be_trained_on_is_refused(data):

    bare = dataclasses.replace(
        data, records=[dataclasses.replace(r, boxes=[]) for r in data.records]
    )
    with pytest.raises(UserError, match="no image has a box"):
        TrainingBatches(bare, recipe=small_recipe(), seed=0)
    boxes = [dataclasses.replace(box, mask=None) for box in data.records[0].boxes]
    unmasked = dataclasses.replace(
        data, records=[dataclasses.replace(data.records[0], boxes=boxes)]
    )
    with pytest.raises(UserError, match="a box without a mask"):
        TrainingBatches(unmasked, recipe=small_recipe(outputs="masks"), seed=0)


# Detectors


@pytest.mark.parametrize(
    ("stem", "head", "strides"),
    [
        ("small", "fpn", [2, 4, 8, 16, 32]),
        ("imagenet", "fpn", [4, 8, 16, 32, 64]),
        ("small", "c4", [8]),
        ("imagenet", "c4", [16]),
    ],
)
def test_anchors_and_pooling_follow_the_backbone(stem, head, strides):
    model = detector(stem=stem, head=head, fpn_first=1, anchor_sizes=[4])
    generator = model.rpn.anchor_generator
    assert generator.strides == strides
    assert [list(sizes) for sizes in generator.sizes] == [[4 * s] for s in strides]
    pooled = strides[:-1] if head == "fpn" else strides
    assert model.roi_heads.box_roi_pool.strides == pooled
    side = 64
    maps = model.backbone(torch.rand(1, 3, side, side))
    assert [side // m.shape[-1] for m in maps.values()] == strides
    assert model.transform.size_divisible == (strides[-2] if head == "fpn" else 1)


def test_c4_runs_layer4_and_the_extra_norm_on_regions():
    model = detector(head="c4")
    source = encoder()
    head = model.roi_heads.box_head
    for (name, got), want in zip(
        head.layer4.state_dict().items(), source.layer4.state_dict().values(), strict=True
    ):
        assert torch.equal(got, want), name
    assert isinstance(head.norm, BatchNorm) and head.norm.num_features == source.channels[3]
    assert not hasattr(detector(head="c4", extra_norm=False).roi_heads.box_head, "norm")
    # layer4 is not run on the image as well, and is in the state once.
    names = list(model.state_dict())
    assert not any("encoder.layer4" in name for name in names)


def test_every_layer_is_trained_and_norms_have_no_weight_decay():
    task = DetectionTask(detector(head="fpn", outputs="masks"))
    assert all(parameter.requires_grad for parameter in task.parameters())
    groups = optim.parameter_groups(task, lr=0.1, weight_decay=1e-4, exclude=["norm"])
    decays = {id(p): g["weight_decay"] for g in groups for p in g["params"]}
    norms = [m for m in task.modules() if isinstance(m, BatchNorm)]
    assert all(decays[id(m.weight)] == 0 and decays[id(m.bias)] == 0 for m in norms)
    assert decays[id(task.detector.roi_heads.box_predictor.cls_score.bias)] == 1e-4


def test_frozen_norms_and_layers_stay_as_they_are(data):
    recipe = {"head": "c4", "norm": "FrozenBN", "freeze_at": 2}
    _, model = losses(data, steps=2, **recipe)
    source = {name: value for name, value in encoder().state_dict().items() if "num_" not in name}
    head = {f"layer4.{n}": v for n, v in model.roi_heads.box_head.layer4.state_dict().items()}
    state = {**model.backbone.encoder.state_dict(), **head}
    assert state.keys() == source.keys()
    for name, before in source.items():
        learns = name.startswith(("layer2", "layer3", "layer4")) and before.dim() == 4
        assert torch.equal(state[name], before) != learns, name
    norm = model.roi_heads.box_head.norm
    assert not list(norm.parameters()) and (norm.weight == 1).all() and not norm.bias.any()
    pyramid = detector(head="fpn", norm="FrozenBN").backbone.fpn
    assert not any("running_mean" in name for name in pyramid.state_dict())


def test_the_encoder_given_is_left_alone():
    source = encoder()
    before = {name: value.clone() for name, value in source.state_dict().items()}
    model = Detector(
        encoder=source.eval().requires_grad_(False),
        classes=2,
        recipe=small_recipe(head="c4"),
        preprocess=PREPROCESS,
        seed=0,
    )
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(1)
    assert all(torch.equal(before[name], value) for name, value in source.state_dict().items())
    assert not any(parameter.requires_grad for parameter in source.parameters())


def test_images_are_normalised_and_padded():
    model = detector(head="fpn", fpn_first=1)
    image = torch.full((3, 40, 50), 0.9)
    batch = model.transform([image])[0]
    assert batch.tensors.shape == (1, 3, 48, 64)
    want = [(0.9 - m) / s for m, s in zip(PREPROCESS.mean, PREPROCESS.std, strict=True)]
    assert batch.tensors[0, :, 39, 49].tolist() == pytest.approx(want, rel=1e-5)
    assert not batch.tensors[0, :, 40:].any() and not batch.tensors[0, :, :, 50:].any()


def test_bgr_weights_are_refused():
    with pytest.raises(ConfigError, match="BGR"):
        Detector(
            encoder=encoder(),
            classes=2,
            recipe=small_recipe(),
            preprocess=Preprocess(
                size=32, resize=None, mean=(0, 0, 0), std=(1, 1, 1), channel_order="BGR"
            ),
            seed=0,
        )


def losses(data, *, steps=2, **settings):
    """Losses of a few updates, and the detector."""
    recipe = small_recipe(iterations=steps, warmup=0, **settings)
    torch.manual_seed(99)  # nothing may depend on it
    model = Detector(
        encoder=encoder(),
        classes=2,
        recipe=recipe,
        preprocess=PREPROCESS,
        seed=0,
    )
    task = DetectionTask(model)
    groups = optim.parameter_groups(task, lr=0.01, weight_decay=1e-4, exclude=["norm"])
    seen = []
    task.register_forward_hook(
        lambda _m, _i, out: seen.append({k: float(v.detach()) for k, v in out.items()})
    )
    Trainer(
        task=task,
        optimizer=torch.optim.SGD(groups, lr=0.01, momentum=0.9),
        schedule=recipe.schedule(),
        batches=TrainingBatches(data, recipe=recipe, seed=0),
        total_steps=steps,
        precision="fp32",
    ).fit()
    return seen, model


@pytest.mark.parametrize("head", ["fpn", "c4"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "testing"])
def test_boxes_are_float32_in_bfloat16(head, training, monkeypatch):
    """Anchors, proposals, their targets and what is found; at 500 px bfloat16 has steps of 2."""
    model = detector(head=head, outputs="masks", score_threshold=0.0).train(training)
    seen = {}

    def spy(owner, name):
        original = getattr(owner, name)

        def noting(*arguments, **named):
            seen[name] = (arguments, original(*arguments, **named))
            return seen[name][1]

        monkeypatch.setattr(owner, name, noting)

    for owner, name in (
        (model.rpn.anchor_generator, "forward"),
        (model.rpn.box_coder, "decode"),
        (model.rpn, "filter_proposals"),
        (model.roi_heads, "select_training_samples"),
        (model.roi_heads, "postprocess_detections"),
        (model.roi_heads.box_roi_pool, "_pool"),
    ):
        spy(owner, name)
    image = torch.rand(3, 200, 500, generator=torch.Generator().manual_seed(0))
    masks = torch.zeros(1, 200, 500, dtype=torch.uint8)
    masks[:, 20:90, 401:471] = 1
    box = torch.tensor([[401.0, 20.0, 471.0, 90.0]])
    target = {"boxes": box, "labels": torch.tensor([1]), "masks": masks}
    model.seed(0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = model([image], [target] if training else None)
    (anchors,) = seen["forward"][1]
    images, maps = seen["forward"][0]
    assert maps[0].dtype == torch.bfloat16
    plain = model.rpn.anchor_generator(images, [each.float() for each in maps])
    assert anchors.dtype == torch.float32 and torch.equal(anchors, plain[0])
    assert seen["decode"][1].dtype == torch.float32
    (proposals,), (scores,) = seen["filter_proposals"][1]
    assert proposals.dtype == scores.dtype == torch.float32
    assert not torch.equal(proposals, proposals.bfloat16().float())
    assert seen["_pool"][0][1].dtype == torch.float32
    if training:
        sampled, _, _, deltas = seen["select_training_samples"][1]
        assert sampled[0].dtype == deltas[0].dtype == torch.float32
        assert all(loss.dtype == torch.float32 and loss.isfinite() for loss in found.values())
    else:
        logits, predicted = seen["postprocess_detections"][0][:2]
        assert logits.dtype == predicted.dtype == found[0]["boxes"].dtype == torch.float32
        assert not torch.equal(found[0]["boxes"], found[0]["boxes"].bfloat16().float())


@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_training_is_finite_repeatable_and_predicts_masks(data, head):
    settings = {"head": head, "outputs": "masks", "score_threshold": 0.0}
    first, model = losses(data, **settings)
    second, _ = losses(data, **settings)
    assert first == second
    names = {"loss", "loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness"}
    assert names < set(first[0]) and all(math.isfinite(v) for v in first[1].values())
    assert first[0]["loss"] == pytest.approx(
        sum(v for k, v in first[0].items() if k != "loss"), rel=1e-5
    )
    found = model.predict_all(data)
    record = data.records[0]
    prediction = found[record.id]
    assert list(found) == [r.id for r in data.records]
    assert 0 < len(prediction.scores) <= 20
    assert prediction.labels.min() >= 0 and prediction.labels.max() <= 1
    limit = torch.tensor([record.width, record.height] * 2)
    assert (prediction.boxes >= 0).all() and (prediction.boxes <= limit).all()
    assert all(code["size"] == [record.height, record.width] for code in prediction.masks)
    assert len(prediction.masks) == len(prediction.scores)


def test_boxes_come_back_in_pixels_of_the_original(data):
    """Tested at twice the size, a detector finds the same place in the original's pixels."""
    _, model = losses(data, head="fpn", score_threshold=0.0, steps=1)
    record = data.records[0]
    image = load(record, short=96, most=200)
    model.eval()
    found = model.predict(image, height=record.height, width=record.width)
    with torch.no_grad():
        raw = model([image.float() / 255])[0]["boxes"]
    assert torch.allclose(found.boxes, raw / 2, atol=1e-4)


def test_sampled_regions_follow_the_batch_seed(data):
    recipe = small_recipe(head="fpn", roi_batch=8, rpn_batch=8)
    task = DetectionTask(detector(head="fpn", roi_batch=8, rpn_batch=8))
    batch = next(TrainingBatches(data, recipe=recipe, seed=0).iterate(0))
    same = [task(batch)["loss"].item() for _ in range(2)]
    other = task({**batch, "seed": batch["seed"] + 1})["loss"].item()
    assert same[0] == same[1] != other


@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_parts_of_a_batch_have_the_gradient_of_the_batch(data, head, monkeypatch):
    """Norms rest, the samplers take the first of each kind, and every image has as many regions."""
    monkeypatch.setattr(torch, "randperm", lambda n, **given: torch.arange(n))
    gradients = []
    for accumulate in (1, 2):
        settings = {"batch_size": 4, "roi_batch": 4, "flip": False, "norm": "FrozenBN"}
        recipe = small_recipe(head=head, accumulate=accumulate, **settings)
        task = DetectionTask(detector(head=head, **settings))
        for name, buffer in task.named_buffers():
            if name.endswith("bn2.weight"):
                buffer.fill_(1.0)  # a fresh net's is 0 and hides what comes before it
        stream = TrainingBatches(data, recipe=recipe, seed=0).iterate(accumulate)
        for _ in range(accumulate):
            batch = next(stream)
            assert batch["size"] == 4 // accumulate
            (task(batch)["loss"] / accumulate).backward()
        gradients.append({n: p.grad for n, p in task.named_parameters() if p.grad is not None})
    whole, parts = gradients
    assert whole.keys() == parts.keys()
    for name, gradient in whole.items():
        near = 1e-6 * max(1.0, gradient.abs().max().item())
        assert torch.allclose(gradient, parts[name], atol=near), name


def test_the_images_of_a_batch_do_not_hang_on_its_parts(data):
    def images(accumulate, start, count):
        recipe = small_recipe(batch_size=4, accumulate=accumulate)
        stream = TrainingBatches(data, recipe=recipe, seed=0).iterate(start)
        return [image for _ in range(count) for image in next(stream)["images"]]

    whole, parts = images(1, 1, 2), images(2, 2, 4)
    assert len(whole) == len(parts) == 8
    assert all(torch.equal(a, b) for a, b in zip(whole, parts, strict=True))
    with pytest.raises(ConfigError, match="accumulate=3: batch_size=4 does not divide by it"):
        images(3, 0, 1)
