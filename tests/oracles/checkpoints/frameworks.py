"""Checkpoints under the names and in the containers of other libraries, of small stirred nets.

The names are written down here a second time, from the libraries' own, and not by inverting what
the formats do; where a library is installed, its own class is asked in the format's tests.
"""

import argparse
import pickle
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from tests.oracles.encoders import net, stir
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet

OPTIMIZER = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 0.1}]}
State = dict[str, Tensor]


@dataclass(kw_only=True)
class Case:
    """A checkpoint and what must be read from it.

    content: for torch.save (`container` torch or legacy), safetensors or pickle. net: what gives
    the features. others: encoder -> the same for the nets to be had on request. dropped: groups.
    """

    format: str
    content: Any
    net: ResNet
    container: str = "torch"
    encoder: str = ""
    others: dict[str, ResNet] = field(default_factory=dict)
    head: MLP | None = None
    classes: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    preprocess: dict[str, Any] = field(default_factory=dict)
    note: str = ""

    def save(self, path: Path) -> None:
        """Write the file."""
        if self.container == "safetensors":
            save_file(self.content, path, metadata={"format": "pt"})
        elif self.container == "pickle":
            path.write_bytes(pickle.dumps(self.content, protocol=2))
        else:
            zipped = self.container == "torch"
            torch.save(self.content, path, _use_new_zipfile_serialization=zipped)


def narrow(seed: int = 0, **spec: Any) -> ResNet:
    """A ResNet-18 of 4 channels (8 with a deep stem), by default; stirred by `seed`."""
    width = {"width": 0.125} if spec.get("stem") in ("d", "t") else {}
    return stir(net(**{"stem": "imagenet", **width, **spec}), seed).eval()


def state_of(module: torch.nn.Module, prefix: str = "") -> State:
    """Its state dict with `prefix` before every name."""
    return {prefix + name: tensor.clone() for name, tensor in module.state_dict().items()}


def classifier(prefix: str, ins: int, classes: int = 5) -> State:
    generator = torch.Generator().manual_seed(3)
    weight = torch.randn(classes, ins, generator=generator)
    return {f"{prefix}weight": weight, f"{prefix}bias": torch.arange(float(classes))}


def renamed(state: State, *pairs: tuple[str, str]) -> State:
    """`state` with parts of the names replaced, pair after pair."""
    out = {}
    for name, tensor in state.items():
        for old, new in pairs:
            name = name.replace(old, new)
        out[name] = tensor
    return out


# torchvision


def linear_evaluation() -> Case:
    """MoCo's and SimSiam's main_lincls.py."""
    encoder = narrow()
    state = state_of(encoder, "module.") | classifier("module.fc.", encoder.out_dim)
    content = {
        "epoch": 100,
        "arch": "resnet50",
        "state_dict": OrderedDict(state),
        "best_acc1": torch.tensor(67.5),
        "optimizer": OPTIMIZER,
    }
    return Case(format="torchvision state dict", content=content, net=encoder, classes=5)


def torchvision_references() -> Case:
    """torchvision's references/classification with --model-ema."""
    encoder, averaged = narrow(), narrow(1)
    ema = state_of(averaged, "module.") | {"n_averaged": torch.tensor(9)}
    content = {
        "model": OrderedDict(state_of(encoder)),
        "optimizer": OPTIMIZER,
        "lr_scheduler": {"last_epoch": 3},
        "epoch": 3,
        "args": argparse.Namespace(model="resnet18", lr=0.1),
        "model_ema": OrderedDict(ema),
    }
    return Case(
        format="torchvision state dict",
        content=content,
        net=encoder,
        encoder="raw",
        others={"ema": averaged},
    )


# timm

SHIFTED = ((".downsample.1.", ".downsample.2."), (".downsample.0.", ".downsample.1."))


def timm_file(container: str = "safetensors", **spec: Any) -> Case:
    encoder = narrow(shortcut="avg_down", **spec)
    state = renamed(state_of(encoder), *SHIFTED) | classifier("fc.", encoder.out_dim)
    return Case(format="timm", content=state, net=encoder, container=container, classes=5)


def timm_trained() -> Case:
    """train.py with --model-ema."""
    encoder, averaged = (narrow(seed, stem="d", shortcut="avg_down") for seed in (0, 1))
    raw, ema = (renamed(state_of(part), *SHIFTED) for part in (encoder, averaged))
    content = {
        "epoch": 12,
        "arch": "resnet18d",
        "state_dict": OrderedDict(raw),
        "optimizer": OPTIMIZER,
        "version": 2,
        "args": argparse.Namespace(model="resnet18d", mean=[0.5, 0.5, 0.5], std=None),
        "amp_scaler": {"scale": 65536.0},
        "state_dict_ema": OrderedDict(ema),
        "metric": 71.3,
    }
    return Case(
        format="timm",
        content=content,
        net=encoder,
        encoder="raw",
        others={"ema": averaged},
        preprocess={"mean": [0.5, 0.5, 0.5], "std": [0.229, 0.224, 0.225]},
    )


# Hugging Face


def huggingface(prefix: str = "resnet.", **spec: Any) -> Case:
    encoder = narrow(**spec)
    pairs = [(f"layer{i + 1}.", f"{prefix}encoder.stages.{i}.layers.") for i in range(4)]
    pairs += [(f".conv{i + 1}.", f".layer.{i}.convolution.") for i in range(3)]
    pairs += [(f".bn{i + 1}.", f".layer.{i}.normalization.") for i in range(3)]
    pairs += [("downsample.0", "shortcut.convolution"), ("downsample.1", "shortcut.normalization")]
    state = renamed(state_of(encoder), *pairs)
    stem = (("conv1.", "convolution."), ("bn1.", "normalization."))
    for name in [name for name in state if name.startswith(("conv1.", "bn1."))]:
        ((new, tensor),) = renamed({name: state.pop(name)}, *stem).items()
        state[f"{prefix}embedder.embedder.{new}"] = tensor
    if prefix:
        state |= classifier("classifier.1.", encoder.out_dim)
    return Case(
        format="Hugging Face ResNet",
        content=state,
        net=encoder,
        container="safetensors" if prefix else "torch",
        classes=5 if prefix else 0,
    )


# VISSL


def mlp(ins: int, *outs: int, norm: str = "none", bias: bool = True, seed: int = 7) -> MLP:
    layers = [{"out": out, "bias": bias, "norm": norm, "relu": True} for out in outs]
    layers[-1] |= {"norm": "none", "relu": False}
    return stir(MLP(in_dim=ins, layers=layers), seed).eval()


def sequential(head: MLP, prefix: str, places: list[str]) -> State:
    """Its linears and norms under `prefix` and the places in `places`, one for each of them."""
    state, free = {}, iter(places)
    for layer in head.layers:
        for part in (layer.linear, layer.norm):
            if list(part.parameters()):
                state |= state_of(part, f"{prefix}{next(free)}.")
    return state


def vissl_trained(
    heads: State,
    *,
    trunk: str = "_feature_blocks.",
    head: MLP | None = None,
    dropped: Mapping[str, int] | None = None,
    averaged: ResNet | None = None,
    **spec: Any,
) -> Case:
    encoder = narrow(**spec)

    def model(part: ResNet) -> dict[str, Any]:
        content = {"trunk": OrderedDict(state_of(part, trunk)), "heads": OrderedDict(heads)}
        return {"model": content, "meta": {"trunk": {}, "heads": {}}}

    classy = {
        "train": True,
        "base_model": model(encoder),
        "meters": [],
        "optimizer": OPTIMIZER,
        "phase_idx": 99,
        "train_phase_idx": 99,
        "num_updates": 1000,
        "losses": [0.5],
        "hooks": {},
        "loss": {"queue": torch.ones(4, 8)},
    }
    classy |= {"ema_model": model(averaged), "ema_meters": []} if averaged else {}
    content = {
        "phase_idx": 99,
        "iteration": 1000,
        "loss": {"queue": torch.ones(4, 8)},
        "iteration_num": 10,
        "train_phase_idx": 99,
        "classy_state_dict": classy,
        "type": "consolidated",
    }
    return Case(
        format="VISSL",
        content=content,
        net=encoder,
        head=head,
        dropped=dropped or {},
        encoder="raw" if averaged else "",
        others={"ema": averaged} if averaged else {},
    )


def vissl_simclr() -> Case:
    """Two heads of one linear each, the first with a ReLU behind it; width 2."""
    head = mlp(64, 64, 16)
    heads = sequential(head, "", ["0.clf.0", "1.clf.0"])
    return vissl_trained(heads, head=head, width=0.125, averaged=narrow(1, width=0.125))


def vissl_swav() -> Case:
    head = mlp(128, 32, 16, norm="affine")
    heads = sequential(head, "0.", [f"projection_head.{i}" for i in (0, 1, 3)])
    heads |= {"0.prototypes0.weight": torch.ones(30, 16), "0.prototypes1.weight": torch.ones(9, 16)}
    return vissl_trained(heads, head=head, depth=50, dropped={"prototypes": 2})


def vissl_probes() -> Case:
    """Linear probes on the features of a frozen trunk: a batch norm and a linear for each layer."""
    heads = {}
    for i, width in enumerate((8, 32)):
        norm = torch.nn.BatchNorm2d(width)
        heads |= state_of(norm, f"{i}.channel_bn.") | classifier(f"{i}.clf.clf.0.", width)
    return vissl_trained(
        heads,
        trunk="base_model._feature_blocks.",
        dropped={"linear probes and other heads": 12},
    )


def vissl_converted(prefix: str, container: str | None = "model_state_dict", **spec: Any) -> Case:
    encoder = narrow(**spec)
    state = state_of(encoder, prefix)
    return Case(format="VISSL", content={container: state} if container else state, net=encoder)


# OpenMMLab


def openmmlab(
    state: State, net: ResNet, *, text: str = "", author: str | None = None, **case: Any
) -> Case:
    meta = {"mmselfsup_version": "1.0.0", "epoch": 200, "iter": 1000, "config": text, "cfg": text}
    content = {"meta": meta} if author is None else {"author": author}
    content |= {"state_dict": OrderedDict(state)}
    return Case(format="OpenMMLab", content=content, net=net, **case)


def mmselfsup_moco(*, old: bool) -> Case:
    """MoCo v2: 0.x with encoder_q and its second name, 1.x with an averaged copy."""
    query, key, head = narrow(depth=26), narrow(1, depth=26), mlp(128, 128, 16)
    neck = sequential(head, "mlp.", ["0", "2"])
    slow = "encoder_k." if old else "encoder_k.module."
    state = state_of(query, "backbone.")
    if old:
        state |= state_of(query, "encoder_q.0.")
        state |= {f"encoder_q.1.{name}": t for name, t in neck.items()}
    else:
        state |= {f"neck.{name}": t for name, t in neck.items()}
        state |= {"encoder_k.steps": torch.tensor(7)}
    state |= state_of(key, f"{slow}0.") | {f"{slow}1.{name}": t for name, t in neck.items()}
    state |= {"queue": torch.ones(16, 64), "queue_ptr": torch.zeros(1, dtype=torch.long)}
    weights = sum(not name.endswith("num_batches_tracked") for name in query.state_dict())
    dropped = {"of the key encoder": weights + 4, "queue": 2}
    dropped |= {"second names of the same": weights} if old else {"counters of steps": 1}
    return openmmlab(
        state,
        query,
        head=head,
        encoder="query",
        others={"key": key},
        dropped=dropped,
    )


def mmselfsup_byol(*, old: bool) -> Case:
    """BYOL: a neck of named layers, and a predictor in the head of the loss."""
    online, target, head = narrow(), narrow(1), mlp(32, 64, 16, norm="affine")
    neck = sequential(head, "", ["fc0", "bn0", "fc1"])
    fast, slow = ("online_net.", "target_net.") if old else ("", "target_net.module.")
    names = ("0.", "1.") if old else ("backbone.", "neck.")
    state = state_of(online, fast + names[0])
    state |= {f"{fast}{names[1]}{name}": t for name, t in neck.items()}
    state |= state_of(target, f"{slow}0.") | {f"{slow}1.{name}": t for name, t in neck.items()}
    state |= {f"head.predictor.{name}": t for name, t in neck.items()}
    weights = sum(not name.endswith("num_batches_tracked") for name in online.state_dict())
    neck_weights = sum(not name.endswith("num_batches_tracked") for name in neck)
    dropped = {"of the target encoder": weights + neck_weights, "head of the loss": neck_weights}
    if old:
        state |= state_of(online, "backbone.")
        dropped |= {"second names of the same": weights}
    return openmmlab(
        state, online, head=head, encoder="online", others={"target": target}, dropped=dropped
    )


def mmselfsup_swav() -> Case:
    encoder, head = narrow(), mlp(32, 64, 16, norm="affine")
    state = state_of(encoder, "backbone.")
    state |= sequential(head, "neck.projection_neck.", ["0", "1", "3"])
    state |= state_of(head.layers[0].norm, "neck.bn.")
    state |= {"head.loss.prototypes.weight": torch.ones(30, 16)}
    dropped = {"second names of the same": 4, "head of the loss": 1}
    return openmmlab(state, encoder, head=head, dropped=dropped)


def mmselfsup_densecl() -> Case:
    encoder, head = narrow(), mlp(32, 32, 16)
    state = state_of(encoder, "backbone.") | sequential(head, "neck.mlp.", ["0", "2"])
    state |= {f"neck.mlp2.{i}.weight": torch.ones(32, 32, 1, 1) for i in (0, 2)}
    state |= {"queue2": torch.ones(16, 8), "queue2_ptr": torch.zeros(1, dtype=torch.long)}
    return openmmlab(state, encoder, head=head, dropped={"dense projection head": 2, "queue": 2})


def mmselfsup_npid() -> Case:
    encoder, head = narrow(), mlp(32, 16)
    state = state_of(encoder, "backbone.") | sequential(head, "neck.", ["fc"])
    state |= {"memory_bank.feature_bank": torch.ones(100, 16)}
    return openmmlab(state, encoder, head=head, dropped={"memory bank": 1})


def mmselfsup_odc() -> Case:
    """The batch norm of its neck has no gamma and no beta, and a ReLU ends it."""
    encoder = narrow()
    layers = [
        {"out": n, "bias": True, "norm": norm, "relu": True}
        for n, norm in ((64, "plain"), (16, "none"))
    ]
    head = stir(MLP(in_dim=32, layers=layers)).eval()
    state = state_of(encoder, "backbone.")
    for i, layer in enumerate(head.layers):
        state |= state_of(layer.linear, f"neck.fc{i}.")
    state |= state_of(head.layers[0].norm, "neck.bn0.")
    state |= {"memory_bank.centroids": torch.ones(30, 16), **classifier("head.fc_cls.", 16)}
    return openmmlab(state, encoder, head=head, dropped={"memory bank": 1, "head of the loss": 2})


def relative_location() -> Case:
    """Its neck takes the features of two patches: it cannot follow the encoder."""
    encoder = narrow()
    state = state_of(encoder, "backbone.") | classifier("neck.fc.", 64, 16)
    state |= state_of(torch.nn.BatchNorm1d(16), "neck.bn.") | classifier("head.fc_cls.", 16, 8)
    return openmmlab(state, encoder, dropped={"neck": 6, "head of the loss": 2})


IMAGENET = """data_preprocessor = dict(
    mean=[123.675, 116.28, 103.53],
    std=[58.395, 57.12, 57.375],
    to_rgb=True)
model = dict(backbone=dict(type='ResNet', depth=18, style='pytorch'))
"""
CAFFE = """img_norm_cfg = dict(
    mean=[103.53, 116.28, 123.675], std=[57.375, 57.12, 58.395], to_rgb=False)
model = dict(backbone=dict(type='ResNet', depth=26, style='caffe'))
"""
CIFAR = """data_preprocessor = dict(
    mean=[125.307, 122.961, 113.8575],
    std=[51.5865, 50.847, 51.255],
    to_rgb=False)
"""


def mmpretrain(text: str, preprocess: dict[str, Any], **spec: Any) -> Case:
    encoder = narrow(**spec)
    state = state_of(encoder, "backbone.") | classifier("head.fc.", encoder.out_dim)
    return openmmlab(state, encoder, text=text, classes=5, preprocess=preprocess)


PAIRED = ("conv1.0.", "stem.0.conv."), ("conv1.1.", "stem.0.bn."), ("conv1.3.", "stem.1.conv.")
PAIRED += ("conv1.4.", "stem.1.bn."), ("conv1.6.", "stem.2.conv.")
IN_A_ROW = tuple((f"conv1.{i}.", f"stem.{i}.") for i in (0, 1, 3, 4, 6))


def deep_stem(pairs: Any, last: str, prefix: str, shortcut: str, author: str | None) -> Case:
    """ResNet-V1c and -V1d: only blocks of stride 2 have a pool in their shortcut."""
    encoder = narrow(stem="d", shortcut=shortcut, depth=26)
    state = {}
    for name, tensor in encoder.state_dict().items():
        if name.startswith(("conv1.", "bn1.")):
            ((name, tensor),) = renamed({name: tensor}, *pairs, ("bn1.", last)).items()
        elif shortcut == "avg_down" and not name.startswith("layer1."):
            ((name, tensor),) = renamed({name: tensor}, *SHIFTED).items()
        state[prefix + name] = tensor
    return openmmlab(state, encoder, author=author)


# Detectron2

TO_DETECTRON2 = [(f"layer{i}.", f"res{i + 1}.") for i in (1, 2, 3, 4)]
TO_DETECTRON2 += [(f"bn{i}.", f"conv{i}.norm.") for i in (1, 2, 3)]
TO_DETECTRON2 += [("downsample.0.", "shortcut."), ("downsample.1.", "shortcut.norm.")]
BGR = {"channel_order": "BGR", "mean": [103.53, 116.28, 123.675], "range": [0.0, 255.0]}


def detectron2_names(encoder: ResNet) -> State:
    state = renamed(state_of(encoder), *TO_DETECTRON2)
    return {name if name[:3] == "res" else f"stem.{name}": t for name, t in state.items()}


def fold(encoder: ResNet) -> ResNet:
    """With norms that are a scale and an offset."""
    for name, buffer in encoder.named_buffers():
        if name.endswith("running_mean"):
            buffer.zero_()
        elif name.endswith("running_var"):
            buffer.fill_(1 - 1e-5)
    return encoder


def pickled(state: State) -> dict[str, Any]:
    """As arrays, as converters save them."""
    return {name: tensor.numpy() for name, tensor in state.items()}


def moco_converted(container: str) -> Case:
    """MoCo's and torchvision's converters, whose names of the head are no names of Detectron2."""
    encoder = narrow(depth=50)
    state = detectron2_names(encoder)
    state |= classifier("stem.fc.0.", 128, 128) | classifier("stem.fc.2.", 128, 16)
    content = {
        "model": pickled(state) if container == "pickle" else state,
        "__author__": "MOCO",
        "matching_heuristics": True,
    }
    return Case(
        format="Detectron2",
        content=content,
        net=encoder,
        container=container,
        dropped={"classifier or projection head": 4},
    )


def detector(*, c4: bool, folded: bool) -> Case:
    """What a training run of Detectron2 saves, with FPN or with C4."""
    encoder = narrow(depth=50, stride_in_1x1=folded)
    encoder = fold(encoder) if folded else encoder
    start = "backbone." if c4 else "backbone.bottom_up."
    state = {
        ("roi_heads." if c4 and name.startswith("res5.") else start) + name: tensor
        for name, tensor in detectron2_names(encoder).items()
    }
    others = ["proposal_generator.rpn_head.conv.weight", "roi_heads.box_predictor.bbox_pred.bias"]
    others += ["pixel_mean"] if c4 else ["backbone.fpn_lateral2.weight"]
    state |= {name: torch.ones(2) for name in others}
    content = {"model": state, "optimizer": OPTIMIZER, "scheduler": {}, "iteration": 89999}
    return Case(
        format="Detectron2",
        content=content,
        net=encoder,
        dropped={"layers of the detector": 3},
        preprocess={**BGR, "std": [1.0, 1.0, 1.0]} if folded else {"channel_order": "RGB"},
        note="" if folded else "does not say what its input went through",
    )


def caffe2(container: str, *, grouped: bool = False, blobs: bool = False) -> Case:
    """MSRA's R-50.pkl, FAIR's X-101-32x8d.pkl, and a detector of Detectron1 under `blobs`."""
    spec = {"groups": 4, "inner": 2} if grouped else {"stride_in_1x1": True}
    encoder = fold(narrow(depth=50, **spec))
    pairs = [(".conv1", "_branch2a"), (".conv2", "_branch2b"), (".conv3", "_branch2c")]
    pairs += [(".shortcut", "_branch1"), (".norm.weight", "_bn_s"), (".norm.bias", "_bn_b")]
    pairs += [("stem_branch2a_bn", "res_conv1_bn"), ("stem_branch2a", "conv1")]
    pairs += [(".weight", "_w"), (".", "_")]
    state = {
        name: tensor
        for name, tensor in renamed(detectron2_names(encoder), *pairs).items()
        if "_running_" not in name and "num_batches" not in name
    }
    head = classifier("", encoder.out_dim)
    state |= {"fc1000_w": head["weight"], "fc1000_b": head["bias"]}
    state |= {"conv1_w_momentum": torch.ones(1)}
    state |= {"conv_rpn_w": torch.ones(1), "cls_score_b": torch.ones(1)} if blobs else {}
    held: dict[str, Any] = pickled(state) if container == "pickle" else state
    return Case(
        format="Detectron2",
        content={"blobs": held, "cfg": "MODEL: {}"} if blobs else held,
        net=encoder,
        container=container,
        classes=5,
        dropped={"layers of the detector": 2} if blobs else {},
        preprocess={**BGR, "std": [57.375, 57.12, 58.395] if grouped else [1.0, 1.0, 1.0]},
    )


CASES: dict[str, Callable[[], Case]] = {
    "torchvision: linear evaluation": linear_evaluation,
    "torchvision: linear evaluation before 1.6": lambda: replace(
        linear_evaluation(), container="legacy"
    ),
    "torchvision: references": torchvision_references,
    "timm: resnet18d": lambda: timm_file(stem="d"),
    "timm: resnet26t": lambda: timm_file(stem="t", depth=26),
    "timm: resnext50d": lambda: timm_file("torch", stem="d", depth=50, groups=4, inner=2),
    "timm: train.py": timm_trained,
    "Hugging Face: basic": huggingface,
    "Hugging Face: bottleneck": lambda: huggingface(depth=26),
    "VISSL: SimCLR with an average": vissl_simclr,
    "VISSL: SwAV": vissl_swav,
    "VISSL: linear probes": vissl_probes,
    "VISSL: converted": lambda: vissl_converted("_feature_blocks."),
    "VISSL: converted, trunk": lambda: vissl_converted("trunk._feature_blocks.", depth=26),
    "VISSL: bare": lambda: vissl_converted("_feature_blocks.", None, depth=34),
    "mmselfsup 0.x: MoCo": lambda: mmselfsup_moco(old=True),
    "mmselfsup 1.x: MoCo": lambda: mmselfsup_moco(old=False),
    "OpenSelfSup: BYOL": lambda: mmselfsup_byol(old=True),
    "mmselfsup 1.x: BYOL": lambda: mmselfsup_byol(old=False),
    "mmselfsup: SwAV": mmselfsup_swav,
    "mmselfsup: DenseCL": mmselfsup_densecl,
    "mmselfsup: NPID": mmselfsup_npid,
    "mmselfsup: ODC": mmselfsup_odc,
    "mmselfsup: relative location": relative_location,
    "mmpretrain: ResNet": lambda: mmpretrain(
        IMAGENET, {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    ),
    "mmpretrain: Caffe's style": lambda: mmpretrain(
        CAFFE,
        {"mean": [0.406, 0.456, 0.485], "channel_order": "BGR"},
        depth=26,
        stride_in_1x1=True,
    ),
    "mmpretrain: CIFAR": lambda: mmpretrain(
        CIFAR, {"mean": [0.4914, 0.4822, 0.4465], "size": 32, "resize": None}, stem="cifar"
    ),
    "mmpretrain: V1c": lambda: deep_stem(PAIRED, "stem.2.bn.", "backbone.", "conv", None),
    "mmselfsup: V1d": lambda: deep_stem(IN_A_ROW, "stem.7.", "backbone.", "avg_down", None),
    "mmselfsup: extracted": lambda: deep_stem(PAIRED, "stem.2.bn.", "", "avg_down", "MMSelfSup"),
    "OpenSelfSup: extracted": lambda: openmmlab(state_of(narrow()), narrow(), author="OpenSelfSup"),
    "Detectron2: tensors": lambda: moco_converted("torch"),
    "Detectron2: arrays": lambda: moco_converted("pickle"),
    "Detectron2: FPN": lambda: detector(c4=False, folded=False),
    "Detectron2: FPN of MSRA's": lambda: detector(c4=False, folded=True),
    "Detectron2: C4 of MSRA's": lambda: detector(c4=True, folded=True),
    "Caffe2: R-50": lambda: caffe2("pickle"),
    "Caffe2: X-101-32x8d": lambda: caffe2("pickle", grouped=True),
    "Caffe2: a detector": lambda: caffe2("pickle", blobs=True),
    "Hugging Face: bare model": lambda: huggingface("", depth=26),
}
