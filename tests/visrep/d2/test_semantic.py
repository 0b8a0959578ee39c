"""Semantic segmentation in Detectron2's words: settings, its entries, what its mapper does."""

import pytest
import torch

from tests.oracles.encoders import in_memory
from tests.transfer.detection.shapes import small_recipe
from tests.transfer.detection.test_label_batches import FCN
from tests.visrep.data.semantic.layouts import own
from visrep.d2.data import dataset_dict, mapper
from visrep.d2.semantic import FCN_HEAD, needs_own_keys
from visrep.d2.settings import detection_settings
from visrep.data.semantic.folder import read_folder
from visrep.data.semantic.readiness import labels_of
from visrep.errors import ConfigError


def nested(net=None, norm="SyncBN", **settings):
    file = in_memory(**(net or {"depth": 50, "width": 0.0625, "stem": "imagenet"}))
    return detection_settings(file, small_recipe(**{**FCN, **settings}), norm=norm)


def test_the_fcn_is_a_dilated_res5_and_its_head():
    config = nested(fcn_dilation=6)
    model = config["MODEL"]
    assert model["META_ARCHITECTURE"] == "SemanticSegmentor"
    assert model["BACKBONE"]["NAME"] == "build_resnet_backbone"
    assert model["RESNETS"]["RES5_DILATION"] == 2 and model["RESNETS"]["OUT_FEATURES"] == ["res5"]
    assert model["SEM_SEG_HEAD"] == {
        "NAME": FCN_HEAD,
        "IN_FEATURES": ["res5"],
        "CONVS_DIM": 16,
        "NUM_CONVS": 2,
        "DILATION": 6,
        "NORM": "SyncBN",
        "IGNORE_VALUE": 255,
        "COMMON_STRIDE": 16,
    }
    assert config["INPUT"]["VISREP"] == {"SCALES": [0.5, 2.0], "CROP": 24}
    assert config["INPUT"]["MIN_SIZE_TRAIN"] == [0] and config["INPUT"]["MIN_SIZE_TEST"] == 0
    assert needs_own_keys(config)


def test_nets_that_detectron2_does_not_hold_are_dilated_in_ours():
    for spec in ({"depth": 18}, {"depth": 50, "width": 0.125, "stem": "d"}):
        model = nested(spec)["MODEL"]
        assert model["VISREP"]["DILATED"] is True and "RES5_DILATION" not in model["RESNETS"]
    frozen = nested(norm="FrozenBN")["MODEL"]
    assert frozen["RESNETS"]["NORM"] == "FrozenBN" and frozen["SEM_SEG_HEAD"]["NORM"] == "BN"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"outputs": "boxes"}, "head=fcn names pixels: outputs=semantic, not boxes"),
        ({"train_sizes": [48]}, "scales and train_sizes both say"),
        ({"scales": [2.0, 0.5]}, r"scales=\[2.0, 0.5\]: \[least, largest\]"),
        ({"scales": [1.0]}, r"scales=\[1.0\]"),
        ({"scales": []}, "train_sizes is empty"),
        ({"head": "fpn", "semantic_width": 20}, "semantic_width=20: a multiple of 32"),
        ({"head": "c4"}, "outputs=semantic needs the pyramid"),
        ({"crop": -1}, "crop=-1"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings, message):
    with pytest.raises(ConfigError, match=message):
        small_recipe(**{**FCN, **settings})
    with pytest.raises(ConfigError, match="scales and crop are for outputs=semantic"):
        small_recipe(crop=10)


@pytest.mark.detectron2
def test_the_mapper_cuts_and_turns_image_and_labels_alike(tmp_path):
    import numpy as np
    from detectron2.config import CfgNode, get_cfg

    from visrep.d2.backbone import add_visrep_config

    data = read_folder(own(tmp_path), "train")
    cfg = get_cfg()
    add_visrep_config(cfg)
    cfg.merge_from_other_cfg(CfgNode(nested()))
    read, test = (mapper(cfg, training=training) for training in (True, False))
    right = total = 0
    sizes = set()
    for number in range(12):
        np.random.seed(number)
        made = read(dataset_dict(data.records[number % 4]))
        image, classes = made["image"], made["sem_seg"]
        assert classes.dtype == torch.int64 and image.shape[1:] == classes.shape
        sizes.add(tuple(classes.shape))
        known = classes != 255
        named = (image[0].float() / 53).round().clamp(0, 2)
        right += int((named[known] == classes[known]).sum())
        total += int(known.sum())
    assert right > 0.85 * total and max(max(size) for size in sizes) == 24
    whole = test(dataset_dict(data.records[0]))
    assert torch.equal(whole["image"], data.records[0].image()) and "sem_seg" not in whole


@pytest.mark.detectron2
def test_sizes_by_the_short_side_are_detectron2s_own(tmp_path):
    from detectron2.config import CfgNode, get_cfg

    data = read_folder(own(tmp_path), "train")
    cfg = get_cfg()
    plain = {"head": "fpn", "scales": [], "crop": 0, "train_sizes": [20], "flip": False}
    made = nested(**plain, semantic_width=32, test_size=20)
    assert not needs_own_keys(made)
    cfg.merge_from_other_cfg(CfgNode(made))
    read = mapper(cfg, training=True)(dataset_dict(data.records[0]))
    assert read["image"].shape[1] == 20 and read["sem_seg"].shape == read["image"].shape[1:]
    there = labels_of(data.records[0]).unique().tolist()
    assert set(read["sem_seg"].unique().tolist()) <= set(there)
