"""The Detectron2 config of every transfer task: its numbers, and that Detectron2 builds it."""

import re

import pytest
import yaml

from tests.oracles.detectron2_files import config, converted
from tests.oracles.encoders import encoder_file, in_memory
from visrep import config as configs
from visrep import groups
from visrep.cli import main
from visrep.d2 import pkl as d2
from visrep.d2 import tasks
from visrep.d2.lint.known import classes_of, lengths_on
from visrep.d2.verify import quiet, verify
from visrep.d2.weights import place_of
from visrep.errors import ConfigError
from visrep.paths import config_dir

PROJECT = "coco_densepose_fpn_s1x"  # its config needs the project DensePose
ALL = groups.choices("task")
# On data of Detectron2's own.
TASKS = [task for task in ALL if not tasks.recipe_of(task).unsaid and task != PROJECT]
NARROW = {"depth": 50, "width": 0.0625, "stem": "imagenet"}


def settings(task: str, **spec) -> dict:
    return tasks.task_settings(in_memory(**{**NARROW, **spec}), task)


def test_which_tasks_there_are_and_how_they_are_asked_for():
    assert {"voc07_c4", "voc0712_c4", "voc0712_dc5", "lvis05_fpn_1x", "cityscapes_fpn"} <= set(
        TASKS
    )
    assert {f"coco_{head}_{x}" for head in ("c4", "fpn") for x in ("1x", "2x")} <= set(TASKS)
    assert tasks.selected(None) == []
    assert tasks.selected("all") == ALL
    assert {"scenes", "scenes_fcn", "voc12_fcn", PROJECT} == set(ALL) - set(TASKS)
    assert tasks.selected("voc07_c4") == ["voc07_c4"]
    assert tasks.selected(["voc07_c4", "coco_c4_1x", "voc07_c4"]) == ["voc07_c4", "coco_c4_1x"]
    with pytest.raises(ConfigError, match="task=voc07_c5: did you mean voc07_c4"):
        tasks.selected("voc07_c5")


def test_the_commands_help_names_every_task():
    text = (config_dir() / "convert.yaml").read_text()
    listed = text.split("\ntask: null")[1].split("\nstem_stride")[0]
    assert {*TASKS, PROJECT} == set(re.findall(r"\b(?:voc|coco|lvis|cityscapes)\w+", listed))


# The published numbers, written down once more: task -> batch, rate, iterations, steps, warm-up
PUBLISHED = {
    "voc0712_c4": (16, 0.02, 24000, [18000, 22000], 100),
    "voc0712_dc5": (16, 0.02, 24000, [18000, 22000], 100),
    "voc0712_c4_swav": (16, 0.1, 24000, [18000, 22000], 1000),
    "voc0712_c4_pirl": (16, 0.002, 25000, [17000], 1000),
    "voc07_c4": (16, 0.02, 9000, [6750, 8250], 100),
    "coco_c4_1x": (16, 0.02, 90000, [60000, 80000], 1000),
    "coco_c4_2x": (16, 0.02, 180000, [120000, 160000], 1000),
    "coco_fpn_boxes_1x": (16, 0.02, 90000, [60000, 80000], 1000),
    "coco_fpn_1x": (16, 0.02, 90000, [60000, 80000], 1000),
    "coco_fpn_2x": (16, 0.02, 180000, [120000, 160000], 1000),
    "coco_keypoint_fpn_2x": (16, 0.02, 180000, [120000, 160000], 1000),
    "coco_semantic_fpn_1x": (16, 0.02, 90000, [60000, 80000], 1000),
    "lvis05_fpn_1x": (16, 0.02, 90000, [60000, 80000], 1000),
    "lvis1_fpn_1x": (16, 0.02, 180000, [120000, 160000], 1000),
    "cityscapes_fpn": (8, 0.01, 24000, [18000], 1000),
    "cityscapes_fcn": (16, 0.01, 90000, [63000, 81000], 0),
}


@pytest.mark.parametrize("task", TASKS)
def test_schedules_are_the_published_ones(task):
    solver = settings(task)["SOLVER"]
    keys = ("IMS_PER_BATCH", "BASE_LR", "MAX_ITER", "STEPS", "WARMUP_ITERS")
    assert tuple(solver[key] for key in keys) == PUBLISHED[task]
    assert solver["WARMUP_FACTOR"] == (0.3333 if task == "voc0712_c4_swav" else 0.001)
    assert solver["WEIGHT_DECAY_NORM"] == 0


@pytest.mark.parametrize("task", TASKS)
def test_the_recipe_is_for_self_supervised_weights(task):
    config = settings(task)
    model, frozen = config["MODEL"], task == "voc0712_c4_pirl"
    assert model["BACKBONE"]["FREEZE_AT"] == (2 if frozen else 0)
    assert model["RESNETS"]["NORM"] == ("FrozenBN" if frozen else "SyncBN")
    assert model["RESNETS"]["STRIDE_IN_1X1"] is False
    assert config["TEST"]["PRECISE_BN"]["ENABLED"] is not (frozen or "fcn" in task)
    assert config["INPUT"]["FORMAT"] == "RGB"
    if "FPN" in model:
        assert model["FPN"]["NORM"] == "SyncBN"
    elif "fcn" in task:
        assert model["SEM_SEG_HEAD"]["NORM"] == "SyncBN" and "VISREP" in config["INPUT"]
    elif "dc5" not in task:
        name = "Res5ROIHeads" if frozen else "Res5ROIHeadsExtraNorm"
        assert model["ROI_HEADS"]["NAME"] == name
        assert settings(task, stem="d")["MODEL"]["ROI_HEADS"]["NAME"] == f"Visrep{name}"
        assert model["RPN"]["PRE_NMS_TOPK_TEST"] == 6000


def test_what_single_tasks_say():
    voc = settings("voc0712_c4")
    assert voc["DATASETS"]["TRAIN"] == ["voc_2007_trainval", "voc_2012_trainval"]
    assert voc["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 20
    assert voc["INPUT"]["MIN_SIZE_TRAIN"] == [*range(480, 801, 32)]
    keypoints = settings("coco_keypoint_fpn_2x")["MODEL"]
    assert keypoints["KEYPOINT_ON"] and not keypoints["MASK_ON"]
    assert keypoints["RPN"]["POST_NMS_TOPK_TRAIN"] == 1500
    assert "DATALOADER" not in settings("coco_fpn_1x")
    assert settings("lvis1_fpn_1x")["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == 1203
    lvis = settings("lvis05_fpn_1x")
    assert lvis["DATALOADER"] == {
        "SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
        "REPEAT_THRESHOLD": 0.001,
    }
    assert lvis["TEST"]["DETECTIONS_PER_IMAGE"] == 300
    assert lvis["MODEL"]["ROI_HEADS"]["SCORE_THRESH_TEST"] == 0.0001
    semantic = settings("coco_semantic_fpn_1x", depth=18, stem="small")["MODEL"]["SEM_SEG_HEAD"]
    assert semantic == {
        "NUM_CLASSES": 54,
        "IN_FEATURES": ["p1", "p2", "p3", "p4"],
        "COMMON_STRIDE": 2,
        "CONVS_DIM": 128,
        "IGNORE_VALUE": 255,
    }
    voc12, cityscapes = (tasks.recipe_of(f"{name}_fcn") for name in ("voc12", "cityscapes"))
    assert (voc12.lr, voc12.iterations, voc12.milestones) == (0.003, 30000, [21000, 27000])
    assert (voc12.crop, cityscapes.crop, voc12.test_size) == (513, 769, 0)
    assert (voc12.fcn_width, voc12.fcn_convs, voc12.fcn_dilation) == (256, 2, 6)
    assert list(voc12.scales) == [0.5, 2.0] and voc12.flip and cityscapes.batch_size == 16
    own = settings("voc0712_dc5")["MODEL"]
    assert own["RESNETS"]["RES5_DILATION"] == 2 and "VISREP" not in own
    assert own["RPN"]["IN_FEATURES"] == own["ROI_HEADS"]["IN_FEATURES"] == ["res5"]
    assert own["RESNETS"]["OUT_FEATURES"] == ["res5"]
    assert (own["ROI_HEADS"]["NAME"], own["ROI_BOX_HEAD"]["NUM_FC"]) == ("StandardROIHeads", 2)
    assert own["ROI_BOX_HEAD"]["POOLER_RESOLUTION"] == 7
    assert own["ANCHOR_GENERATOR"]["SIZES"] == [[32, 64, 128, 256, 512]]
    assert own["RPN"]["PRE_NMS_TOPK_TRAIN"] == 12000
    for spec in ({"depth": 18}, {"stem": "d"}):
        model = settings("voc0712_dc5", **spec)["MODEL"]
        assert model["VISREP"]["DILATED"] and "RES5_DILATION" not in model["RESNETS"]


def test_a_task_on_other_data_than_detectron2s_has_no_config_of_its():
    with pytest.raises(ConfigError, match="its yaml does not name data of Detectron2"):
        settings("scenes")


def test_a_strangers_task_is_one_yaml(tmp_path, monkeypatch, capsys):
    """`visrep detect` runs it, `visrep convert` writes it, and the linter knows its numbers."""
    monkeypatch.setattr(groups, "_own_folder", None)  # what it was before is put back
    (tmp_path / "own/task").mkdir(parents=True)
    (tmp_path / "own/task/mine.yaml").write_text(MINE)
    strangers = f"config_dir={tmp_path}/own"
    cfg, _ = configs.compose("detect", [strangers, "task=mine", "weights=x", "out=y", "warmup=7"])
    assert (cfg.task, cfg.detection.name, cfg.head) == ("mine", "voc", "c4")
    assert (cfg.iterations, cfg.lr, cfg.warmup) == (600, 0.02, 7)
    assert cfg.published[0].value == 61.5
    file = encoder_file(tmp_path / "e.safetensors", depth=50, width=0.0625, stem="imagenet")
    asked = ["convert", strangers, "to=detectron2", "task=mine", f"out={tmp_path}/x.pkl"]
    with pytest.raises(SystemExit) as end:
        main([*asked, f"weights={tmp_path}/e.safetensors"])
    assert not end.value.code, capsys.readouterr().err
    text = (tmp_path / "x.mine.yaml").read_text()
    assert text.startswith("# Three kinds of screws:") and file.sha256 in text
    written = yaml.safe_load(text)
    assert written["SOLVER"]["MAX_ITER"] == 600 and written["SOLVER"]["STEPS"] == [450, 550]
    assert written["MODEL"]["ROI_HEADS"]["NUM_CLASSES"] == classes_of("screws_2026_val") == 3
    assert written["DATASETS"] == {"TRAIN": ["screws_2026_train"], "TEST": ["screws_2026_val"]}
    assert lengths_on(["screws_2026_train"]) == (16, [600])
    (tmp_path / "own/task/mine.yaml").write_text(MINE.replace("task: mine\n", ""))
    with pytest.raises(ConfigError, match="task=mine calls itself voc0712_c4: write task: mine"):
        configs.compose("detect", ["task=mine", "weights=x", "out=y"])
    with pytest.raises(ConfigError, match="task=mine calls itself voc0712_c4"):
        tasks.problem("mine", file.backbone)


MINE = """\
# @package _global_
defaults:
  - voc0712_c4
  - override /detection: voc
task: mine
about: Three kinds of screws
iterations: 600
detectron2:
  DATASETS: {TRAIN: [screws_2026_train], TEST: [screws_2026_val]}
  MODEL: {ROI_HEADS: {NUM_CLASSES: 3}}
published:
  - {metric: AP50, value: 61.5, weights: ours of last year, source: our wiki, runs: 3}
"""


def test_the_text_of_a_net_that_detectron2_holds(tmp_path):
    file = encoder_file(tmp_path / "e.safetensors", depth=50, stem="imagenet")
    text = tasks.config_for(file, weights=tmp_path / "it's: x.pkl")
    loaded = yaml.safe_load(text)
    assert loaded["MODEL"]["WEIGHTS"] == str(tmp_path / "it's: x.pkl")
    assert loaded["MODEL"]["BACKBONE"]["NAME"] == "build_resnet_fpn_backbone"
    assert loaded["MODEL"]["ANCHOR_GENERATOR"]["SIZES"] == [[32], [64], [128], [256], [512]]
    assert "_BASE_" not in loaded and "transfer" not in text and "&" not in text
    assert file.sha256 in text
    text = tasks.config_for(file, weights=tmp_path / "x.pkl", task="voc0712_c4")
    assert "#     heads.register()" in text and "Res5ROIHeadsExtraNorm" in text
    assert "#     cfg.merge_from_file('x.voc0712_c4.yaml')" in text
    assert "add_visrep_config" not in text


def test_the_text_of_a_net_that_detectron2_cannot_hold(tmp_path):
    file = encoder_file(tmp_path / "e.safetensors")
    text = tasks.config_for(file, weights=tmp_path / "x.pkl", norm="BN")
    assert "add_visrep_config(cfg)" in text
    model = yaml.safe_load(text)["MODEL"]
    assert model["BACKBONE"]["NAME"] == "build_visrep_resnet_fpn_backbone"
    assert model["VISREP"]["STEM"] == "small"
    assert model["RESNETS"]["NORM"] == model["FPN"]["NORM"] == "BN"
    assert model["RPN"]["IN_FEATURES"] == ["p1", "p2", "p3", "p4", "p5"]
    assert model["ROI_HEADS"]["IN_FEATURES"] == ["p1", "p2", "p3", "p4"]
    assert model["ANCHOR_GENERATOR"]["SIZES"] == [[16], [32], [64], [128], [256]]
    frozen = yaml.safe_load(tasks.config_for(file, weights="x.pkl", norm="FrozenBN"))
    assert frozen["MODEL"]["FPN"]["NORM"] == ""
    assert frozen["TEST"]["PRECISE_BN"]["ENABLED"] is False


@pytest.mark.detectron2
@pytest.mark.parametrize("task", TASKS)
def test_detectron2_builds_every_task_with_all_weights_set(tmp_path, task):
    from detectron2.checkpoint import DetectionCheckpointer
    from detectron2.modeling import build_model

    file = converted(tmp_path, norm="BN", task=task, **NARROW)
    report = verify(tmp_path / "x.pkl", file)
    assert report.tensors == 265
    assert report.in_head == (50 if "c4" in task else 0)
    # As a user does it: without MODEL.VISREP, since Detectron2's own ResNet holds this net.
    cfg = config(tmp_path, visrep=task.endswith("_fcn"))
    model = build_model(cfg)
    with quiet():
        DetectionCheckpointer(model).load(cfg.MODEL.WEIGHTS)
    state = model.state_dict()
    for name, tensor in file.tensors.items():
        place = place_of(d2.detectron2_name(name, stem="imagenet"), head=report.head)
        assert state[place].equal(tensor)
    if "keypoint" in task:
        assert model.roi_heads.keypoint_on


@pytest.mark.detectron2
@pytest.mark.parametrize("task", TASKS)
def test_detectron2_builds_every_task_on_our_backbone(tmp_path, task):
    file = converted(tmp_path, norm="BN", task=task, depth=18, width=0.0625, stem="small")
    report = verify(tmp_path / "x.pkl", file)
    assert (report.backbone, report.tensors) == ("VisrepResNet", 100)


@pytest.mark.detectron2
@pytest.mark.parametrize("task", ["coco_fpn_boxes_1x", "voc0712_c4"])
@pytest.mark.parametrize("spec", [NARROW, {"depth": 18, "width": 0.0625}], ids=["own", "visrep's"])
def test_the_lines_at_the_top_of_a_config_load_it(tmp_path, monkeypatch, task, spec):
    from detectron2.modeling import build_model

    file = in_memory(**spec)
    path = tasks.config_path(tmp_path / "x.pkl", task)
    path.write_text(tasks.config_for(file, weights=tmp_path / "x.pkl", norm="BN", task=task))
    code = [line[6:] for line in path.read_text().splitlines() if line.startswith("#     ")]
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    exec("\n".join(code), names)
    names["cfg"].MODEL.DEVICE = "cpu"
    assert build_model(names["cfg"]).backbone.output_shape()
