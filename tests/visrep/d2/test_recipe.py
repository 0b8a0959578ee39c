"""A task's recipe, as `visrep detect` composes it and as its yaml states it."""

import pytest
from omegaconf import OmegaConf

from tests.transfer.detection.shapes import small_recipe
from visrep.config import compose
from visrep.d2 import tasks
from visrep.d2.recipe import DetectionRecipe
from visrep.errors import ConfigError
from visrep.groups import choices
from visrep.transfer.detection import detect


def composed(task: str, *overrides: str):
    return compose("detect", ["weights=x", "out=y", f"task={task}", *overrides])[0]


@pytest.mark.parametrize("task", choices("task"))
def test_the_recipe_of_a_task_is_the_one_that_detect_runs(task):
    cfg = composed(task)
    assert cfg.task == task
    assert DetectionRecipe.read(OmegaConf.to_container(cfg)) == tasks.recipe_of(task)
    other = {"c4": "fpn", "dc5": "c4", "fpn": "dc5", "fcn": "fpn"}[cfg.head]
    if cfg.outputs in ("boxes", "masks"):
        recipe = DetectionRecipe.read(composed(task, f"head={other}"))
        assert recipe.head == other and recipe.box_pool == cfg[other].box_pool
        assert recipe.schedule()(0.5) == pytest.approx(1)


def test_a_task_brings_its_data_and_others_can_be_given():
    assert composed("voc07_c4").detection.name == "voc07"
    assert composed("voc0712_dc5").detection.name == "voc0712"
    assert composed("voc0712_c4", "detection=scenes").detection.name == "scenes"
    assert composed("lvis1_fpn_1x").detection.name == "lvis1"
    assert composed("cityscapes_fpn").detection.name == "cityscapes"
    with pytest.raises(ConfigError, match="give a value: detection="):
        detect.resolve(compose("detect", ["detector=x", "out=y"])[0])


def test_mocos_recipe():
    recipe = tasks.recipe_of("voc0712_c4")
    assert (recipe.head, recipe.iterations, recipe.milestones) == ("c4", 24000, [18000, 22000])
    assert (recipe.lr, recipe.batch_size, recipe.warmup) == (0.02, 16, 100)
    assert recipe.train_sizes == list(range(480, 801, 32)) and recipe.test_size == 800
    assert recipe.anchors([4, 8, 16, 32]) == [[32, 64, 128, 256, 512]]
    assert recipe.extra_norm and recipe.precise_bn == 200 and recipe.norm == "BN"
    recipe = tasks.recipe_of("coco_fpn_1x")
    assert (recipe.iterations, recipe.milestones) == (90000, [60000, 80000])
    assert recipe.anchors([4, 8, 16, 32]) == [[32], [64], [128], [256], [512]]
    assert recipe.masks
    recipe = tasks.recipe_of("voc0712_c4_pirl")
    assert (recipe.norm, recipe.freeze_at, recipe.extra_norm) == ("FrozenBN", 2, False)


@pytest.mark.parametrize("task", choices("task"))
def test_published_numbers_have_a_source(task):
    metrics = {"AP", "AP50", "AP75", "coco_AP", "mask_AP", "keypoint_AP", "densepose_AP", "mIoU"}
    for row in tasks.stated(task).published:
        assert set(row) == {"metric", "value", "weights", "source", "runs"}
        assert row.metric in metrics and 10 < row.value < 100
        assert row.source.startswith(("arXiv ", "github.com/")) and row.weights
        assert row.runs in (None, 5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outputs": "keypoints", "head": "c4"}, "outputs=keypoints needs the pyramid"),
        ({"norm": "FrozenBN", "precise_bn": 2}, "no statistics to re-estimate: precise_bn=0"),
        ({"repeat_threshold": 1.5}, "repeat_threshold=1.5: a share of the images"),
        (
            {"repeat_threshold": 0.1, "outputs": "semantic"},
            "repeat_threshold=0.1: it counts images with objects",
        ),
        ({"outputs": "semantic", "head": "c4"}, r"needs the pyramid: head=fpn \(or head=fcn\)"),
        ({"freeze_at": 6}, "freeze_at=6: 0 to 5 with head=fpn"),
    ],
)
def test_what_does_not_go_together_is_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        small_recipe(**settings)


def test_a_task_that_leaves_out_what_has_no_default_is_told():
    cfg = OmegaConf.to_container(composed("scenes"))
    del cfg["iterations"], cfg["about"]
    with pytest.raises(ConfigError, match="this task does not say about, iterations: state it"):
        DetectionRecipe.read(cfg)


def test_settings_that_only_detectron2_knows():
    assert tasks.recipe_of("voc0712_c4").beyond == tasks.recipe_of("scenes").beyond == []
    assert tasks.recipe_of("voc0712_dc5").beyond == []
    assert small_recipe(detectron2={"SOLVER": {"GAMMA": 0.5}}).beyond == ["SOLVER.GAMMA"]
    assert tasks.recipe_of("voc0712_c4").unsaid == []
    assert len(tasks.recipe_of("scenes").unsaid) == 3


def test_settings_of_detectron2_that_are_none():
    with pytest.raises(ConfigError, match="detectron2=x: it holds settings"):
        DetectionRecipe.read(composed("scenes", "detectron2=x"))
