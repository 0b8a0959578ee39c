"""The linter of Detectron2 configs: each mistake is named once, a good config is left in peace."""

import pickle
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml

from tests.oracles.detectron2_files import converted
from tests.oracles.encoders import PREPROCESS, encoder_file, in_memory, net
from visrep import groups
from visrep.d2 import pkl as d2
from visrep.d2.lint.config import DEFAULTS, read_config
from visrep.d2.lint.known import classes_of, lengths_on
from visrep.d2.lint.linter import lint
from visrep.d2.lint.linter import text as text_of
from visrep.d2.lint.weights import read_file
from visrep.d2.tasks import recipe_of
from visrep.errors import UserError

R50 = {"depth": 50, "width": 0.0625, "stem": "imagenet"}

C4 = """\
MODEL:
  META_ARCHITECTURE: GeneralizedRCNN
  WEIGHTS: see below
  MASK_ON: False
  PIXEL_MEAN: [123.675, 116.280, 103.530]
  PIXEL_STD: [58.395, 57.120, 57.375]
  ROI_HEADS: {NAME: Res5ROIHeadsExtraNorm, NUM_CLASSES: 20}
  BACKBONE: {FREEZE_AT: 0}
  RESNETS: {NORM: SyncBN, STRIDE_IN_1X1: False, DEPTH: 50}
INPUT: {FORMAT: RGB}
DATASETS:
  TRAIN: ('voc_2007_trainval', 'voc_2012_trainval')
  TEST: ('voc_2007_test',)
SOLVER:
  IMS_PER_BATCH: 16
  BASE_LR: 0.02
  STEPS: (18000, 22000)
  MAX_ITER: 24000
  WARMUP_ITERS: 100
TEST:
  PRECISE_BN: {ENABLED: True}
"""
FPN = (
    C4.replace("Res5ROIHeadsExtraNorm, NUM_CLASSES: 20", "StandardROIHeads")
    .replace(
        "{FREEZE_AT: 0}", "{FREEZE_AT: 0, NAME: build_resnet_fpn_backbone}\n  FPN: {NORM: SyncBN}"
    )
    .replace("DEPTH: 50", "DEPTH: 50, OUT_FEATURES: [res2, res3, res4, res5]")
    .replace("('voc_2007_trainval', 'voc_2012_trainval')", "('coco_2017_train',)")
    .replace("('voc_2007_test',)", "('coco_2017_val',)")
    .replace("(18000, 22000)", "(60000, 80000)")
    .replace("24000", "90000")
)


def narrow(text: str) -> str:
    """The config for a net of 4 channels."""
    words = "STEM_OUT_CHANNELS: 4, WIDTH_PER_GROUP: 4, RES2_OUT_CHANNELS: 16, DEPTH: 50"
    return text.replace("DEPTH: 50", words)


def findings(folder: Path, text: str, weights: Path | None = None, opts=()) -> dict[str, object]:
    """check -> its finding."""
    path = folder / "c.yaml"
    path.write_text(text)
    config = read_config(path, opts=opts)
    found = lint(config, None if weights is None else read_file(weights))
    by_name = {finding.check: finding for finding in found}
    assert len(by_name) == len(found), [finding.check for finding in found]
    assert all(finding.what and finding.consequence for finding in found)
    return by_name


def changed(text: str, before: str, after: str) -> str:
    assert before in text
    return text.replace(before, after)


@pytest.mark.parametrize("text", [C4, FPN], ids=["c4", "fpn"])
def test_a_good_config_has_nothing_but_a_note_on_the_weights(tmp_path, text):
    found = findings(tmp_path, text)
    assert [(f.severity, f.check) for f in found.values()] == [("note", "no-weights")]


@pytest.mark.parametrize(
    "task",
    [
        task
        for task in groups.choices("task")
        if not recipe_of(task).unsaid and task != "coco_densepose_fpn_s1x"
    ],
)
@pytest.mark.parametrize("spec", [R50, {}], ids=["r50", "r18 small"])
def test_what_convert_writes_is_good(tmp_path, task, spec):
    converted(tmp_path, task=task, **spec)
    found = findings(tmp_path, (tmp_path / "x.yaml").read_text(), tmp_path / "x.pkl")
    assert found.pop("loaded").consequence.startswith(f"all {265 if spec else 100} tensors")
    recipe = {
        "voc0712_c4_pirl": {"learning-rate", "frozen-bn", "frozen-stages", "extra-norm"},
        "voc0712_c4_swav": {"learning-rate"},
    }
    assert found.keys() == recipe.get(task, set())
    assert all(finding.severity == "warning" for finding in found.values())


# The net and its input, without weights

C4_CASES = [
    ("FORMAT: RGB", "FORMAT: BGR", "channel-order", "fatal", "FORMAT: RGB"),
    ("[58.395, 57.120, 57.375]", "[1, 1, 1]", "pixel-std", "fatal", "58.395, 57.12"),
    ("[123.675, 116.280, 103.530]", "[103.53, 116.28, 123.675]", "pixel-mean", "fatal", "123.675"),
    ("[123.675, 116.280, 103.530]", "[120, 120, 120]", "pixel-mean", "warning", "123.675"),
    ("[123.675, 116.280, 103.530]", "[0.485, 0.456, 0.406]", "pixel-scale", "fatal", "123.675"),
    ("STRIDE_IN_1X1: False, ", "", "stride", "fatal", "STRIDE_IN_1X1: false"),
    ("FREEZE_AT: 0", "FREEZE_AT: 2", "frozen-stages", "warning", "FREEZE_AT: 0"),
    ("ExtraNorm", "", "extra-norm", "warning", "NAME: Res5ROIHeadsExtraNorm"),
    ("NAME: Res5", "NAME: VisrepRes5", "no-weights", "note", ""),
    ("NORM: SyncBN", "NORM: BN", "norm", "note", "NORM: SyncBN"),
    ("BASE_LR: 0.02", "BASE_LR: 0.16", "learning-rate", "warning", "BASE_LR: 0.02"),
    ("BASE_LR: 0.02", "BASE_LR: 0.025", "learning-rate", "note", "BASE_LR: 0.02"),
    ("BASE_LR: 0.02", "X: 0", "learning-rate", "warning", "BASE_LR: 0.02"),
    ("(18000, 22000)", "(18000, 26000)", "steps", "warning", "STEPS: [18000, 22000]"),
    ("(18000, 22000)", "(22000, 18000)", "steps", "fatal", "STEPS: [18000, 22000]"),
    ("  MAX_ITER: 24000\n", "", "length", "warning", ""),
    ("WARMUP_ITERS: 100", "WARMUP_ITERS: 4000", "warm-up", "warning", "WARMUP_ITERS: 240"),
    ("{ENABLED: True}", "{ENABLED: False}", "precise-bn", "warning", "ENABLED: true"),
    ("NUM_CLASSES: 20", "NUM_CLASSES: 19", "classes", "fatal", "NUM_CLASSES: 20"),
    (", NUM_CLASSES: 20", "", "classes", "warning", "NUM_CLASSES: 20"),
    ("('voc_2007_test',)", "('voc_2012_val',)", "test-on-train", "fatal", "voc_2007_test"),
    ("('voc_2007_test',)", "('voc_2012_test',)", "voc-year", "warning", "voc_2007_test"),
    ("MASK_ON: False", "MASK_ON: True", "masks", "fatal", "MASK_ON: false"),
    ("('voc_2007_test',)", "('voc_2007_test')", "type", "fatal", ""),
    ("  TEST: ('voc", "  TEST: ()\n  TEST: ('voc", "repeated-key", "warning", "join"),
    ("WEIGHTS: see below", "WEIGHTS: ''", "no-weights", "warning", "visrep lint-d2 c.yaml x.pkl"),
    ("MODEL:", "_BASE_: none.yaml\nMODEL:", "base", "fatal", ""),
    ("WARMUP_ITERS: 100", "X: !!python/name:os.system ''", "code", "warning", "the value itself"),
    ("DEPTH: 50", "DEPTH: 50}\n  OTHER: {A: 1", "", "", ""),
    ("{FREEZE_AT: 0}", "{NAME: build_regnet_backbone}", "backbone", "note", ""),
]


@pytest.mark.parametrize(("before", "after", "check", "severity", "fix"), C4_CASES)
def test_one_change_is_one_finding(tmp_path, before, after, check, severity, fix):
    found = findings(tmp_path, changed(C4, before, after))
    others = {"no-weights"} if check not in ("no-weights", "base") else set()
    if check == "learning-rate" and "X" in after:
        assert "Detectron2's default" in found[check].what
    assert found.keys() - {check} == others
    if check:
        assert found[check].severity == severity
        assert fix in found[check].fix


def test_frozen_batch_norm_makes_precise_statistics_pointless(tmp_path):
    found = findings(tmp_path, changed(C4, "NORM: SyncBN", "NORM: FrozenBN"))
    assert found["frozen-bn"].severity == "warning" and "moco#40" in found["frozen-bn"].consequence
    assert found["precise-bn"].severity == "note"
    assert found.keys() == {"frozen-bn", "precise-bn", "no-weights"}


def test_a_pyramid_without_norm(tmp_path):
    found = findings(tmp_path, changed(FPN, "FPN: {NORM: SyncBN}", "FPN: {NORM: ''}"))
    assert found["fpn-norm"].severity == "warning" and "NORM: SyncBN" in found["fpn-norm"].fix


@pytest.mark.parametrize("depth", [18, 34])
def test_basic_blocks_under_c4(tmp_path, depth):
    found = findings(tmp_path, changed(C4, "DEPTH: 50", f"DEPTH: {depth}, RES2_OUT_CHANNELS: 64"))
    assert found["basic-c4"].severity == "fatal"
    assert found.keys() == {"basic-c4", "no-weights"}
    found = findings(tmp_path, changed(FPN, "DEPTH: 50", f"DEPTH: {depth}"))
    assert found["basic-width"].severity == "fatal" and "64" in found["basic-width"].fix
    assert found.keys() == {"basic-width", "no-weights"}


def test_detectron2s_default_input_suits_its_own_weights_only(tmp_path):
    text = re.sub(r"  PIXEL_\w+: .*\n", "", C4).replace("INPUT: {FORMAT: RGB}\n", "")
    msra = text.replace("STRIDE_IN_1X1: False, ", "")
    found = findings(tmp_path, msra)
    assert found["bgr"].severity == "warning" and "58 times" in found["bgr"].consequence
    assert found.keys() == {"bgr", "no-weights"}
    # BGR of std 1 with the stride in the 3x3 is the input of no published weights.
    assert findings(tmp_path, text)["bgr"].severity == "fatal"
    grouped = msra.replace("DEPTH: 50", "DEPTH: 50, NUM_GROUPS: 32")
    assert findings(tmp_path, grouped)["bgr"].severity == "fatal"
    # A supervised baseline, as MoCo's repository has one, is right with it.
    url = "detectron2://ImageNetPretrained/MSRA/R-50.pkl"
    found = findings(tmp_path, msra.replace("see below", url))
    assert [f.check for f in found.values()] == ["supervised-weights"]
    assert found["supervised-weights"].severity == "note"
    found = findings(tmp_path, C4.replace("see below", url))
    assert {"channel-order", "pixel-std", "stride"} <= found.keys()
    # Group norm's own weights have a convention that is not known here.
    url = "detectron2://ImageNetPretrained/FAIR/R-50-GN.pkl"
    assert findings(tmp_path, text.replace("see below", url)).keys() == {"supervised-weights"}


def test_batch_and_schedule_are_scaled_together(tmp_path):
    small = changed(C4, "IMS_PER_BATCH: 16", "IMS_PER_BATCH: 4")
    found = findings(tmp_path, small)
    assert found.keys() == {"learning-rate", "length", "no-weights"}
    assert "4 times what the linear rule gives" in found["learning-rate"].consequence
    assert "BASE_LR: 0.005" in found["learning-rate"].fix
    assert found["length"].severity == "warning" and "0.25 times" in found["length"].consequence
    assert "MAX_ITER: 96000" in found["length"].fix and "[72000, 88000]" in found["length"].fix
    for before, after in (
        ("BASE_LR: 0.02", "BASE_LR: 0.005"),
        ("(18000, 22000)", "(72000, 88000)"),
        ("24000", "96000"),
    ):
        small = changed(small, before, after)
    assert findings(tmp_path, small).keys() == {"no-weights"}
    odd = changed(C4, "MAX_ITER: 24000", "MAX_ITER: 50000")
    assert findings(tmp_path, odd)["length"].severity == "note"
    # What the command line adds counts: solo-learn's script has the rate of another recipe.
    found = findings(tmp_path, C4, opts=["SOLVER.BASE_LR", 0.1])
    assert "5 times" in found["learning-rate"].consequence
    assert "SimCLR and SwAV" in found["learning-rate"].consequence


def test_numbers_of_classes_and_lengths_are_those_of_the_tasks():
    known = {
        "voc_2012_val": 20,
        "coco_2014_valminusminival": 80,
        "keypoints_coco_2017_val": 1,
        "lvis_v0.5_val": 1230,
        "lvis_v1_train": 1203,
        "cityscapes_fine_instance_seg_val": 8,
        "mine_train": None,
    }
    assert {name: classes_of(name) for name in known} == known
    coco = (16, [90_000, 180_000, 270_000])
    assert lengths_on(["coco_2017_train"]) == lengths_on(["keypoints_coco_2017_train"]) == coco
    both = ["voc_2007_trainval", "voc_2012_trainval"]
    assert lengths_on(both) == (16, [18_000, 24_000, 25_000])
    assert lengths_on(both[:1]) == (16, [9_000, 12_500])
    assert lengths_on(["lvis_v0.5_train"]) == (16, [90_000, 180_000])
    assert lengths_on(["cityscapes_fine_instance_seg_train"]) == (8, [24_000])
    assert lengths_on(["mine_train"]) is lengths_on([]) is None


def test_retinanet_has_half_the_rate_and_its_own_classes(tmp_path):
    text = FPN.replace("GeneralizedRCNN", "RetinaNet").replace(
        "build_resnet_fpn_backbone", "build_retinanet_resnet_fpn_backbone"
    )
    found = findings(tmp_path, text)
    assert "2 times what the linear rule gives from 0.01" in found["learning-rate"].consequence
    text = changed(text, "BASE_LR: 0.02", "BASE_LR: 0.01")
    assert findings(tmp_path, text).keys() == {"no-weights"}
    text = changed(text, "FPN: {NORM", "RETINANET: {NUM_CLASSES: 20}\n  FPN: {NORM")
    assert findings(tmp_path, text)["classes"].severity == "fatal"


@pytest.mark.parametrize(
    ("train", "test", "checks"),
    [
        ("coco_2014_train", "coco_2014_minival", set()),
        ("coco_2014_val", "coco_2017_val", {"test-on-train"}),
        ("coco_2017_train", "coco_2014_valminusminival", {"test-on-train"}),
        ("coco_2017_train", "voc_2007_test", {"classes", "other-data"}),
        ("my_train", "my_test", {"other-data"}),
    ],
)
def test_data_sets_that_share_images_or_do_not_fit(tmp_path, train, test, checks):
    text = FPN.replace("coco_2017_train", train).replace("coco_2017_val'", f"{test}'")
    assert findings(tmp_path, text).keys() - {"no-weights"} == checks


def test_keypoints(tmp_path):
    text = changed(FPN, "MASK_ON: False", "KEYPOINT_ON: True")
    assert findings(tmp_path, text)["keypoints"].severity == "fatal"
    text = text.replace("coco_2017", "keypoints_coco_2017").replace("90000", "180000")
    text = changed(text, "StandardROIHeads", "StandardROIHeads, NUM_CLASSES: 1")
    assert findings(tmp_path, text).keys() == {"no-weights"}


# The weights


@pytest.fixture
def pkl(tmp_path):
    """A narrow ResNet-50 that visrep converted."""
    d2.write_pkl(tmp_path / "x.pkl", in_memory(**R50))
    return tmp_path / "x.pkl"


@pytest.mark.parametrize("text", [C4, FPN], ids=["c4", "fpn"])
def test_weights_that_fit(tmp_path, pkl, text):
    found = findings(tmp_path, narrow(text), pkl)
    assert found.keys() == {"loaded"}
    assert found["loaded"].consequence == "all 265 tensors of the backbone are set"


def test_the_input_is_that_of_the_weights(tmp_path):
    unit = replace(PREPROCESS, mean=(0, 0, 0), std=(1, 1, 1))
    d2.write_pkl(tmp_path / "x.pkl", in_memory(**R50, preprocess=unit, stride_in_1x1=True))
    found = findings(tmp_path, narrow(C4), tmp_path / "x.pkl")
    assert found.keys() == {"pixel-std", "pixel-mean", "stride", "loaded"}
    assert {found[c].severity for c in ("pixel-std", "pixel-mean", "stride")} == {"fatal"}
    assert "PIXEL_STD: [255.0, 255.0, 255.0]" in found["pixel-std"].fix
    assert "STRIDE_IN_1X1: true" in found["stride"].fix


def test_another_net(tmp_path, pkl):
    found = findings(tmp_path, C4, pkl)
    assert found.keys() == {"width"} and found["width"].severity == "fatal"
    assert "0 of 265 tensors" in found["width"].consequence
    assert "WIDTH_PER_GROUP: 4" in found["width"].fix
    assert "RES2_OUT_CHANNELS: 16" in found["width"].fix
    found = findings(tmp_path, narrow(C4).replace("DEPTH: 50", "DEPTH: 101"), pkl)
    assert found.keys() == {"depth"}
    assert "265 of 520 tensors of the backbone are set (53 of 104" in found["depth"].consequence
    assert "DEPTH: 50" in found["depth"].fix


def arrays(prefix: str = "", **spec) -> dict[str, np.ndarray]:
    """A converted net's arrays under Detectron2's names."""
    file = in_memory(**{**R50, **spec})
    names = {n: d2.detectron2_name(n, stem="imagenet") for n in file.tensors}
    return {prefix + names[n]: t.numpy() for n, t in file.tensors.items()}


def test_a_file_that_only_has_the_name_of_a_pickle(tmp_path):
    model = {k: torch.from_numpy(v) for k, v in arrays().items()}
    content = {"model": model, "matching_heuristics": True}
    for zipped in (True, False):
        torch.save(content, tmp_path / "x.pkl", _use_new_zipfile_serialization=zipped)
        found = findings(tmp_path, narrow(C4), tmp_path / "x.pkl")
        assert found["torch-pkl"].severity == "fatal"
        assert found.keys() == {"torch-pkl", "loaded"}
    torch.save(content, tmp_path / "x.pth")
    assert findings(tmp_path, narrow(C4), tmp_path / "x.pth").keys() == {"loaded"}


def test_our_own_file_is_none_of_detectron2s(tmp_path):
    encoder_file(tmp_path / "e.safetensors", **R50)
    found = findings(tmp_path, narrow(C4), tmp_path / "e.safetensors")
    assert found.keys() == {"container", "not-converted"}
    assert {finding.severity for finding in found.values()} == {"fatal"}


def test_names_that_only_match_by_their_ends(tmp_path):
    torch.save({"model": {k: torch.from_numpy(v) for k, v in arrays().items()}}, tmp_path / "x.pth")
    found = findings(tmp_path, narrow(C4), tmp_path / "x.pth")
    assert found.keys() == {"matching"} and "0 of 265" in found["matching"].consequence
    assert "x.pth?matching_heuristics=True" in found["matching"].fix
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays(), "__author__": "x"}))
    assert findings(tmp_path, narrow(C4), tmp_path / "x.pkl").keys() == {"matching"}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"model": arrays()}))
    assert findings(tmp_path, narrow(C4), tmp_path / "x.pkl")["pkl-keys"].severity == "fatal"


@pytest.mark.parametrize("prefix", ["", "module.encoder_q.", "backbone."])
def test_weights_that_were_not_converted(tmp_path, prefix):
    state = {prefix + name: tensor for name, tensor in net(**R50).state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.pth")
    found = findings(tmp_path, narrow(C4), tmp_path / "x.pth")
    assert found.keys() == {"not-converted"}
    assert "0 of 265 tensors" in found["not-converted"].consequence
    assert "visrep convert weights=" in found["not-converted"].fix


def test_a_checkpoint_that_was_converted_without_taking_its_prefix_off(tmp_path):
    """mmselfsup's script on its own training checkpoint: `backbone.` stays, the stem gets another
    name, and under C4 res5 belongs to the head."""
    model = arrays("backbone.")
    model = {re.sub(r"^backbone\.stem\.", "stem.backbone.", name): a for name, a in model.items()}
    content = {"model": model, "__author__": "OpenSelfSup", "matching_heuristics": True}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    found = findings(tmp_path, narrow(C4), tmp_path / "x.pkl")
    assert found.keys() == {"partly-loaded"}
    assert "42 of 53 convolutions" in found["partly-loaded"].consequence
    found = findings(tmp_path, narrow(FPN), tmp_path / "x.pkl")
    assert "0 of 53 convolutions" in found["partly-loaded"].consequence


def test_basic_blocks_half_load_under_c4(tmp_path):
    d2.write_pkl(tmp_path / "x.pkl", in_memory(depth=18, width=1, stem="imagenet"))
    text = changed(C4, "DEPTH: 50", "DEPTH: 18, RES2_OUT_CHANNELS: 64")
    found = findings(tmp_path, text, tmp_path / "x.pkl")
    assert found.keys() == {"basic-c4", "partly-loaded"}
    assert found["basic-c4"].severity == found["partly-loaded"].severity == "fatal"


def test_other_weights_than_those_that_the_config_names(tmp_path, pkl):
    found = findings(tmp_path, narrow(C4).replace("see below", "old/y.pkl"), pkl)
    assert found.keys() == {"other-weights", "loaded"}


def test_caffe2_weights_have_caffe2s_input(tmp_path):
    content = {"conv1_w": np.zeros((64, 3, 7, 7), "f4"), "res2_0_branch2a_w": np.zeros(3, "f4")}
    (tmp_path / "x.pkl").write_bytes(pickle.dumps(content))
    found = findings(tmp_path, C4, tmp_path / "x.pkl")
    assert {"channel-order", "pixel-std", "stride"} <= found.keys()
    assert "loaded" not in found and "partly-loaded" not in found


def test_empty_missing_and_hostile_weights(tmp_path):
    torch.save({"epoch": 1}, tmp_path / "x.pth")
    assert findings(tmp_path, C4, tmp_path / "x.pth").keys() == {"empty"}
    with pytest.raises(UserError, match="there is no weights file"):
        read_file(tmp_path / "none.pkl")
    mark = tmp_path / "mark"

    class Bomb:
        def __reduce__(self):
            import os

            return os.mkdir, (str(mark),)

    for name in ("b.pkl", "b.pth"):
        (tmp_path / name).write_bytes(pickle.dumps({"model": Bomb(), "__author__": "x"}))
        with pytest.raises(UserError):
            read_file(tmp_path / name)
    assert not mark.exists()


ODD = [None, True, -1, 0, 10**20, 1e300, float("nan"), "", "x", [], [None], [-5.0, 0, 1]]


def test_no_value_of_any_key_stops_the_linter(tmp_path, pkl):
    weights = read_file(pkl)
    (tmp_path / "base.yaml").write_text(narrow(C4))
    path = tmp_path / "c.yaml"
    for key in DEFAULTS:
        *sections, last = key.split(".")
        for odd in ODD:
            tree = {last: odd}
            for section in reversed(sections):
                tree = {section: tree}
            path.write_text(yaml.safe_dump({"_BASE_": "base.yaml", **tree}))
            config = read_config(path)
            assert text_of(config, weights, lint(config, weights))
