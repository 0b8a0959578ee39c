"""Detectron2's C4 head with any layer4 of ours, and with the extra norm of MoCo's recipe.

Detectron2's own C4 head always has three bottleneck blocks, which is wrong for ResNet-18 and 34,
and has no norm after them, which features from self-supervised weights need (arXiv 1911.05722,
4.2). Detectron2 is imported inside functions; the classes exist after `register`.
"""

from typing import Any

from torch import nn

from visrep.d2.backbone import build_visrep_stage

PLAIN = "VisrepRes5ROIHeads"
EXTRA_NORM = "VisrepRes5ROIHeadsExtraNorm"


def register() -> None:
    """Register both heads with Detectron2; a second call changes nothing."""
    from detectron2.layers import get_norm
    from detectron2.modeling import ROI_HEADS_REGISTRY
    from detectron2.modeling.roi_heads import Res5ROIHeads

    if PLAIN in ROI_HEADS_REGISTRY:
        return

    class VisrepRes5ROIHeads(Res5ROIHeads):
        """The C4 head whose layer4 is that of the backbone: Detectron2's own, or MODEL.VISREP's."""

        @classmethod
        def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
            if not cfg.MODEL.BACKBONE.NAME.startswith("build_visrep_"):
                return super()._build_res5_block(cfg)
            return build_visrep_stage(cfg, "res5"), 8 * cfg.MODEL.RESNETS.RES2_OUT_CHANNELS

    class VisrepRes5ROIHeadsExtraNorm(VisrepRes5ROIHeads):
        """The same with one more norm after layer4, as `res5.norm`."""

        @classmethod
        def _build_res5_block(cls, cfg: Any) -> tuple[nn.Sequential, int]:
            stage, channels = super()._build_res5_block(cfg)
            stage.add_module("norm", get_norm(cfg.MODEL.RESNETS.NORM, channels))
            return stage, channels

    for heads in (VisrepRes5ROIHeads, VisrepRes5ROIHeadsExtraNorm):
        ROI_HEADS_REGISTRY.register(heads)
