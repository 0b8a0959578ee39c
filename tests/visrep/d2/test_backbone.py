"""Our ResNet as Detectron2's backbone: names, strides, norms, freezing."""

import pickle

import pytest
import torch

from tests.oracles.detectron2_files import config, converted
from tests.oracles.encoders import net
from visrep.d2 import backbone
from visrep.d2 import pkl as d2
from visrep.d2.verify import quiet
from visrep.errors import UserError
from visrep.weights import EncoderFile

pytestmark = pytest.mark.detectron2


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_without_name_matching_the_names_fit_exactly(tmp_path, stem):
    from detectron2.modeling import build_backbone

    file = converted(tmp_path, depth=50, width=0.0625, stem=stem)
    with open(tmp_path / "x.pkl", "rb") as stream:
        model = pickle.load(stream)["model"]
    backbone = build_backbone(config(tmp_path, visrep=stem == "small")).bottom_up
    state = {name: torch.from_numpy(array) for name, array in model.items()}
    missing, unexpected = backbone.load_state_dict(state, strict=False)
    assert not unexpected
    assert all(name.endswith("num_batches_tracked") for name in missing)
    after = backbone.state_dict()
    assert all(torch.equal(after[name], state[name]) for name in state)
    assert file.tensors.keys() == set(file.part(""))


def fitted(model: torch.nn.Module, file: EncoderFile, prefix: str) -> int:
    """How many tensors of the encoder sit under `prefix` in Detectron2's state dict, all equal."""
    state = model.state_dict()
    names = {d2.detectron2_name(n, stem=file.backbone["stem"]): n for n in file.part("")}
    under = {name: prefix + name for name in names if prefix + name in state}
    assert all(torch.equal(state[at], file.tensors[names[n]]) for n, at in under.items())
    return len(under)


@pytest.mark.parametrize("stem", ["imagenet", "small"])
def test_a_whole_detector_finds_the_encoder_and_detects(tmp_path, stem):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    file = converted(tmp_path, norm="BN", depth=50, width=0.0625, stem=stem)
    cfg = config(tmp_path, "INPUT.MIN_SIZE_TEST", 64, visrep=stem == "small")
    model = build_model(cfg)
    with quiet():
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    assert fitted(model, file, "backbone.bottom_up.") == 265
    images = torch.randint(0, 255, (3, 64, 96), dtype=torch.uint8)
    (result,) = model.eval()([{"image": images, "height": 64, "width": 96}])
    assert result["instances"].image_size == (64, 96)
    strides = [shape.stride for shape in model.backbone.output_shape().values()]
    assert strides == ([4, 8, 16, 32, 64] if stem == "imagenet" else [2, 4, 8, 16, 32])


def test_a_c4_backbone_and_its_stage_share_the_weights(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_backbone

    file = converted(tmp_path, norm="BN")
    cfg = config(tmp_path, visrep=True)
    cfg.MODEL.BACKBONE.NAME = "build_visrep_resnet_backbone"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res4"]
    detector = torch.nn.Module()
    detector.backbone = build_backbone(cfg)
    detector.roi_heads = torch.nn.Module()
    detector.roi_heads.res5 = backbone.build_visrep_stage(cfg, "res5")
    detector.roi_heads.res5.add_module("norm", torch.nn.BatchNorm2d(32))
    with quiet():
        DetectionCheckpointer(detector).load(str(tmp_path / "x.pkl"))
    assert fitted(detector, file, "backbone.") == 75
    assert fitted(detector, file, "roi_heads.") == 25
    # The extra norm is found by no tensor of the encoder and keeps its own name.
    extra = detector.roi_heads.res5.norm
    assert torch.equal(extra.weight, torch.ones(32))
    assert "roi_heads.res5.norm.weight" in detector.state_dict()
    assert detector.backbone.output_shape().keys() == {"res4"}
    # Nothing is left that would get no gradient.
    images = torch.randn(2, 3, 64, 64)
    features = detector.eval().backbone(images)
    assert list(features) == ["res4"]
    out = detector.roi_heads.res5[:-1](features["res4"])
    assert torch.equal(out, net().feature_maps(images)[3])
    out.sum().backward()
    unused = {name for name, p in detector.named_parameters() if p.grad is None}
    assert unused == {"roi_heads.res5.norm.weight", "roi_heads.res5.norm.bias"}
    # What Detectron2 saves, it reads again.
    again = torch.nn.Module()
    again.backbone = build_backbone(cfg)
    again.roi_heads = torch.nn.Module()
    again.roi_heads.res5 = backbone.build_visrep_stage(cfg, "res5")
    again.roi_heads.res5.add_module("norm", torch.nn.BatchNorm2d(32))
    again.load_state_dict(detector.state_dict(), strict=True)
    for name, tensor in detector.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name])


def test_a_checkpoint_of_another_width_is_an_error_that_says_so(tmp_path):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_backbone

    converted(tmp_path)
    saved = build_backbone(config(tmp_path, "MODEL.VISREP.WIDTH", 0.125, visrep=True))
    torch.save({"model": saved.state_dict()}, tmp_path / "model_final.pth")
    backbone = build_backbone(config(tmp_path, visrep=True))
    with pytest.raises(AttributeError, match=r"other shapes than the net of MODEL\.VISREP"):
        DetectionCheckpointer(backbone).load(str(tmp_path / "model_final.pth"))


def test_registering_twice_changes_nothing():
    from detectron2.modeling import BACKBONE_REGISTRY

    backbone.register()
    first = BACKBONE_REGISTRY.get("build_visrep_resnet_backbone")
    backbone.register()
    assert BACKBONE_REGISTRY.get("build_visrep_resnet_backbone") is first


def test_freezing_stops_gradients_and_statistics(tmp_path):
    from detectron2.layers import FrozenBatchNorm2d
    from detectron2.modeling import build_backbone

    converted(tmp_path, norm="BN")
    cfg = config(tmp_path, "MODEL.BACKBONE.FREEZE_AT", 2, visrep=True)
    frozen = build_backbone(cfg).bottom_up.net
    assert isinstance(frozen.bn1, FrozenBatchNorm2d)
    assert isinstance(frozen.layer1[0].bn1, FrozenBatchNorm2d)
    assert isinstance(frozen.layer2[0].bn1, torch.nn.BatchNorm2d)
    assert not any(p.requires_grad for p in [*frozen.conv1.parameters()])
    assert not any(p.requires_grad for p in frozen.layer1.parameters())
    assert all(p.requires_grad for p in frozen.layer2.parameters())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["MODEL.RESNETS.NORM", ""], "NORM is empty"),
        (["MODEL.RESNETS.OUT_FEATURES", "['stem']"], "OUT_FEATURES stem"),
        (["MODEL.PIXEL_MEAN", "[1.0]"], "3 channels, not 1"),
    ],
)
def test_what_our_backbone_cannot_do_is_said(tmp_path, options, message):
    from detectron2.modeling import build_backbone

    converted(tmp_path)
    with pytest.raises(UserError, match=message):
        build_backbone(config(tmp_path, *options, visrep=True))
