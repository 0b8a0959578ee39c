"""visrep's ResNet inside Detectron2.

Selective kernels, deep and small stems, the padding of TF and haiku, pooling and extra shortcuts, a
narrow ResNet-18 and the depths 10, 14, 26 and 200 have no place in Detectron2's own ResNet. They
run through two backbones that are registered here:

    cfg = detectron2.config.get_cfg()
    add_visrep_config(cfg)
    cfg.merge_from_file("x.yaml")  # as visrep convert to=detectron2 wrote it

Inside Detectron2 the net's tensors carry Detectron2's names (`res2.0.conv1.norm.weight`), so the
same `.pkl` serves, and so do its checkpoints.
"""

import functools
import math
from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from visrep.d2 import semantic
from visrep.d2.pkl import detectron2_name, visrep_node
from visrep.errors import UserError
from visrep.nn.batchnorm import BatchNorm
from visrep.nn.resnet import RARE, ResNet

FEATURES = ("res2", "res3", "res4", "res5")


def add_visrep_config(cfg: Any) -> None:
    """Give a Detectron2 config the node MODEL.VISREP and the keys of `visrep.d2.semantic`, and
    register what reads them."""
    from detectron2.config import CfgNode

    register()
    node = CfgNode()
    usual = {"depth": 50, "width": 1.0, "sk": False, "stem": "imagenet", "padding": "torch", **RARE}
    for key, value in visrep_node(usual).items():
        node[key] = value
    cfg.MODEL.VISREP = node
    semantic.add_to(cfg)


def register() -> None:
    """Register the backbones with Detectron2; a second call changes nothing."""
    from detectron2.modeling import BACKBONE_REGISTRY

    for build in (build_visrep_resnet_backbone, build_visrep_resnet_fpn_backbone):
        if build.__name__ not in BACKBONE_REGISTRY:
            BACKBONE_REGISTRY.register(build)


def build_visrep_resnet_backbone(cfg: Any, input_shape: Any) -> Any:
    """Our ResNet as a Detectron2 backbone, with MODEL.RESNETS' NORM and OUT_FEATURES and
    MODEL.BACKBONE's FREEZE_AT."""
    if input_shape.channels != 3:
        raise UserError(f"visrep's ResNet takes 3 channels, not {input_shape.channels}")
    from detectron2.layers import FrozenBatchNorm2d

    net = _net(cfg)
    freeze(net, cfg.MODEL.BACKBONE.FREEZE_AT, FrozenBatchNorm2d.convert_frozen_batchnorm)
    return _backbone_class()(net, list(cfg.MODEL.RESNETS.OUT_FEATURES))


def build_visrep_resnet_fpn_backbone(cfg: Any, input_shape: Any) -> Any:
    """A feature pyramid on our ResNet. A level is named after its stride, 2 ** level, so that the
    small stem has p1 to p5."""
    from detectron2.modeling.backbone.fpn import FPN, LastLevelMaxPool

    bottom_up = build_visrep_resnet_backbone(cfg, input_shape)
    last = bottom_up.output_shape()[cfg.MODEL.FPN.IN_FEATURES[-1]].stride
    top = LastLevelMaxPool()
    top.in_feature = f"p{int(math.log2(last))}"  # Detectron2's has p5 written in
    return FPN(
        bottom_up=bottom_up,
        in_features=cfg.MODEL.FPN.IN_FEATURES,
        out_channels=cfg.MODEL.FPN.OUT_CHANNELS,
        norm=cfg.MODEL.FPN.NORM,
        top_block=top,
        fuse_type=cfg.MODEL.FPN.FUSE_TYPE,
    )


def build_visrep_stage(cfg: Any, name: str = "res5") -> nn.Sequential:
    """One stage of our ResNet under Detectron2's names, for a head that runs it on regions (C4).

    Its tensors are `0.conv1.weight`, ..., so as `roi_heads.res5` it takes those of `res5` in the
    `.pkl`; a module appended to it keeps its own name.
    """
    net = _net(cfg)
    layer = f"layer{FEATURES.index(name) + 1}"
    stage = getattr(net, layer)
    _speak_detectron2(stage, inner="", place=f"{layer}.", stem=net.spec["stem"])
    return stage


def _net(cfg: Any) -> ResNet:
    """Our net with Detectron2's norm layers, which its optimizer and PreciseBN know."""
    from detectron2.layers import get_norm

    node, kind = cfg.MODEL.VISREP, cfg.MODEL.RESNETS.NORM
    if not kind:
        raise UserError("MODEL.RESNETS.NORM is empty: visrep's ResNet needs a norm, such as BN")
    net = ResNet(**{key.lower(): value for key, value in node.items()})
    for parent in list(net.modules()):
        for name, child in list(parent.named_children()):
            if isinstance(child, BatchNorm):
                norm = get_norm(kind, child.num_features)
                norm.eps = child.eps
                setattr(parent, name, norm)
    return net


def freeze(net: ResNet, count: int, frozen: Callable[[nn.Module], nn.Module]) -> None:
    """Stop the training of the first `count` parts of `net` (1: the stem, 2: also layer1, ...), as
    Detectron2's ResNet does.

    frozen: turns the norms of a module into frozen ones and returns the module.
    """
    parts = [("conv1", "bn1"), ("layer1",), ("layer2",), ("layer3",), ("layer4",)]
    for names in parts[:count]:
        for name in names:
            setattr(net, name, frozen(getattr(net, name)).requires_grad_(False))


@functools.cache
def _backbone_class() -> Any:
    """Made on first use, since its parent is Detectron2's."""
    from detectron2.layers import ShapeSpec
    from detectron2.modeling import Backbone

    class VisrepResNet(Backbone):
        """N x 3 x H x W -> {"res2": N x C x H/4 x W/4, ...}, those of `out_features`."""

        def __init__(self, net: ResNet, out_features: list[str]) -> None:
            super().__init__()
            unknown = sorted(set(out_features) - set(FEATURES))
            if unknown:
                raise UserError(f"OUT_FEATURES {unknown[0]}: choose from {', '.join(FEATURES)}")
            last = max(FEATURES.index(name) for name in out_features)
            for unused in range(last + 2, 5):
                # A layer that gets no gradient would stop distributed training.
                setattr(net, f"layer{unused}", nn.Identity())
            self.net = net
            self.out_features = out_features
            _speak_detectron2(self, inner="net.", place="", stem=net.spec["stem"])

        def __getattr__(self, name: str) -> Any:
            # A checkpointer looks for the owner of a tensor only if its shape is another one.
            if name == "stem" or name in FEATURES:
                raise AttributeError(
                    f"{name} of the checkpoint has other shapes than the net of MODEL.VISREP: "
                    "give that node the values of the net that was trained"
                )
            return super().__getattr__(name)

        def forward(self, x: Tensor) -> dict[str, Tensor]:
            maps = dict(zip(FEATURES, self.net.feature_maps(x), strict=True))
            return {name: maps[name] for name in self.out_features}

        def output_shape(self) -> dict[str, Any]:
            shapes = zip(FEATURES, self.net.channels, self.net.strides, strict=True)
            return {
                name: ShapeSpec(channels=channels, stride=stride)
                for name, channels, stride in shapes
                if name in self.out_features
            }

    return VisrepResNet


def _speak_detectron2(module: nn.Module, *, inner: str, place: str, stem: str) -> None:
    """Give the state dict of `module` Detectron2's names, in both directions.

    inner: where our tensors are inside `module`. place: where `module` is inside our ResNet, ''
    for the whole net or `layer4.`. What is no tensor of our ResNet keeps its name.
    """

    def translate(name: str) -> str | None:
        if not name.startswith(inner):
            return None
        try:
            full = detectron2_name(place + name.removeprefix(inner), stem=stem)
        except KeyError:
            return None
        return full.partition(".")[2] if place else full  # without res5.

    def on_save(_: nn.Module, state: dict[str, Any], prefix: str, _metadata: object) -> None:
        for key in [key for key in state if key.startswith(prefix)]:
            name = translate(key.removeprefix(prefix))
            # Taken out and put back even under its own name: the order stays the module's.
            state[key if name is None else prefix + name] = state.pop(key)

    def on_load(owner: nn.Module, state: dict[str, Any], prefix: str, *_rest: object) -> None:
        own = [*dict(owner.named_parameters()), *dict(owner.named_buffers())]
        names = {translate(name): name for name in own}
        for key in [key for key in state if key.startswith(prefix)]:
            name = names.get(key.removeprefix(prefix))
            if name is not None:
                state[prefix + name] = state.pop(key)

    module.register_state_dict_post_hook(on_save)
    module.register_load_state_dict_pre_hook(on_load)
