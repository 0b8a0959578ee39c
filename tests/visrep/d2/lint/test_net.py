"""The tensors that a config's backbone has, and which a file fills: as Detectron2 does it."""

import pickle

import pytest
import torch

from tests.oracles.detectron2_files import config as detectron2_config
from tests.oracles.detectron2_files import converted
from visrep.d2.lint import config as reading
from visrep.d2.lint import net
from visrep.d2.verify import quiet
from visrep.d2.weights import places_in
from visrep.errors import UserError

NETS = {
    "r18 fpn": ({"depth": 18, "width": 1}, "coco_fpn_boxes_1x"),
    "r50 c4": ({"depth": 50, "width": 0.0625}, "voc0712_c4"),
    "r101 wide inside c4": ({"depth": 101, "width": 0.0625, "inner": 2}, "voc0712_c4"),
    "r50 grouped fpn": ({"depth": 50, "width": 0.125, "groups": 4, "inner": 2}, "coco_fpn_1x"),
    "r50 dc5": ({"depth": 50, "width": 0.0625}, "voc0712_dc5"),
    "r18 small c4": ({"depth": 18, "width": 0.0625, "stem": "small"}, "voc0712_c4"),
    "r50 sk fpn": ({"depth": 50, "width": 0.0625, "stem": "d", "sk": True}, "coco_fpn_1x"),
    "r26 projected": ({"depth": 10, "width": 0.25, "project": True}, "coco_fpn_1x"),
}


def build(tmp_path, spec, task):
    """What `converted` writes, read by the linter and built by Detectron2."""
    from detectron2.modeling import build_model

    from visrep.d2 import heads

    heads.register()
    file = converted(tmp_path, norm="BN", task=task, **{"stem": "imagenet", **spec})
    config = reading.read_config(tmp_path / "x.yaml")
    own = net.is_own(config)
    return file, config, build_model(detectron2_config(tmp_path, visrep=not own))


@pytest.mark.detectron2
@pytest.mark.parametrize(("spec", "task"), NETS.values(), ids=NETS)
def test_names_and_shapes_are_those_of_detectron2s_model(tmp_path, spec, task):
    _, config, model = build(tmp_path, spec, task)
    state = model.state_dict()
    places = places_in(state, head=net.head_of(config))
    assert net.model_shapes(config) == {place: tuple(state[place].shape) for place in places}


@pytest.mark.detectron2
@pytest.mark.parametrize("heuristics", [True, False])
@pytest.mark.parametrize("prefix", ["", "backbone.", "backbone.bottom_up.", "module."])
@pytest.mark.parametrize("task", ["voc0712_c4", "coco_fpn_boxes_1x"])
def test_what_is_filled_is_what_detectron2_fills(tmp_path, task, prefix, heuristics):
    from detectron2.checkpoint import DetectionCheckpointer

    _, config, model = build(tmp_path, {"depth": 50, "width": 0.0625}, task)
    content = pickle.loads((tmp_path / "x.pkl").read_bytes())
    arrays = {prefix + name: array for name, array in content["model"].items()}
    wrong = prefix + "res3.0.conv2.weight"
    arrays[wrong] = arrays[wrong][:3]
    path = tmp_path / "other.pkl"
    path.write_bytes(
        pickle.dumps({"model": arrays, "__author__": "x", "matching_heuristics": heuristics})
    )
    loaded = net.load(
        net.model_shapes(config), {k: a.shape for k, a in arrays.items()}, heuristics=heuristics
    )
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(77)
    with quiet():
        DetectionCheckpointer(model).load(str(path))
    state = model.state_dict()
    filled = [p for p in places_in(state, head=net.head_of(config)) if (state[p] != 77).any()]
    assert filled == loaded.filled
    assert len(loaded.filled) + len(loaded.empty) + len(loaded.misshapen) == loaded.total == 265
    if not prefix and heuristics:
        assert list(loaded.misshapen.values()) == [
            ("res3.0.conv2.weight", (3, 8, 3, 3), (8, 8, 3, 3))
        ]
        assert loaded.convolutions() == (52, 53)


def test_a_net_that_does_not_exist_is_said(tmp_path):
    path = tmp_path / "x.yaml"
    path.write_text("MODEL: {RESNETS: {DEPTH: 51}}\n")
    with pytest.raises(UserError, match="depth 51 is none of 18, 34, 50, 101, 152"):
        net.model_shapes(reading.read_config(path))
    path.write_text(
        "MODEL: {BACKBONE: {NAME: build_visrep_resnet_backbone}, VISREP: {DEPTH: 18, GROUPS: 2}}\n"
    )
    with pytest.raises(
        UserError, match="describes no net: a ResNet of depth 18 has no bottlenecks"
    ):
        net.model_shapes(reading.read_config(path))
