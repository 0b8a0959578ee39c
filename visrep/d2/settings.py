"""A recipe in the words of Detectron2's configuration. Nothing here imports Detectron2."""

import math
from collections.abc import Mapping
from typing import Any

import torch

from visrep import dist
from visrep.d2 import heads, semantic
from visrep.d2.pkl import describe, native, settings
from visrep.d2.recipe import DetectionRecipe, flat
from visrep.errors import ConfigError
from visrep.nn.resnet import BASIC
from visrep.weights.encoder_file import EncoderFile, build


def held_by_detectron2(backbone: dict[str, Any], recipe: DetectionRecipe) -> bool:
    """Whether Detectron2's own backbone and head hold this net; its C4 head and its dilated res5
    have bottlenecks."""
    if recipe.head in ("c4", "dc5", "fcn") and backbone["depth"] in BASIC:
        return False
    return native(backbone)


def problem(backbone: dict[str, Any], recipe: DetectionRecipe) -> str | None:
    """Why Detectron2 cannot do the task with this net, as a clause; None if it can."""
    dilation = flat(recipe.detectron2).get("MODEL.RESNETS.RES5_DILATION", 1)
    if dilation != 1 and not (native(backbone) and backbone["depth"] not in BASIC):
        return (
            "only Detectron2's own ResNet with bottlenecks can have a dilated res5, not "
            f"{describe(backbone)}"
        )
    return None


def norm_name(asked: str, device: torch.device) -> str:
    """Detectron2's norm for `asked`, a recipe's: BN is the one that shares its statistics over the
    processes that there are.

    Raises:
        ConfigError: SyncBN over CPU processes, where torch refuses it.
    """
    several, on_gpu = dist.world_size() > 1, device.type == "cuda"
    if asked == "SyncBN" and several and not on_gpu:
        raise ConfigError(
            "norm=SyncBN: torch has it on GPUs only; norm=naiveSyncBN, or BN, which takes that here"
        )
    if asked != "BN" or not several:
        return asked
    return "SyncBN" if on_gpu else "naiveSyncBN"


def norm_in_words(norm: str) -> str:
    """A norm of Detectron2's, and whose statistics it takes."""
    count = dist.world_size()
    if norm == "FrozenBN":
        return f"{norm}, the statistics and scales of the encoder"
    return f"{norm}, the statistics of {'one process' if count == 1 else f'{count} processes'}"


def detection_settings(file: EncoderFile, recipe: DetectionRecipe, *, norm: str) -> dict[str, Any]:
    """What Detectron2's config must say, as nested dicts; the data are those that the recipe names.

    norm: what a norm that trains is, such as SyncBN; FrozenBN freezes those of any recipe.

    Raises:
        ConfigError: `norm` is none that keeps the encoder's statistics, or the net cannot do it.
    """
    cannot = problem(file.backbone, recipe)
    if cannot:
        raise ConfigError(f"task={recipe.task}: {cannot}")
    norm = recipe.norm if recipe.norm == "FrozenBN" else norm
    fpn, trained = recipe.head == "fpn", norm != "FrozenBN"
    own = held_by_detectron2(file.backbone, recipe)
    config = settings(file, norm=norm, own=own)
    model, backbone_strides = config["MODEL"], build(file.backbone).strides
    strides = recipe.strides(backbone_strides)
    model["BACKBONE"]["FREEZE_AT"] = recipe.freeze_at
    model["MASK_ON"] = recipe.masks
    if recipe.keypoints:
        model["KEYPOINT_ON"] = True
        model["ROI_KEYPOINT_HEAD"] = {
            "NAME": "KRCNNConvDeconvUpsampleHead",
            "CONV_DIMS": [recipe.keypoint_width] * 8,
            "POOLER_RESOLUTION": 14,
        }
    model["ANCHOR_GENERATOR"] = {
        "SIZES": recipe.anchors(backbone_strides),
        "ASPECT_RATIOS": [list(recipe.anchor_ratios)],
    }
    model["RPN"] = {
        "BATCH_SIZE_PER_IMAGE": recipe.rpn_batch,
        "PRE_NMS_TOPK_TRAIN": recipe.rpn_pre_nms[0],
        "PRE_NMS_TOPK_TEST": recipe.rpn_pre_nms[1],
        "POST_NMS_TOPK_TRAIN": recipe.rpn_post_nms[0],
        "POST_NMS_TOPK_TEST": recipe.rpn_post_nms[1],
    }
    model["ROI_HEADS"] = {
        "BATCH_SIZE_PER_IMAGE": recipe.roi_batch,
        "SCORE_THRESH_TEST": recipe.score_threshold,
        "NMS_THRESH_TEST": recipe.nms_threshold,
    }
    model["ROI_BOX_HEAD"] = {"POOLER_RESOLUTION": recipe.box_pool}
    if recipe.box_beta:
        model["ROI_BOX_HEAD"]["SMOOTH_L1_BETA"] = recipe.box_beta
    model["ROI_MASK_HEAD"] = {
        "NAME": "MaskRCNNConvUpsampleHead",
        "CONV_DIM": recipe.mask_width,
        "NUM_CONV": 0 if recipe.head == "c4" else 4,
        "POOLER_RESOLUTION": 14,
    }
    if fpn:
        model["BACKBONE"]["NAME"] = model["BACKBONE"]["NAME"].replace("resnet_", "resnet_fpn_")
        features = [f"res{number + 1}" for number in range(recipe.fpn_first, 5)]
        levels = [f"p{int(math.log2(stride))}" for stride in strides]
        model["RESNETS"]["OUT_FEATURES"] = ["res2", "res3", "res4", "res5"]
        model["FPN"] = {
            "IN_FEATURES": features,
            "OUT_CHANNELS": recipe.fpn_channels,
            "NORM": norm if recipe.fpn_norm and trained else "",
        }
        model["RPN"]["IN_FEATURES"] = levels
        model["ROI_HEADS"]["IN_FEATURES"] = levels[:-1]
    elif recipe.head in ("dc5", "fcn"):
        if own:
            model["RESNETS"]["RES5_DILATION"] = 2
        else:
            model["VISREP"]["DILATED"] = True
        for part in (model["RPN"], model["ROI_HEADS"]):
            part["IN_FEATURES"] = ["res5"]
        model["RESNETS"]["OUT_FEATURES"] = ["res5"]
    if recipe.head != "c4":
        model["ROI_HEADS"]["NAME"] = "StandardROIHeads"
        model["ROI_BOX_HEAD"] |= {
            "NAME": "FastRCNNConvFCHead",
            "NUM_FC": 2,
            "FC_DIM": recipe.box_width,
        }
    else:
        model["RESNETS"]["OUT_FEATURES"] = ["res4"]
        model["ROI_HEADS"] |= {
            "NAME": heads.name_of(extra_norm=recipe.extra_norm, own=own),
            "IN_FEATURES": ["res4"],
        }
        model["RPN"]["IN_FEATURES"] = ["res4"]
    config["INPUT"] |= {
        "MIN_SIZE_TRAIN": list(recipe.train_sizes),
        "MIN_SIZE_TEST": recipe.test_size,
        "MAX_SIZE_TRAIN": recipe.max_size,
        "MAX_SIZE_TEST": recipe.max_size,
        "RANDOM_FLIP": "horizontal" if recipe.flip else "none",
    }
    config["SOLVER"] = {
        "IMS_PER_BATCH": recipe.batch_size,
        "BASE_LR": recipe.lr,
        "MOMENTUM": recipe.momentum,
        "WEIGHT_DECAY": recipe.weight_decay,
        "WEIGHT_DECAY_NORM": 0.0,
        "MAX_ITER": recipe.iterations,
        "STEPS": recipe.milestones,
        "WARMUP_ITERS": recipe.warmup,
        "WARMUP_FACTOR": recipe.warmup_factor,
    }
    config["TEST"] = {
        "DETECTIONS_PER_IMAGE": recipe.detections_per_image,
        "PRECISE_BN": {
            "ENABLED": bool(recipe.precise_bn) and trained,
            "NUM_ITER": max(recipe.precise_bn, 1),
        },
    }
    if recipe.outputs == "semantic":
        levels = [f"p{int(math.log2(stride))}" for stride in strides[:-1]]
        merge(config, semantic.settings(recipe, levels=levels, strides=strides, norm=norm))
    if recipe.repeat_threshold:
        config["DATALOADER"] = {
            "SAMPLER_TRAIN": "RepeatFactorTrainingSampler",
            "REPEAT_THRESHOLD": recipe.repeat_threshold,
        }
    merge(config, recipe.detectron2)
    return config


def merge(config: dict[str, Any], other: Mapping[str, Any]) -> None:
    """Put the values of `other` into the nested dicts `config`."""
    for key, value in other.items():
        if isinstance(value, Mapping):
            merge(config.setdefault(key, {}), value)
        else:
            config[key] = value
