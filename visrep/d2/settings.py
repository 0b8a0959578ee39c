"""A protocol in the words of Detectron2's configuration. Nothing here imports Detectron2."""

import math
from typing import Any

import torch

from visrep import dist
from visrep.d2.heads import EXTRA_NORM, PLAIN
from visrep.d2.pkl import native, settings
from visrep.d2.protocol import Protocol
from visrep.nn.resnet import BASIC
from visrep.weights.encoder_file import EncoderFile, build


def held_by_detectron2(backbone: dict[str, Any], protocol: Protocol) -> bool:
    """Whether Detectron2's own backbone and head hold this net; its C4 head has bottlenecks."""
    if protocol.head == "c4" and backbone["depth"] in BASIC:
        return False
    return native(backbone)


def norm_name(device: torch.device) -> str:
    """The norm that shares its statistics over processes: torch's SyncBN refuses CPU tensors."""
    if dist.world_size() == 1:
        return "BN"
    return "SyncBN" if device.type == "cuda" else "naiveSyncBN"


def detection_settings(
    file: EncoderFile, protocol: Protocol, *, classes: int, norm: str
) -> dict[str, Any]:
    """What Detectron2's config must say, as nested dicts; the data sets are left to the caller.

    Raises:
        ConfigError: `norm` is none that keeps the encoder's statistics.
    """
    fpn, trained = protocol.head == "fpn", norm != "FrozenBN"
    config = settings(file, norm=norm, own=held_by_detectron2(file.backbone, protocol))
    model, backbone_strides = config["MODEL"], build(file.backbone).strides
    strides = protocol.strides(backbone_strides)
    model["MASK_ON"] = protocol.masks
    model["ANCHOR_GENERATOR"] = {
        "SIZES": protocol.anchors(backbone_strides),
        "ASPECT_RATIOS": [list(protocol.anchor_ratios)],
    }
    model["RPN"] = {
        "BATCH_SIZE_PER_IMAGE": protocol.rpn_batch,
        "PRE_NMS_TOPK_TRAIN": protocol.rpn_pre_nms[0],
        "PRE_NMS_TOPK_TEST": protocol.rpn_pre_nms[1],
        "POST_NMS_TOPK_TRAIN": protocol.rpn_post_nms[0],
        "POST_NMS_TOPK_TEST": protocol.rpn_post_nms[1],
    }
    model["ROI_HEADS"] = {
        "NUM_CLASSES": classes,
        "BATCH_SIZE_PER_IMAGE": protocol.roi_batch,
        "SCORE_THRESH_TEST": protocol.score_threshold,
        "NMS_THRESH_TEST": protocol.nms_threshold,
    }
    model["ROI_BOX_HEAD"] = {"POOLER_RESOLUTION": protocol.box_pool}
    model["ROI_MASK_HEAD"] = {
        "NAME": "MaskRCNNConvUpsampleHead",
        "CONV_DIM": protocol.mask_width,
        "NUM_CONV": 4 if fpn else 0,
        "POOLER_RESOLUTION": 14,
    }
    if fpn:
        model["BACKBONE"]["NAME"] = model["BACKBONE"]["NAME"].replace("resnet_", "resnet_fpn_")
        features = [f"res{number + 1}" for number in range(protocol.fpn_first, 5)]
        levels = [f"p{int(math.log2(stride))}" for stride in strides]
        model["RESNETS"]["OUT_FEATURES"] = ["res2", "res3", "res4", "res5"]
        model["FPN"] = {
            "IN_FEATURES": features,
            "OUT_CHANNELS": protocol.fpn_channels,
            "NORM": norm if protocol.fpn_norm and trained else "",
        }
        model["RPN"]["IN_FEATURES"] = levels
        model["ROI_HEADS"] |= {"NAME": "StandardROIHeads", "IN_FEATURES": levels[:-1]}
        model["ROI_BOX_HEAD"] |= {
            "NAME": "FastRCNNConvFCHead",
            "NUM_FC": 2,
            "FC_DIM": protocol.box_width,
        }
    else:
        model["RESNETS"]["OUT_FEATURES"] = ["res4"]
        model["ROI_HEADS"] |= {
            "NAME": EXTRA_NORM if protocol.extra_norm else PLAIN,
            "IN_FEATURES": ["res4"],
        }
        model["RPN"]["IN_FEATURES"] = ["res4"]
    config["INPUT"] |= {
        "MIN_SIZE_TRAIN": list(protocol.train_sizes),
        "MIN_SIZE_TEST": protocol.test_size,
        "MAX_SIZE_TRAIN": protocol.max_size,
        "MAX_SIZE_TEST": protocol.max_size,
        "RANDOM_FLIP": "horizontal" if protocol.flip else "none",
    }
    config["SOLVER"] = {
        "IMS_PER_BATCH": protocol.batch_size,
        "BASE_LR": protocol.lr,
        "MOMENTUM": protocol.momentum,
        "WEIGHT_DECAY": protocol.weight_decay,
        "WEIGHT_DECAY_NORM": 0.0,
        "MAX_ITER": protocol.iterations,
        "STEPS": protocol.milestones,
        "WARMUP_ITERS": protocol.warmup,
        "WARMUP_FACTOR": protocol.warmup_factor,
    }
    config["TEST"] = {
        "DETECTIONS_PER_IMAGE": protocol.detections_per_image,
        "PRECISE_BN": {
            "ENABLED": bool(protocol.precise_bn) and trained,
            "NUM_ITER": max(protocol.precise_bn, 1),
        },
    }
    return config
