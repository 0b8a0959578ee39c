"""The C4 heads: which name a config has, and that every program's head of that name is one net."""

import pytest
import torch
import yaml

from tests.oracles.detectron2_files import config, converted
from tests.oracles.encoders import in_memory
from visrep.d2 import heads, tasks
from visrep.d2.lint.config import read_config
from visrep.d2.lint.linter import lint
from visrep.d2.verify import verify

NARROW = {"depth": 50, "width": 0.0625, "stem": "imagenet"}


def test_a_head_is_named_as_the_program_calls_it_that_has_it():
    names = {
        (extra, own): heads.name_of(extra_norm=extra, own=own)
        for extra in (False, True)
        for own in (False, True)
    }
    assert names[False, True] == "Res5ROIHeads" and names[True, True] == "Res5ROIHeadsExtraNorm"
    assert [names[extra, False] for extra in (False, True)] == list(heads.OF_VISREP)


@pytest.fixture
def registry():
    """Detectron2's heads; what a test registers is gone after it."""
    from detectron2.modeling import ROI_HEADS_REGISTRY

    before = dict(ROI_HEADS_REGISTRY._obj_map)
    for name in (heads.EXTRA_NORM, *heads.OF_VISREP):
        ROI_HEADS_REGISTRY._obj_map.pop(name, None)
    yield ROI_HEADS_REGISTRY
    ROI_HEADS_REGISTRY._obj_map.clear()
    ROI_HEADS_REGISTRY._obj_map.update(before)


def strangers(registry):
    """A head such as MoCo's program has: Detectron2's, with a norm put behind it afterwards."""
    from detectron2.layers import get_norm
    from detectron2.modeling.roi_heads import Res5ROIHeads

    class Res5ROIHeadsExtraNorm(Res5ROIHeads):
        def __init__(self, cfg, input_shape):
            super().__init__(cfg, input_shape)
            width = 8 * cfg.MODEL.RESNETS.RES2_OUT_CHANNELS
            self.res5.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, width))

    registry.register(Res5ROIHeadsExtraNorm)
    return Res5ROIHeadsExtraNorm


def net(folder):
    from detectron2.modeling import build_model

    torch.manual_seed(0)
    return build_model(config(folder)).eval()


@pytest.mark.detectron2
def test_a_head_that_was_there_first_stays_and_is_the_same_net(tmp_path, registry):
    file = converted(tmp_path, norm="BN", task="voc0712_c4", **NARROW)
    theirs_class = strangers(registry)
    heads.register()
    heads.register()
    assert registry.get(heads.EXTRA_NORM) is theirs_class
    theirs = net(tmp_path)
    checked = verify(tmp_path / "x.pkl", file)
    registry._obj_map.pop(heads.EXTRA_NORM)
    heads.register()
    ours = net(tmp_path)
    assert type(theirs.roi_heads) is theirs_class and type(ours.roi_heads) is not theirs_class
    assert verify(tmp_path / "x.pkl", file) == checked
    ours.load_state_dict(theirs.state_dict())  # the same names, none more
    regions = torch.randn(2, theirs.roi_heads.res5[0].conv1.in_channels, 14, 14)
    ours.roi_heads.res5.norm.bias.data.add_(1)
    assert not torch.equal(ours.roi_heads.res5(regions), theirs.roi_heads.res5(regions))
    theirs.roi_heads.res5.norm.bias.data.add_(1)
    assert torch.equal(ours.roi_heads.res5(regions), theirs.roi_heads.res5(regions))


@pytest.mark.detectron2
@pytest.mark.parametrize("extra", [True, False])
def test_a_config_with_the_names_of_before_gives_the_same_net(tmp_path, extra):
    task = "voc0712_c4" if extra else "voc0712_c4_pirl"
    file = converted(tmp_path, norm="BN", task=task, **NARROW)
    heads.register()
    now = net(tmp_path).state_dict()
    text = (tmp_path / "x.yaml").read_text()
    name = heads.name_of(extra_norm=extra, own=True)
    assert yaml.safe_load(text)["MODEL"]["ROI_HEADS"]["NAME"] == name
    (tmp_path / "x.yaml").write_text(text.replace(f"NAME: {name}", f"NAME: Visrep{name}"))
    verify(tmp_path / "x.pkl", file)
    before = net(tmp_path).state_dict()
    assert before.keys() == now.keys()
    assert all(torch.equal(before[key], now[key]) for key in now)


def test_the_linter_wants_visreps_head_on_visreps_net(tmp_path):
    text = tasks.config_for(in_memory(), weights=tmp_path / "x.pkl", task="voc0712_c4")
    path = tmp_path / "x.yaml"

    def found(content):
        path.write_text(content)
        return {f.check: f for f in lint(read_config(path), None) if f.severity == "fatal"}

    assert not found(text)
    (fatal,) = found(text.replace("VisrepRes5ROIHeads", "Res5ROIHeads")).values()
    assert fatal.check == "c4-stage" and "NAME: VisrepRes5ROIHeadsExtraNorm" in fatal.fix
