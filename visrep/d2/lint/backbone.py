"""Checks of a Detectron2 config: what of the net trains, its norms, the C4 head."""

from collections.abc import Iterator

from visrep.d2 import heads
from visrep.d2.lint.config import Config
from visrep.d2.lint.finding import FATAL, NOTE, WARNING, Finding, lines
from visrep.d2.lint.net import head_of, is_own, is_resnet
from visrep.nn.resnet import BASIC


def check_net(config: Config) -> Iterator[Finding]:
    """What of the backbone trains, its norms, the C4 head."""
    if not is_resnet(config):
        yield Finding(
            NOTE,
            "backbone",
            config.shown("MODEL.BACKBONE.NAME"),
            "it is no ResNet of Detectron2 or visrep: net and weights are not compared",
        )
        return
    norm, frozen = config["MODEL.RESNETS.NORM"], config["MODEL.BACKBONE.FREEZE_AT"]
    if norm == "FrozenBN":
        yield Finding(
            WARNING,
            "frozen-bn",
            config.shown("MODEL.RESNETS.NORM"),
            "self-supervised features have other scales than supervised ones; with frozen "
            "statistics training loses AP or ends in NaN (moco#40)",
            lines({"MODEL.RESNETS.NORM": "SyncBN", "TEST.PRECISE_BN.ENABLED": True}),
        )
    elif norm == "BN":
        yield Finding(
            NOTE,
            "norm",
            config.shown("MODEL.RESNETS.NORM"),
            "on several GPUs each takes the statistics of its own one or two images",
            lines({"MODEL.RESNETS.NORM": "SyncBN"}),
        )
    if isinstance(frozen, int) and frozen > 0:
        parts = ["the stem", "res2", "res3", "res4", "res5"][:frozen]
        yield Finding(
            WARNING,
            "frozen-stages",
            config.shown("MODEL.BACKBONE.FREEZE_AT"),
            f"{' and '.join(parts)} do not train; the published transfer results train all layers",
            lines({"MODEL.BACKBONE.FREEZE_AT": 0}),
        )
    trained = norm not in ("FrozenBN", "")
    if head_of(config) == "fpn" and trained and not config["MODEL.FPN.NORM"]:
        yield Finding(
            WARNING,
            "fpn-norm",
            config.shown("MODEL.FPN.NORM"),
            "the published FPN results have a norm in the pyramid too (MoCo, 4.2)",
            lines({"MODEL.FPN.NORM": norm}),
        )
    yield from _check_c4(config)


def _check_c4(config: Config) -> Iterator[Finding]:
    depth, head = config["MODEL.RESNETS.DEPTH"], config["MODEL.ROI_HEADS.NAME"]
    own = is_own(config)
    outs = config["MODEL.RESNETS.RES2_OUT_CHANNELS"]
    if own and depth in BASIC and outs != 64:
        yield Finding(
            FATAL,
            "basic-width",
            f"{config.shown('MODEL.RESNETS.RES2_OUT_CHANNELS')}, at depth {depth}",
            f"Detectron2 refuses a ResNet-{depth} of any other width than 64",
            lines({"MODEL.RESNETS.RES2_OUT_CHANNELS": 64}),
        )
    if head_of(config) != "c4":
        return
    if own and depth in BASIC:
        yield Finding(
            FATAL,
            "basic-c4",
            f"{config.shown('MODEL.RESNETS.DEPTH')}, under the C4 head {head}",
            "Detectron2's C4 head has three bottlenecks where this net has basic blocks: res5 "
            "stays random, or takes tensors that are not meant for it",
            "use the FPN, or visrep's own backbone and head: visrep convert ... task=voc0712_c4",
        )
    if not own and head not in heads.OF_VISREP:
        yield Finding(
            FATAL,
            "c4-stage",
            f"{config.shown('MODEL.ROI_HEADS.NAME')}, over {config['MODEL.BACKBONE.NAME']}",
            "its res5 is that of Detectron2's ResNet and not of MODEL.VISREP: it stays random, or "
            "takes tensors that are not meant for it",
            lines({"MODEL.ROI_HEADS.NAME": f"Visrep{head}"}),
        )
    if head in (heads.PLAIN, heads.VISREP_PLAIN):
        yield Finding(
            WARNING,
            "extra-norm",
            config.shown("MODEL.ROI_HEADS.NAME"),
            "no norm follows res5; the published C4 results of self-supervised weights have one, "
            "without which their features are of the wrong scale for the head (MoCo, 4.2)",
            lines({"MODEL.ROI_HEADS.NAME": heads.name_of(extra_norm=True, own=own)})
            + "\nand register such a head: MoCo's train_net.py, or visrep's visrep.d2.heads",
        )
