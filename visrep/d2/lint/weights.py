"""What Detectron2 would make of a weights file, found without running anything of it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from visrep.d2.lint.finding import FATAL, Finding
from visrep.d2.pkl import FORMAT, detectron2_name, pixel_statistics, resnets
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.weights.architecture import infer
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import COUNTER, build, shapes_of

CONVERT = "visrep convert weights={} to=detectron2 out=x.pkl"
_CAFFE2 = re.compile(r"(conv1|res\d_\d+_branch\d\w?|res_conv1_bn)_\w+")
_DETECTRON2 = re.compile(r"(.*\.)?(stem\.conv\d|res[2-5]\.\d+)\..+")
_TORCHVISION = re.compile(r"(.*\.)?(layer[1-4]\.\d+)\..+")


@dataclass(frozen=True)
class Convention:
    """What weights want of their input and of the place of the stride.

    Attributes:
        whose: in words.
        sure: known, and not only usual for files of this kind.
    """

    whose: str
    format: str
    mean: list[float]
    std: list[float]
    stride_in_1x1: bool
    sure: bool


TORCH = Convention(
    "torchvision's ResNets and most self-supervised ones",
    "RGB",
    [123.675, 116.28, 103.53],
    [58.395, 57.12, 57.375],
    stride_in_1x1=False,
    sure=False,
)
MSRA = Convention(
    "Detectron2's MSRA weights", "BGR", TORCH.mean[::-1], [1.0, 1.0, 1.0], True, sure=True
)
FAIR = Convention(
    "Detectron2's X-101-32x8d", "BGR", TORCH.mean[::-1], TORCH.std[::-1], False, sure=True
)


@dataclass
class Weights:
    """A weights file as Detectron2's checkpointer sees it.

    Attributes:
        path: the file.
        kind: in words.
        tensors: name -> shape, as it would match them.
        heuristics: whether it would match ends of names, or whole names only.
        convention: what its input must be.
        caffe2: Detectron2 renames its tensors.
        backbone: visrep's description of the net, where the names and shapes say it.
        findings: what is wrong with the file itself.
    """

    path: Path
    kind: str = ""
    tensors: dict[str, tuple[int, ...]] = field(default_factory=dict)
    heuristics: bool = False
    convention: Convention = TORCH
    caffe2: bool = False
    backbone: dict[str, Any] | None = None
    findings: list[Finding] = field(default_factory=list)

    @property
    def converted(self) -> bool:
        return any(_DETECTRON2.fullmatch(name) for name in self.tensors)


# Detectron2's own ImageNet weights whose convention is known; those with group norm have others.
_ZOO = {
    "MSRA/R-50.pkl": MSRA,
    "MSRA/R-101.pkl": MSRA,
    "FAIR/X-101-32x8d.pkl": FAIR,
    "torchvision/R-50.pkl": replace(TORCH, whose="torchvision's weights", sure=True),
}
_ZOO_PLACE = re.compile(r"(?:detectron2|catalog|https?)://.*ImageNetPretrained/(.+)")


def published(url: str) -> str | None:
    """The name of ImageNet weights in Detectron2's model zoo; None if `url` is none of these."""
    place = _ZOO_PLACE.match(url)
    return place[1] if place else None


def convention_of(name: str) -> Convention | None:
    """What these want, where known."""
    return _ZOO.get(name)


def read_file(path: Path) -> Weights:
    """Look into `path` as Detectron2 would open it, which goes by the end of its name.

    Raises:
        UserError: there is no such file, or it is damaged.
    """
    if not path.is_file():
        raise ConfigError(f"there is no weights file {path}")
    tree = read_tree(path)
    by_torch = tree.container.startswith("torch")
    weights = Weights(path)
    content = tree.value if isinstance(tree.value, dict) else {}
    if path.suffix == ".pkl" and by_torch:
        weights.findings.append(
            Finding(
                FATAL,
                "torch-pkl",
                f"{path.name} was written by torch.save, and its name ends in .pkl",
                "Detectron2 opens a .pkl with pickle and fails on it",
                f"{CONVERT.format(path)}; or rename it to .pth and, if it has Detectron2's names, "
                'put "matching_heuristics": True beside its "model"',
            )
        )
    elif path.suffix != ".pkl" and not by_torch:
        weights.findings.append(
            Finding(
                FATAL,
                "container",
                f"{path.name} is a {tree.container} file",
                "Detectron2 opens what does not end in .pkl with torch.load, which fails on it",
                CONVERT.format(path),
            )
        )
    if tree.container == "pickle":
        _read_pkl(weights, content)
    else:
        _read_torch(weights, content, "a torch file" if by_torch else f"a {tree.container} file")
    ours = _our_shapes(weights.tensors)
    if weights.backbone is None and ours:
        try:
            weights.backbone = infer(ours, path)
        except UserError:
            weights.backbone = None
    return weights


def of_encoder(backbone: dict[str, Any], preprocess: Preprocess, path: str) -> Weights:
    """An encoder as the `.pkl` of it would be, under the name `path`."""
    stem = backbone["stem"]
    return Weights(
        Path(path),
        kind="the encoder",
        tensors={detectron2_name(n, stem=stem): s for n, s in shapes_of(build(backbone)).items()},
        heuristics=True,
        convention=_wanted_by(backbone, preprocess),
        backbone=backbone,
    )


def _wanted_by(backbone: Mapping[str, Any], preprocess: Preprocess) -> Convention:
    """What an encoder of visrep's wants of its input."""
    mean, std = pixel_statistics(preprocess)
    stride = bool(backbone.get("stride_in_1x1"))
    return Convention(
        "the encoder's weights", preprocess.channel_order, mean, std, stride, sure=True
    )


def _read_pkl(weights: Weights, content: dict[Any, Any]) -> None:
    ours = content.get("visrep")
    if isinstance(ours, dict) and ours.get("format") == FORMAT:
        weights.kind = "visrep's .pkl"
        try:
            weights.backbone = dict(ours["backbone"])
            preprocess = Preprocess.from_dict(ours["preprocess"])
            weights.convention = _wanted_by(weights.backbone, preprocess)
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"{weights.path} is inconsistent: {error}") from error
    if "model" in content and "__author__" in content:
        author = str(content["__author__"])[:40]
        weights.kind = weights.kind or f"a Detectron2 .pkl by {author}"
        weights.heuristics = bool(content.get("matching_heuristics"))
        _take(weights, content["model"])
        if author == "Caffe2":
            weights.convention, weights.caffe2 = MSRA, True
        return
    blobs = content.get("blobs", content)
    if isinstance(blobs, dict) and any(_CAFFE2.fullmatch(str(name)) for name in blobs):
        weights.kind, weights.convention, weights.caffe2 = "a Caffe2 .pkl", MSRA, True
        return
    _take(weights, content.get("model", content.get("state_dict", content)))
    weights.kind = "a pickle without __author__"
    weights.findings.append(
        Finding(
            FATAL,
            "pkl-keys",
            f"{weights.path.name} lacks {'__author__' if 'model' in content else 'model'}",
            "Detectron2 takes such a .pkl for a Caffe2 model, renames its keys and loads nothing",
            CONVERT.format("ORIGINAL"),
        )
    )


def _read_torch(weights: Weights, content: dict[Any, Any], kind: str) -> None:
    weights.kind = kind
    weights.heuristics = bool(content.get("matching_heuristics", False))
    _take(weights, content.get("model", content))
    # Where Detectron2 sees no tensor, the advice goes by what is one level deeper.
    for inner in content.values():
        if not weights.tensors and isinstance(inner, dict):
            _take(weights, inner)
            weights.kind, weights.heuristics = "a training checkpoint", False


def _take(weights: Weights, content: object) -> None:
    if isinstance(content, Mapping):
        weights.tensors = {
            str(name): tuple(int(n) for n in value.shape)
            for name, value in content.items()
            if isinstance(value, Stored) and not str(name).endswith(COUNTER)
        }


def _our_shapes(tensors: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """Under our names, whatever stands before them; only what a backbone has."""
    starts = {m[1] or "" for m in map(_DETECTRON2.fullmatch, tensors) if m}
    starts |= {m[1] or "" for m in map(_TORCHVISION.fullmatch, tensors) if m}
    ours = {}
    for start in sorted(starts, key=len, reverse=True):
        for name, shape in tensors.items():
            inner = _our_name(name.removeprefix(start)) if name.startswith(start) else None
            if inner is not None and inner not in ours:
                ours[inner] = shape
    return ours


def _our_name(name: str) -> str | None:
    name = re.sub(r"^res([2-5])\.", lambda m: f"layer{int(m[1]) - 1}.", name)
    name = re.sub(r"\bconv(\d)\.norm\.", r"bn\1.", name).removeprefix("stem.")
    name = name.replace("shortcut.norm.", "downsample.1.").replace("shortcut.", "downsample.0.")
    known = r"(layer\d\.\d+\.)?(conv\d\.weight|bn\d\.\w+)|layer\d\.\d+\.downsample\.[01]\.\w+"
    return name if re.fullmatch(known, name) else None


def words_of(weights: Weights) -> dict[str, Any] | None:
    """The net of the file in the keys of MODEL.RESNETS; the stride only where it is known."""
    if weights.backbone is None:
        return None
    try:
        words = resnets(weights.backbone)
    except (UserError, KeyError, TypeError, ValueError):
        return None
    del words["STRIDE_IN_1X1"]
    return words
