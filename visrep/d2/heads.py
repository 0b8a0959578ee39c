"""Detectron2's C4 head with any layer4 of ours, and with the extra norm of MoCo's recipe.

Detectron2's own C4 head always has three bottleneck blocks, which is wrong for ResNet-18 and 34,
and has no norm after them, which features from self-supervised weights need (arXiv 1911.05722,
4.2). MoCo's `train_net.py` registers a head with that norm; a config that names it as MoCo does is
at home in both programs. Detectron2 is imported inside functions; the classes exist after
`register`.
"""

from typing import Any

from torch import nn

from visrep.d2.backbone import build_visrep_stage

PLAIN = "Res5ROIHeads"  # Detectron2's
EXTRA_NORM = "Res5ROIHeadsExtraNorm"  # MoCo's
VISREP_PLAIN = "VisrepRes5ROIHeads"
VISREP_EXTRA_NORM = "VisrepRes5ROIHeadsExtraNorm"
OF_VISREP = (VISREP_PLAIN, VISREP_EXTRA_NORM)


def name_of(*, extra_norm: bool, own: bool) -> str:
    """The C4 head of a config: Detectron2's or MoCo's where Detectron2's `own` ResNet holds the
    net, else one of visrep's."""
    if own:
        return EXTRA_NORM if extra_norm else PLAIN
    return VISREP_EXTRA_NORM if extra_norm else VISREP_PLAIN


def register() -> None:
    """Register with Detectron2 what it lacks of these heads; a second call changes nothing.

    Whoever has a `Res5ROIHeadsExtraNorm` already, as MoCo's program has, keeps it.
    """
    from detectron2.layers import get_norm
    from detectron2.modeling import ROI_HEADS_REGISTRY
    from detectron2.modeling.roi_heads import Res5ROIHeads

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

    class Res5ROIHeadsExtraNorm(VisrepRes5ROIHeadsExtraNorm):
        """The same, under the name that MoCo's configs have."""

    for heads in (VisrepRes5ROIHeads, VisrepRes5ROIHeadsExtraNorm, Res5ROIHeadsExtraNorm):
        if heads.__name__ not in ROI_HEADS_REGISTRY:
            ROI_HEADS_REGISTRY.register(heads)
