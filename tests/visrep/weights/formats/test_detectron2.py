"""Detectron2's files: visrep's own, and folded norms in Detectron2's own backbone."""

import pickle

import pytest
import torch

from tests.oracles.checkpoints.frameworks import caffe2, detector, moco_converted
from tests.oracles.encoders import in_memory
from visrep.d2 import pkl as d2
from visrep.errors import UserError
from visrep.weights import read_weights
from visrep.weights.foreign import Choice
from visrep.weights.reading import encoder_of


def test_a_file_that_visrep_wrote_is_read_back(tmp_path):
    file = in_memory(stem="d", depth=26, width=0.125)
    d2.write_pkl(tmp_path / "x.pkl", file)
    back = read_weights(tmp_path / "x.pkl")
    assert back.kind == "Detectron2"
    assert (back.backbone, back.preprocess, back.sha256) == (
        file.backbone,
        file.preprocess,
        file.sha256,
    )
    with pytest.raises(UserError, match="says itself what net it holds"):
        read_weights(tmp_path / "x.pkl", Choice(padding="tf"))


def test_there_and_back_is_the_same_to_the_bit(tmp_path):
    """BGR and folded norms: the channels are not turned on the way, the order is told."""
    (tmp_path / "R-50.pkl").write_bytes(pickle.dumps(caffe2("pickle").content, protocol=2))
    file = read_weights(tmp_path / "R-50.pkl")
    d2.write_pkl(tmp_path / "x.pkl", file)
    back = read_weights(tmp_path / "x.pkl")
    backbone = file.part("")
    assert back.tensors.keys() == backbone.keys()
    assert all(torch.equal(back.tensors[name], backbone[name]) for name in backbone)
    assert back.preprocess["channel_order"] == "BGR"
    conv1 = torch.from_numpy(caffe2("pickle").content["conv1_w"])
    assert torch.equal(back.tensors["conv1.weight"], conv1)


@torch.inference_mode()
def test_folded_norms_are_the_scale_and_the_offset():
    """var + eps is exactly 1 in float32, so nothing but weight * x + bias is left."""
    net = caffe2("torch").net
    norm = net.bn1
    x = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(1))
    expected = x * norm.weight[:, None, None] + norm.bias[:, None, None]
    assert float((norm(x) - expected).abs().max()) <= 2e-7 * float(expected.abs().max())


@pytest.mark.detectron2
@pytest.mark.parametrize("c4", [False, True])
@torch.inference_mode()
def test_features_are_those_of_detectron2s_own_backbone(tmp_path, c4):
    pytest.importorskip("detectron2", reason="Detectron2 is not installed")
    from detectron2.modeling.backbone.resnet import BasicStem, ResNet

    case = detector(c4=c4, folded=True)
    torch.save(case.content, tmp_path / "model_final.pth")
    stages = ResNet.make_default_stages(50, norm="FrozenBN", stride_in_1x1=True)
    theirs = ResNet(BasicStem(3, 64, norm="FrozenBN"), stages, out_features=["res5"])
    narrow = _narrow(theirs)
    state = {
        name.removeprefix("backbone.bottom_up.")
        .removeprefix("backbone.")
        .removeprefix("roi_heads."): tensor
        for name, tensor in case.content["model"].items()
        if ".res" in name or ".stem." in name
    }
    narrow.load_state_dict({k: t for k, t in state.items() if "num_batches" not in k})
    images = torch.randn(2, 3, 96, 96, generator=torch.Generator().manual_seed(1))
    expected = narrow.eval()(images)["res5"].mean((2, 3))
    given = encoder_of(read_weights(tmp_path / "model_final.pth"))(images)
    assert float((given - expected).abs().max() / expected.abs().max()) <= 1e-5


def _narrow(backbone):
    """Detectron2's ResNet-50 sixteen times narrower, module by module."""
    from detectron2.layers import Conv2d, FrozenBatchNorm2d

    for module in backbone.modules():
        for name, child in list(module.named_children()):
            if isinstance(child, Conv2d):
                ins = 3 if child.in_channels == 3 else child.in_channels // 16
                outs = child.out_channels // 16
                conv = Conv2d(ins, outs, child.kernel_size, child.stride, child.padding, bias=False)
                conv.norm = FrozenBatchNorm2d(outs)
                setattr(module, name, conv)
    return backbone


def test_a_detector_without_res5_is_refused(tmp_path):
    content = moco_converted("torch").content
    content["model"] = {k: t for k, t in content["model"].items() if not k.startswith("res5.")}
    torch.save(content, tmp_path / "x.pth")
    with pytest.raises(UserError, match="its stages have 3, 4, 6, 0 bottleneck blocks"):
        read_weights(tmp_path / "x.pth")
