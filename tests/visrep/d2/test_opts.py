"""Which of Detectron2's settings are taken, and what is said of the others."""

import pytest

from tests.transfer.detection.shapes import small_recipe
from visrep.d2 import opts
from visrep.errors import ConfigError

needs = pytest.mark.detectron2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (["SEED", 3], "d2_opts: SEED is not Detectron2's to say here: use seed="),
        (["SOLVER.GAMMA", 0.5, "SOLVER.MAX_ITER", 9], "SOLVER.MAX_ITER .*: use iterations="),
        (["SOLVER.AMP.ENABLED", True], "SOLVER.AMP.ENABLED .*: use precision="),
        (["SOLVER.CHECKPOINT_PERIOD", 10], "use snapshot_every="),
        (["SOLVER.IMS_PER_BATCH", 8], "use batch_size="),
        (["TEST.PRECISE_BN.NUM_ITER", 8], "use precise_bn="),
        (["TEST.AUG.FLIP", True], "tested once"),
        (["DATASETS.TRAIN", ["coco_2017_train"]], "use detection="),
        (["MODEL.ROI_HEADS.NUM_CLASSES", 80], "the data say it"),
        (["OUTPUT_DIR", "x"], "use out="),
        (["MODEL.WEIGHTS", "x.pkl"], "use weights="),
        (["DATALOADER.SAMPLER_TRAIN", "RandomSubsetTrainingSampler"], "TrainingSampler or Repeat"),
        (["DATALOADER.FILTER_EMPTY_ANNOTATIONS", "False"], "=False cannot be followed: True only"),
        (["MODEL.META_ARCHITECTURE", "SemanticSegmentor"], "META_ARCHITECTURE .*: use outputs="),
        (["SOLVER.AMP", {"ENABLED": True}], "give SOLVER.AMP.ENABLED by itself"),
        (["TEST", "{'AUG': {'FLIP': True}}"], "give TEST.AUG.FLIP by itself"),
        (["SOLVER.GAMMA"], "SOLVER.GAMMA has no value"),
        ([0.5, "SOLVER.GAMMA"], "0.5 stands where a key is expected"),
        ("SOLVER.GAMMA", r"give \[KEY, value, ...\]"),
        ({"SOLVER.GAMMA": 0.5}, r"give \[KEY, value, ...\]"),
        (None, r"give \[KEY, value, ...\]"),
    ],
)
def test_a_setting_that_cannot_be_followed_is_refused(given, message):
    with pytest.raises(ConfigError, match=message):
        opts.check(given, small_recipe())


def test_settings_that_are_followed_pass():
    opts.check([], small_recipe())
    opts.check(["SOLVER.GAMMA", 0.5, "SOLVER.CLIP_GRADIENTS.ENABLED", True], small_recipe())
    opts.check(["DATALOADER.ASPECT_RATIO_GROUPING", "True"], small_recipe())
    opts.check(["DATALOADER.SAMPLER_TRAIN", "RepeatFactorTrainingSampler"], small_recipe())


def test_the_same_holds_for_a_tasks_own_settings():
    data = {"DATASETS": {"TRAIN": ["a"], "TEST": ["b"]}, "MODEL": {"ROI_HEADS": {"NUM_CLASSES": 2}}}
    opts.check([], small_recipe(detectron2=data))  # of the config that is converted to
    with pytest.raises(ConfigError, match="task=small, detectron2: TEST.EVAL_PERIOD"):
        opts.check([], small_recipe(detectron2={"TEST": {"EVAL_PERIOD": 5}}))


@needs
def test_every_name_in_the_table_is_detectron2s():
    from detectron2.config import get_cfg

    for name in [*opts.INSTEAD, *opts.ONLY]:
        node = get_cfg()
        for part in name.split("."):
            assert part in node, name
            node = node[part]
    usual = get_cfg()
    for name, (allowed, _) in opts.ONLY.items():
        opts.merge_into(usual, [name, allowed[0]])


@needs
def test_unknown_settings_are_told_without_a_model():
    opts.check_known(["SOLVER.GAMMA", 0.5, "MODEL.VISREP.DEPTH", 18])
    for given in (["SOLVER.GAMA", 0.5], ["SOLVER.GAMMA", "much"]):
        with pytest.raises(ConfigError, match="d2_opts: .*give"):
            opts.check_known(given)
    opts.check_known(["SOLVER.WEIGHT_DECAY_BIAS", None])  # null is its usual value
    for given, message in (
        (["SOLVER", 3], "SOLVER is a section"),
        (["SOLVER.GAMMA", None], "SOLVER.GAMMA needs a value, not null"),
    ):
        with pytest.raises(ConfigError, match=message):
            opts.check_known(given)


@needs
def test_what_is_read_of_a_config_is_known():
    from detectron2.config import get_cfg

    cfg, read = opts.watched(get_cfg())
    assert cfg.dump() == get_cfg().dump() and not read
    assert cfg.SOLVER["GAMMA"] == cfg.clone().SOLVER.GAMMA
    assert read == {"SOLVER", "SOLVER.GAMMA"} and cfg.is_frozen()
    opts.check_read(["SOLVER.GAMMA", 0.5], small_recipe(), read)
    with pytest.raises(ConfigError, match="nothing reads MODEL.FPN.NORM with head=c4"):
        opts.check_read(["MODEL.FPN.NORM", "BN"], small_recipe(head="c4"), read)
