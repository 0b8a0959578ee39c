"""The Detectron2 engine: its config, weights in place, data, and runs of a few iterations."""

import contextlib
import dataclasses
import itertools
import logging
import math
import shutil

import pytest
import torch

from tests.oracles.encoders import stir
from tests.processes import run_on_two
from tests.transfer.detection.shapes import shapes, small_recipe
from visrep import dist, signals
from visrep.d2.data import register
from visrep.d2.loader import TrainingLoader
from visrep.d2.pkl import detectron2_name
from visrep.d2.settings import detection_settings, held_by_detectron2, norm_in_words, norm_name
from visrep.d2.tasks import recipe_of
from visrep.d2.weights import place
from visrep.data.images import BrokenImages
from visrep.data.preprocess import Preprocess
from visrep.engine import optim
from visrep.engine.run import Run
from visrep.engine.writers import Meter
from visrep.errors import CheckFailed, ConfigError, Diverged, UserError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import engine_d2
from visrep.weights import EncoderFile

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3))
needs = pytest.mark.detectron2


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("shapes"), images=10, seed=0)


@pytest.fixture
def run(tmp_path):
    return Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="visrep detect")


def encoder(**spec):
    torch.manual_seed(1)
    return ResNet(**{"depth": 18, "width": 0.125, "stem": "small", **spec})


def train(run, data, net=None, opts=(), **settings):
    kept = settings.pop("snapshot_every", 0)
    precision = settings.pop("precision", "fp32")
    return engine_d2.train(
        encoder=net or encoder(),
        preprocess=PREPROCESS,
        dataset=data,
        recipe=small_recipe(**settings),
        run=run,
        workers=0,
        precision=precision,
        snapshot_every=kept,
        log_every=2,
        opts=opts,
    )


def nested(net, **settings):
    file = EncoderFile(backbone=net.spec, preprocess=PREPROCESS.to_dict(), tensors=net.state_dict())
    return detection_settings(file, small_recipe(**settings), norm="BN")


# Settings (these need no Detectron2)


def test_nets_that_detectron2_holds_run_in_its_own_resnet():
    with torch.device("meta"):
        resnet50, resnet18 = ResNet(depth=50).spec, ResNet(depth=18).spec
        selective = ResNet(depth=50, sk=True, stem="d").spec
    fpn, c4 = small_recipe(head="fpn"), small_recipe(head="c4")
    assert held_by_detectron2(resnet50, fpn) and held_by_detectron2(resnet50, c4)
    assert held_by_detectron2(resnet18, fpn)
    assert not held_by_detectron2(resnet18, c4)  # its C4 head would be three bottlenecks
    assert not held_by_detectron2(selective, fpn) and not held_by_detectron2(encoder().spec, fpn)


def test_settings_follow_recipe_and_strides():
    model = nested(encoder(), head="fpn", fpn_first=2, anchor_sizes=[6])["MODEL"]
    assert model["BACKBONE"]["NAME"] == "build_visrep_resnet_fpn_backbone"
    assert model["FPN"]["IN_FEATURES"] == ["res3", "res4", "res5"]
    assert model["RPN"]["IN_FEATURES"] == ["p2", "p3", "p4", "p5"]
    assert model["ROI_HEADS"]["IN_FEATURES"] == ["p2", "p3", "p4"]
    assert model["ANCHOR_GENERATOR"]["SIZES"] == [[24], [48], [96], [192]]
    assert model["BACKBONE"]["FREEZE_AT"] == 0
    assert model["PIXEL_MEAN"] == pytest.approx([255 * v for v in PREPROCESS.mean])
    assert model["PIXEL_STD"] == pytest.approx([255 * v for v in PREPROCESS.std])
    config = nested(encoder(), head="c4", anchor_sizes=[1, 2], iterations=100, decay_at=[0.5, 0.9])
    assert config["MODEL"]["ROI_HEADS"]["NAME"] == "VisrepRes5ROIHeadsExtraNorm"
    assert config["MODEL"]["ANCHOR_GENERATOR"]["SIZES"] == [[8, 16]]
    assert config["SOLVER"]["STEPS"] == [50, 90]
    assert config["SOLVER"]["WEIGHT_DECAY_NORM"] == 0
    assert config["INPUT"]["FORMAT"] == "RGB"


def test_norms_are_shared_over_processes(monkeypatch):
    cpu, cuda = torch.device("cpu"), torch.device("cuda")
    assert norm_name("BN", cpu) == norm_name("BN", cuda) == "BN"
    assert norm_name("naiveSyncBN", cpu) == "naiveSyncBN"
    assert norm_in_words("BN") == "BN, the statistics of one process"
    monkeypatch.setattr("visrep.dist.world_size", lambda: 2)
    assert (norm_name("BN", cpu), norm_name("BN", cuda)) == ("naiveSyncBN", "SyncBN")
    assert norm_name("FrozenBN", cuda) == "FrozenBN" and norm_name("SyncBN", cuda) == "SyncBN"
    assert norm_name("naiveSyncBN", cuda) == "naiveSyncBN"
    with pytest.raises(ConfigError, match="norm=SyncBN: torch has it on GPUs only"):
        norm_name("SyncBN", cpu)
    assert norm_in_words("naiveSyncBN") == "naiveSyncBN, the statistics of 2 processes"


# Config, weights, data


@needs
def test_own_settings_win_and_unknown_ones_are_refused(run, data):
    def configure(opts):
        return engine_d2.configure(
            encoder(), PREPROCESS, data, small_recipe(), run=run, workers=0, opts=opts
        )

    assert configure(["SOLVER.GAMMA", 0.5]).SOLVER.GAMMA == 0.5
    for opts in (["SOLVER.GAMA", 0.5], ["SOLVER.GAMMA"], ["SOLVER.GAMMA", "much"]):
        with pytest.raises(ConfigError, match="d2_opts"):
            configure(opts)


@needs
def test_schedule_is_the_torchvision_engines(run, data):
    from detectron2.solver import build_lr_scheduler

    settings = {"iterations": 40, "warmup": 6, "decay_at": [0.5, 0.75]}
    cfg = engine_d2.configure(
        encoder(), PREPROCESS, data, small_recipe(**settings), run=run, workers=0
    )
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=cfg.SOLVER.BASE_LR)
    theirs = build_lr_scheduler(cfg, optimizer)
    ours = small_recipe(**settings).schedule()
    for step in range(40):
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.02 * ours(step / 40), rel=1e-6)
        optimizer.step()
        theirs.step()


@needs
@pytest.mark.parametrize("head", ["fpn", "c4"])
@pytest.mark.parametrize(
    "spec",
    [
        {},
        {"depth": 18, "width": 1, "stem": "imagenet"},
        {"depth": 50, "width": 1, "stem": "imagenet"},
        {"depth": 50, "sk": True, "stem": "d"},
    ],
    ids=["small", "resnet18", "resnet50", "selective"],
)
def test_every_tensor_finds_its_place_and_features_agree(run, data, spec, head):
    from detectron2.modeling import build_model

    net = encoder(**spec).eval()
    recipe = small_recipe(head=head, fpn_first=1)
    cfg = engine_d2.configure(net, PREPROCESS, data, recipe, run=run, workers=0)
    model = build_model(cfg).eval()
    own = "VisrepResNet" not in str(type(getattr(model.backbone, "bottom_up", model.backbone)))
    assert own == held_by_detectron2(net.spec, recipe)
    expected = sum(not name.endswith("num_batches_tracked") for name in net.state_dict())
    assert place(model, net) == expected
    image = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        maps = net.feature_maps(image)
        if head == "fpn":
            theirs = model.backbone.bottom_up(image)
            for name, ours in zip(("res2", "res3", "res4", "res5"), maps, strict=True):
                assert torch.allclose(theirs[name], ours, atol=1e-5 * ours.abs().max())
        else:
            assert torch.allclose(model.backbone(image)["res4"], maps[2], atol=1e-5)
            norm = model.roi_heads.res5.norm
            assert not norm.bias.any() and (norm.weight == 1).all()
            normed = norm(maps[3])
            got = model.roi_heads.res5(maps[2])
            assert torch.allclose(got, normed, atol=1e-5 * normed.abs().max())


@needs
def test_what_is_trained_is_looked_at_first(run, data, caplog):
    caplog.set_level(logging.INFO)
    train(run, data, iterations=1, warmup=0, decay_at=[])
    assert "100 of 100 tensors set; features equal to 1e-05" in caplog.text
    assert "linter: nothing fatal, warnings: " in caplog.text


@needs
@pytest.mark.parametrize(
    ("opts", "message"),
    [
        (["MODEL.RESNETS.STRIDE_IN_1X1", True], r"res\d differs by 0\.\d"),
        (["MODEL.PIXEL_STD", [1.0, 1.0, 1.0]], "its pixels are not those"),
        (["SOLVER.STEPS", (3, 2)], "Detectron2's config, steps: SOLVER.STEPS is .3, 2."),
    ],
)
def test_settings_that_spoil_the_encoder_end_the_run_before_its_first_step(
    run, data, opts, message
):
    net = stir(encoder(depth=50, width=0.0625, stem="imagenet"))
    with pytest.raises(CheckFailed, match=message):
        train(run, data, net, opts=opts)
    assert not (run.out / "snapshots").exists()


OWN = {"depth": 50, "width": 0.0625, "stem": "imagenet"}  # Detectron2's own ResNet holds it


@needs
@pytest.mark.parametrize("spec", [{}, OWN], ids=["visrep's", "own"])
def test_frozen_norms_and_layers_stay_as_they_are(run, data, spec):
    net = encoder(**spec)
    frozen = {"norm": "FrozenBN", "freeze_at": 2, "anchor_sizes": [1]}
    detector = train(run, data, net, head="c4", iterations=2, **frozen)
    state = detector.model.backbone.state_dict()
    compared = 0
    for name, before in net.state_dict().items():
        if name.endswith("num_batches_tracked") or name.startswith("layer4"):
            continue  # layer4 is the head
        learns = name.startswith(("layer2", "layer3")) and before.dim() == 4
        after = state[detectron2_name(name, stem=net.spec["stem"])]
        assert torch.equal(after, before) != learns, name
        compared += 1
    assert compared == (215 if spec else 75)


@needs
def test_a_dilated_res5_runs_in_detectron2s_own_backbone(run, data):
    net = encoder(**OWN)
    detector = train(run, data, net, head="dc5", iterations=2, anchor_sizes=[1], detectron2={})
    assert all(math.isfinite(loss) for loss in losses_of(run))
    assert detector.model.backbone.res5[0].conv2.dilation == (2, 2)
    assert detector.config.MODEL.ROI_HEADS.NUM_CLASSES == 2


@needs
def test_rare_classes_are_drawn_more_often_where_the_task_says_so(run, data):
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    def sampler(**settings):
        recipe = small_recipe(**settings)
        cfg = engine_d2.configure(encoder(), PREPROCESS, data, recipe, run=run, workers=0)
        return TrainingLoader(cfg, seed=0, start=0, broken=BrokenImages(0, 1)).sampler

    assert recipe_of("lvis05_fpn_1x").repeat_threshold == 0.001
    lvis = sampler(repeat_threshold=0.001)
    assert isinstance(lvis, RepeatFactorTrainingSampler)
    assert not isinstance(sampler(), RepeatFactorTrainingSampler)


@needs
@pytest.mark.parametrize("workers", [0, 1])
def test_batches_are_a_function_of_their_number(run, data, workers):
    recipe = small_recipe(train_sizes=[32, 40, 48])
    cfg = engine_d2.configure(encoder(), PREPROCESS, data, recipe, run=run, workers=workers)

    def batches(start, count):
        loader = TrainingLoader(cfg, seed=3, start=start, broken=BrokenImages(0, 1))
        return list(itertools.islice(loader, count))

    straight, late = batches(0, 9), batches(6, 3)
    assert len({image["image_id"] for batch in straight for image in batch}) == len(data.records)
    for one, other in zip(straight[6:], late, strict=True):
        for a, b in zip(one, other, strict=True):
            assert a["image_id"] == b["image_id"] and torch.equal(a["image"], b["image"])
            assert torch.equal(a["instances"].gt_boxes.tensor, b["instances"].gt_boxes.tensor)
    sides = {image["image"].shape[-2:] for batch in straight for image in batch}
    assert len(sides) > 2, "the sizes are drawn"
    for batch in straight:
        assert len({image["width"] > image["height"] for image in batch}) == 1


@needs
def test_a_changed_backbone_is_not_half_loaded(run, data):
    with pytest.raises(ConfigError, match="does not take the encoder's tensors"):
        train(run, data, opts=["MODEL.VISREP.DEPTH", 34])


@needs
def test_registering_again_is_harmless(data):
    from detectron2.data import DatasetCatalog, MetadataCatalog

    name = register(data)
    other = dataclasses.replace(data, classes=["round", "square"], records=data.records[:3])
    assert register(other) == name
    assert MetadataCatalog.get(name).thing_classes == ["round", "square"]
    entries = DatasetCatalog.get(name)
    assert len(entries) == 3
    assert entries[0]["annotations"][0]["bbox"] == list(data.records[0].boxes[0].xyxy)


# Runs


@needs
@pytest.mark.parametrize(
    ("unread", "value", "settings"),
    [
        ("MODEL.ROI_MASK_HEAD.CONV_DIM", 16, {}),
        ("MODEL.FPN.FUSE_TYPE", "avg", {"head": "c4"}),
        ("DATALOADER.REPEAT_THRESHOLD", 0.1, {}),
        ("MODEL.ROI_BOX_CASCADE_HEAD.IOUS", [0.5, 0.6, 0.7], {}),
        ("MODEL.RESNETS.DEPTH", 34, {}),  # the backbone is visrep's
        ("SOLVER.CLIP_GRADIENTS.CLIP_VALUE", 2.0, {}),  # and clipping is off
    ],
)
def test_a_setting_that_this_training_does_not_read_is_refused(run, data, unread, value, settings):
    with pytest.raises(ConfigError, match=f"nothing reads {unread} with head="):
        train(run, data, opts=["SOLVER.GAMMA", 0.5, unread, value], **settings)
    assert not (run.out / "metrics.jsonl").exists()


@needs
def test_settings_that_are_read_are_followed(run, data):
    read = {
        "MODEL.ROI_MASK_HEAD.CONV_DIM": 16,
        "DATALOADER.SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
        "DATALOADER.REPEAT_THRESHOLD": 0.9,
        "DATALOADER.REPEAT_SQRT": False,
        "SOLVER.CLIP_GRADIENTS.ENABLED": True,
        "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": 2.0,
        "INPUT.CROP.ENABLED": True,
        "INPUT.MIN_SIZE_TEST": 40,
        "TEST.DETECTIONS_PER_IMAGE": 3,
        "SOLVER.STEPS": [1],
        "MODEL.RPN.NMS_THRESH": 0.6,
    }
    opts = [part for pair in read.items() for part in pair]
    detector = train(run, data, outputs="masks", iterations=2, opts=opts)
    assert detector.model.roi_heads.mask_head.deconv.out_channels == 16
    assert max(len(found.scores) for found in detector.predict_all(data).values()) <= 3


def losses_of(run):
    import json

    lines = (run.out / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@needs
@pytest.mark.parametrize("head", ["fpn", "c4"])
def test_training_is_finite_and_predicts_masks(run, data, head, recwarn):
    detector = train(run, data, head=head, outputs="masks", precise_bn=2, score_threshold=0.0)
    assert all(math.isfinite(loss) for loss in losses_of(run)) and len(losses_of(run)) == 2
    found = detector.predict_all(data)
    record = data.records[0]
    prediction = found[record.id]
    assert list(found) == [r.id for r in data.records]
    assert 0 < len(prediction.scores) == len(prediction.masks) <= 20
    assert prediction.labels.min() >= 0 and prediction.labels.max() <= 1
    limit = torch.tensor([record.width, record.height] * 2)
    assert (prediction.boxes >= 0).all() and (prediction.boxes <= limit).all()
    assert all(code["size"] == [record.height, record.width] for code in prediction.masks)
    assert not list(recwarn)


@needs
def test_training_is_repeatable_and_follows_the_seed(tmp_path, data):
    results = []
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        (tmp_path / name).mkdir()
        run = Run(tmp_path / name, torch.device("cpu"), seed, {}, "")
        train(run, data, iterations=3)
        results.append(losses_of(run))
    assert results[0] == results[1] != results[2]


@needs
def test_a_run_that_goes_on_ends_with_the_very_same_weights(run, data, tmp_path):
    """Few anchors and regions are drawn of many, so that another draw would show."""
    settings = {"iterations": 4, "snapshot_every": 2, "rpn_batch": 8, "roi_batch": 4}
    straight = train(run, data, **settings).model.state_dict()
    cut = dataclasses.replace(run, out=tmp_path / "cut")
    (cut.out / "snapshots").mkdir(parents=True)
    shutil.copy(run.out / "snapshots/step-000000002.pt", cut.out / "snapshots")
    ended = train(cut, data, **settings).model.state_dict()
    assert all(torch.equal(ended[name], value) for name, value in straight.items())


@needs
def test_a_run_goes_on_from_its_snapshot(run, data, caplog):
    train(run, data, iterations=2, snapshot_every=2)
    logging.getLogger("visrep").propagate = True
    with caplog.at_level(logging.INFO, logger="visrep"):
        train(run, data, iterations=4, snapshot_every=2)
    assert "resumed from iteration 2" in caplog.text
    names = sorted(path.name for path in (run.out / "snapshots").iterdir())
    assert names == ["step-000000002.pt", "step-000000004.pt"]


@needs
def test_mistakes_are_one_line(run, data, tmp_path):
    with pytest.raises(Diverged, match="lower lr|Lower lr"):
        train(run, data, lr=1e9, warmup=0, iterations=8)
    with pytest.raises(ConfigError, match="on a GPU only"):
        train(run, data, precision="bf16")
    bad = tmp_path / "broken.png"
    bad.write_bytes(b"no image")
    broken = dataclasses.replace(
        data, records=[dataclasses.replace(r, file=str(bad)) for r in data.records]
    )
    with pytest.raises(UserError, match=r"cannot read image .*broken\.png"):
        train(run, broken)
    bare = dataclasses.replace(
        data, records=[dataclasses.replace(r, boxes=[]) for r in data.records]
    )
    with pytest.raises(UserError, match="no image has a box"):
        train(run, bare)


@needs
def test_norms_have_no_weight_decay(run, data):
    from detectron2.modeling import build_model

    for head in ("fpn", "c4"):
        cfg = engine_d2.configure(
            encoder(), PREPROCESS, data, small_recipe(head=head), run=run, workers=0
        )
        model = build_model(cfg)
        groups = engine_d2._optimizer(cfg, model).param_groups
        theirs = {id(p): group["weight_decay"] for group in groups for p in group["params"]}
        ours = optim.parameter_groups(model, lr=0.1, weight_decay=1e-4, exclude=["norm"])
        want = {id(p): group["weight_decay"] for group in ours for p in group["params"]}
        assert theirs == want and set(want.values()) == {0.0, 1e-4}


def read_on_main() -> dict:
    """A reading of what Detectron2 has brought together on the main process only."""
    meter = Meter(start=0, total=4, shared=False)
    if not dist.is_main():
        return {}
    meter.add({"loss": torch.tensor(3.0)})
    return {"loss": meter.read(1)["loss"]}


def test_a_reading_of_one_process_does_not_wait_for_others():
    assert run_on_two(read_on_main) == ({"loss": 3.0}, {})


@needs
def test_a_signal_saves_a_snapshot_of_that_step(run, data):
    @contextlib.contextmanager
    def told():
        held = signals.Held()
        held.signum = 15
        yield held

    with pytest.MonkeyPatch.context() as patch, pytest.raises(signals.Interrupted) as caught:
        patch.setattr(signals, "held", told)
        train(run, data, iterations=3, snapshot_every=0)
    assert caught.value.code == 143 and caught.value.note == signals.SAVED
    assert [path.name for path in (run.out / "snapshots").iterdir()] == ["step-000000001.pt"]
    train(run, data, iterations=3, snapshot_every=2)
    names = sorted(path.name for path in (run.out / "snapshots").iterdir())
    assert names == ["step-000000002.pt", "step-000000003.pt"]  # the last one is always kept
