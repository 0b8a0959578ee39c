"""The encoder file: what pretraining writes, conversion makes, and everything else reads.

A safetensors file. Tensors, all float32: the backbone under torchvision's names (`conv1.weight`,
`layer1.0.bn1.running_mean`, ...), a projection head under `head.`, a classifier under `fc.`.
Metadata: `format` and `sha256` as they are, and `backbone`, `preprocess`, `head`, `classes`,
`source` as JSON. Counters of batches are not stored: nothing reads them.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.files import atomic_path
from visrep.nn.classifier import Classifier
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.weights.containers.safetensors_files import write_safetensors
from visrep.weights.containers.tree import shapes_in

FORMAT = "visrep-encoder/1"
COUNTER = "num_batches_tracked"
SPEC_TYPES: dict[str, type | tuple[type, ...]] = {
    "depth": int,
    "width": (int, float),
    "sk": bool,
    "stem": str,
    "padding": str,
}
RARE_TYPES: dict[str, type | tuple[type, ...]] = {  # of the keys that most nets do without
    "shortcut": str,
    "groups": int,
    "inner": (int, float),
    "project": bool,
    "stride_in_1x1": bool,
    "stem_relu": bool,
    "dilated": bool,
}


@dataclass(kw_only=True)
class EncoderFile:
    """The content of an encoder file, or of another checkpoint brought into its form.

    Attributes:
        backbone: `ResNet(**backbone)` is the net.
        preprocess: `Preprocess.from_dict(preprocess)` is what its input went through.
        tensors: name -> float32 tensor; in memory, or read on demand.
        head: `MLP(**head)` is the projection head; None without one.
        classes: names of the classifier's outputs, where known.
        source: where the weights are from.
        kind: the format it was read from. Not stored.
        encoder: which network of a checkpoint that holds several (query, online, ...). Not stored.
        alternatives: the others that `encoder=` can ask for. Not stored.
        dropped: what a foreign checkpoint held besides: group -> number of tensors. Not stored.
        sha256: of the tensors, see `fingerprint`.
    """

    backbone: dict[str, Any]
    preprocess: dict[str, Any]
    tensors: Mapping[str, Tensor]
    head: dict[str, Any] | None = None
    classes: list[str] | None = None
    source: dict[str, Any] = field(default_factory=dict)
    kind: str = ""
    encoder: str = ""
    alternatives: tuple[str, ...] = ()
    dropped: dict[str, int] = field(default_factory=dict)
    sha256: str = ""

    def __post_init__(self) -> None:
        if not self.sha256:
            self.sha256 = fingerprint(self.tensors)

    def names(self, prefix: str) -> list[str]:
        """Of the tensors of `head` or `fc`, or of the backbone for ''."""
        if not prefix:
            return [name for name in self.tensors if not name.startswith(("head.", "fc."))]
        return [name for name in self.tensors if name.startswith(f"{prefix}.")]

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors of `head` or `fc` without that prefix; of the backbone for ''."""
        start = f"{prefix}." if prefix else ""
        return {name.removeprefix(start): self.tensors[name] for name in self.names(prefix)}


class Encoder(ResNet):
    """A `ResNet` read from a file, with what its input must go through and its identity."""

    preprocess: Preprocess
    sha256: str


class LoadedClassifier(Classifier):
    """A `Classifier` read from a file."""

    preprocess: Preprocess
    classes: list[str] | None
    sha256: str


def fingerprint(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over (name, dtype, shape, bytes) of the tensors in the order of their names, hex.

    It names the weights: a change of metadata, of the order or of the container leaves it.
    """
    sha256 = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        dtype = str(tensor.dtype).removeprefix("torch.")
        sha256.update(f"{name}\0{dtype}\0{','.join(map(str, tensor.shape))}\0".encode())
        sha256.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return sha256.hexdigest()


def save_encoder(
    path: str | Path,
    *,
    encoder: ResNet,
    preprocess: Preprocess,
    head: MLP | None = None,
    fc: nn.Linear | None = None,
    classes: Iterable[str] | None = None,
    source: Mapping[str, Any],
) -> str:
    """Write an encoder file, whole or not at all, and return its sha256.

    Args:
        head: the projection head, or the layers of it that `fc` sits on.
        fc: a classifier on `head`, or on the encoder without one.
        classes: names of its outputs.
        source: method, command and the like; JSON-able.

    Raises:
        UserError: the file cannot be written, or the weights are not finite.
        ValueError: the parts do not fit together.
    """
    tensors = dict(stored_tensors(encoder))
    if head is not None:
        tensors |= {f"head.{name}": tensor for name, tensor in stored_tensors(head).items()}
    if fc is not None:
        tensors |= {f"fc.{name}": tensor for name, tensor in stored_tensors(fc).items()}
    file = EncoderFile(
        backbone=dict(encoder.spec),
        preprocess=preprocess.to_dict(),
        head=None if head is None else head.spec,
        classes=None if classes is None else list(classes),
        source=dict(source),
        tensors=tensors,
    )
    problem = mismatch(file)
    if problem:
        raise ValueError(problem)
    return write_encoder(path, file)


def write_encoder(path: str | Path, file: EncoderFile) -> str:
    """Write `file` to `path`, whole or not at all, and return its sha256.

    Raises:
        UserError: the file cannot be written, or the weights are not finite.
    """
    require_finite(file, path)
    with atomic_path(path) as temporary:
        dump_encoder(temporary, file)
    return file.sha256


def dump_encoder(path: str | Path, file: EncoderFile) -> None:
    """Write `file` to `path` as it goes: for a temporary path.

    Raises:
        OSError: a write failed.
    """
    parts = {
        "backbone": file.backbone,
        "preprocess": file.preprocess,
        "head": file.head,
        "classes": file.classes,
        "source": file.source,
    }
    metadata = {"format": FORMAT, "sha256": file.sha256}
    metadata |= {key: json.dumps(value) for key, value in parts.items()}
    write_safetensors(path, file.tensors, metadata)


def build(backbone: Mapping[str, Any], kind: type[ResNet] = ResNet) -> ResNet:
    """The net of `backbone` on the meta device: shapes and names, no memory.

    Raises:
        UserError: `backbone` describes no net.
    """
    if not set(SPEC_TYPES) <= set(backbone) <= {*SPEC_TYPES, *RARE_TYPES}:
        raise UserError(f"a backbone is described by {', '.join(SPEC_TYPES)}")
    for key, value in backbone.items():
        types = {**SPEC_TYPES, **RARE_TYPES}[key]
        if not isinstance(value, types) or (types is not bool and isinstance(value, bool)):
            raise UserError(f"a backbone of {key}={value!r} does not exist")
    for key in ("width", "inner", "groups"):
        if not 0 < backbone.get(key, 1) < 1024:
            raise UserError(f"a backbone of {key}={backbone[key]} does not exist")
    with torch.device("meta"):
        return kind(**backbone)


def mismatch(file: EncoderFile) -> str | None:
    """What does not fit: tensors against the architecture, classes against the classifier.

    Raises:
        UserError: the architecture itself does not exist.
    """
    encoder, given = build(file.backbone), shapes_in(file.tensors)
    shapes = shapes_of(encoder)
    width = encoder.out_dim
    if file.head is not None:
        head = _build_head(file)
        if head.in_dim != width:
            return f"the head takes {head.in_dim} features, the encoder gives {width}"
        shapes |= {f"head.{name}": shape for name, shape in shapes_of(head).items()}
        width = head.out_dim
    if given.get("fc.weight"):
        classes = given["fc.weight"][0]
        shapes |= {"fc.weight": (classes, width), "fc.bias": (classes,)}
        if file.classes is not None and len(file.classes) != classes:
            return f"{len(file.classes)} class names for a classifier of {classes} outputs"
    elif file.classes is not None:
        return "there are class names, but no classifier"
    return differences(shapes, given)


def differences(
    expected: Mapping[str, tuple[int, ...]], given: Mapping[str, tuple[int, ...]]
) -> str | None:
    """One clause about the first names or shapes that differ; None if all are the same."""
    missing = sorted(set(expected) - set(given))
    unexpected = sorted(set(given) - set(expected))
    if missing or unexpected:
        clauses = [
            f"{what} {names[0]}" + (f" and {len(names) - 1} more" if len(names) > 1 else "")
            for what, names in (("it lacks", missing), ("it has an unknown", unexpected))
            if names
        ]
        return " and ".join(clauses)
    for name, shape in expected.items():
        if tuple(given[name]) != tuple(shape):
            shown = ["x".join(map(str, s)) or "a single number" for s in (given[name], shape)]
            return f"{name} is {shown[0]} where {shown[1]} is needed"
    return None


def shapes_of(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name -> shape of what an encoder file stores of `module`."""
    held = module.state_dict()
    return {k: tuple(v.shape) for k, v in held.items() if not k.endswith(COUNTER)}


def require_finite(file: EncoderFile, path: str | Path) -> None:
    """Raises UserError when a tensor holds NaN or infinity."""
    for name, tensor in file.tensors.items():
        # NaN is its own extreme, so the two say it of all; isfinite(tensor) would make copies.
        if tensor.numel() and not torch.isfinite(torch.stack(tensor.aminmax())).all():
            raise UserError(
                f"{path}: {name} holds NaN or infinity, so the training that made it has diverged; "
                "take an earlier checkpoint"
            )


def into_module(module: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Make `tensors` the weights of `module`, which is on the meta device; nothing is copied."""
    weights = dict(tensors)
    for name, buffer in module.state_dict().items():
        if name.endswith(COUNTER):
            weights[name] = torch.zeros((), dtype=buffer.dtype)
    module.load_state_dict(weights, strict=True, assign=True)


def stored_tensors(module: nn.Module) -> dict[str, Tensor]:
    """What an encoder file stores of `module`: float32 on the CPU, without counters of batches."""
    return {
        name: value.detach().to("cpu", torch.float32).contiguous()
        for name, value in module.state_dict().items()
        if not name.endswith(COUNTER)
    }


def _build_head(file: EncoderFile) -> MLP:
    head = file.head
    stored = sum(name.startswith("head.") for name in file.tensors)
    assert head is not None
    if set(head) != {"in_dim", "layers"} or len(head["layers"]) > max(stored, 1):
        raise UserError("the description of the head does not fit its tensors")
    with torch.device("meta"):
        return MLP(**head)
