"""The tensors of a foreign checkpoint on their way to an encoder file, every one accounted for.

A format takes what it knows under our names, drops groups by name, and hands the rest to
`encoder_file`, which refuses a tensor that nobody has spoken for.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from torch import Tensor

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.architecture import infer
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import AGAIN, OnDemand, Tree, check_tensor
from visrep.weights.encoder_file import COUNTER, EncoderFile, mismatch
from visrep.weights.naming import without_wrappers

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
COUNTERS = "counters of batches"


def _input(mean: tuple[float, ...], std: tuple[float, ...], size: int, resize: int) -> Preprocess:
    return Preprocess(size=size, resize=resize, mean=mean, std=std)


INPUTS = {  # what an encoder that was trained on a data set is usually shown
    "imagenet": _input(MEAN, STD, 224, 256),
    "cifar10": _input((0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616), 32, 32),
    "cifar100": _input((0.5071, 0.4865, 0.4409), (0.2673, 0.2564, 0.2762), 32, 32),
    "stl10": _input((0.4914, 0.4823, 0.4466), (0.247, 0.243, 0.261), 96, 96),
}


def unnormalised(data: str) -> Preprocess:
    """`INPUTS[data]` without its mean and standard deviation: pixels in [0, 1] as they are."""
    return replace(INPUTS[data], mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


@dataclass(frozen=True, kw_only=True)
class Choice:
    """What the user says about a checkpoint that its content does not say, or says otherwise.

    Attributes:
        encoder: which of several networks; None for the one that its source evaluates.
        stem: of a first convolution of 3x3: cifar, cifar_pad2 or small.
        padding: torch, tf or haiku, in place of the source's own.
        input: a data set of INPUTS, whose input is recorded in place of the source's own.
        classifier: layer of the projection head that the classifier sits on, 0 for the encoder.
        origin: simclr, of weights under torchvision's names that were converted from SimCLR v1.
        prefix: where the net is in a file of no known format or of several nets.
        on_demand: leave the tensors in the file; whoever wants one reads it.
    """

    encoder: str | None = None
    stem: str | None = None
    padding: str | None = None
    input: str | None = None
    classifier: int | None = None
    origin: str | None = None
    prefix: str | None = None
    on_demand: bool = False


T = TypeVar("T")
Raw = dict[str, Any]  # our name -> a tensor as the file holds it
Head = tuple[list[dict[str, Any]], Raw]  # layers of visrep.nn.heads.MLP, and its tensors


def unwrap(tree: Tree, *containers: str) -> tuple[Raw, dict[str, str]]:
    """The state dict in the first of `containers` that the file has, or else the file's own, less
    the prefixes of wrappers that all names have; and what was taken off, for `source`.

    It is empty where the file holds no dict with texts for keys.
    """
    value, place = tree.value, {}
    if isinstance(value, dict):
        for container in containers:
            if isinstance(value.get(container), dict):
                value, place = value[container], {"container": container}
                break
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        return {}, {}
    value, prefix = without_wrappers(value)
    return value, {**place, "prefix": prefix} if prefix else place


def pick(encoders: Mapping[str, T], choice: Choice) -> tuple[str, T, tuple[str, ...]]:
    """Name and place of the encoder asked for, or of the first one; the names of the others.

    `encoders`: name -> place, a prefix for example. One that is not there is refused by
    `read_weights`, which compares the name with what was asked for.
    """
    asked = choice.encoder
    name = asked if asked is not None and asked in encoders else next(iter(encoders))
    return name, encoders[name], tuple(other for other in encoders if other != name)


class ForeignTensors:
    """A state dict whose tensors are taken or dropped until none is left.

    Args:
        tree: the file, for messages.
        tensors: name -> tensor as the file holds it (`.shape`, `.dtype`).

    Raises:
        UserError: a name is no text.
    """

    def __init__(self, tree: Tree, tensors: Mapping[str, Any]) -> None:
        self.tree = tree
        for name in tensors:
            if not isinstance(name, str):
                kind = type(name).__name__
                raise UserError(f"{tree.path}: it has a name that is no text but {kind}; {AGAIN}")
        self.left = {name: t for name, t in tensors.items() if not name.endswith(COUNTER)}
        self.dropped: dict[str, int] = {}
        self.count(COUNTERS, len(tensors) - len(self.left))

    def take(self, prefix: str, rename: Callable[[str], str | None] | None = None) -> Raw:
        """The tensors under `prefix`, without it; with `rename`, those it has a name for."""
        taken = {}
        for name in [name for name in self.left if name.startswith(prefix)]:
            inner = name.removeprefix(prefix)
            ours = rename(inner) if rename else inner
            if ours is None:
                continue
            if not isinstance(self.left[name], Stored):
                raise UserError(f"{self.tree.path}: {name} is no dense tensor; {AGAIN}")
            if ours in taken:
                raise UserError(f"{self.tree.path}: {name} is there twice, as two names of {ours}")
            taken[ours] = self.left.pop(name)
        return taken

    def head(
        self, tensors: Raw, *, after: Raw | None = None, last_relu: bool = False
    ) -> Head | None:
        """`head_of(tensors)`; None if there are none.

        `after`: a 1x1 convolution before the pooling, which gives the same numbers after it. It
        becomes the head's first layer, without a ReLU.
        """
        for name, tensor in {**tensors, **(after or {})}.items():
            check_tensor(self.tree, name, tensor)
        if after:
            flat = {f"0.{name}": t.then(_as_linear) for name, t in after.items()}
            tensors = flat | {_one_further(name): t for name, t in tensors.items()}
        try:
            layers, ours = head_of(tensors, last_relu=last_relu) if tensors else ([], {})
        except UserError as error:
            raise UserError(f"{self.tree.path}: {error}") from error
        if after:
            layers[0]["relu"] = False
        return (layers, ours) if layers else None

    def drop(self, group: str, pattern: str) -> None:
        """Leave out what the regular expression `pattern` matches from the start of the name."""
        gone = [name for name in self.left if re.match(pattern, name)]
        for name in gone:
            del self.left[name]
        self.count(group, len(gone))

    def count(self, group: str, number: int) -> None:
        """Report `number` tensors as dropped under the name of `group`."""
        if number:
            self.dropped[group] = self.dropped.get(group, 0) + number


def encoder_file(
    foreign: ForeignTensors,
    backbone: Raw,
    *,
    choice: Choice,
    source: Mapping[str, Any],
    preprocess: Preprocess | None = None,
    head: Head | None = None,
    fc: Raw | None = None,
    classes: list[str] | None = None,
    encoder: str = "",
    alternatives: tuple[str, ...] = (),
    note: str = "",
    **known: Any,
) -> EncoderFile:
    """Put an encoder file together; reads the tensors into memory, unless `choice` says otherwise.

    Args:
        foreign: what the other tensors were taken from; nothing must be left in it.
        backbone: our name -> tensor.
        choice: what the user asked for; `encoder` has been followed by the caller.
        source: `format` and whatever else says where the weights are from.
        preprocess: of the input; torchvision's for ImageNet if None.
        head: layers of `visrep.nn.heads.MLP` and its tensors, see `head_of`.
        fc: `weight` and `bias` of a classifier on the encoder (or on the head).
        encoder, alternatives: the network chosen where the file holds several, and the others.
        note: what had to be assumed; it is shown to the user and kept in `source`.
        known: for `architecture.infer`: padding, stem, shortcut, stride_in_1x1.

    Raises:
        UserError: a tensor is left, visrep does not hold the architecture, or parts do not fit.
    """
    path = foreign.tree.path
    if foreign.left:
        names = sorted(foreign.left)
        more = f" and {len(names) - 1} more" if len(names) > 1 else ""
        raise UserError(
            f"{path}: it looks like {source['format']}, but {names[0]}{more} has no place in it"
        )
    raw = dict(backbone)
    description = None
    if head is not None:
        layers, tensors = head
        width = tensors["layers.0.linear.weight"].shape[1]
        description = {"in_dim": int(width), "layers": layers}
        raw |= {f"head.{name}": t for name, t in tensors.items()}
    raw |= {f"fc.{name}": t for name, t in (fc or {}).items()}
    for name, t in raw.items():
        check_tensor(foreign.tree, name, t)
    if choice.stem is not None and backbone["conv1.weight"].shape[2:] != (3, 3):
        raise UserError(f"{path}: stem={choice.stem} is for nets that begin with a 3x3 convolution")
    if choice.input is not None:
        preprocess = INPUTS[choice.input]
    spec = infer(
        {name: tuple(t.shape) for name, t in backbone.items()},
        path,
        **{**known, **{k: v for k in ("stem", "padding") if (v := getattr(choice, k))}},
    )
    types = sorted({str(t.dtype).removeprefix("torch.") for t in raw.values()} - {"float32"})
    stored = {"stored_as": ", ".join(types)} if types else {}
    placed = OnDemand(foreign.tree, raw)
    file = EncoderFile(
        backbone=spec,
        preprocess=(preprocess or INPUTS["imagenet"]).to_dict(),
        tensors=placed if choice.on_demand else dict(placed),
        head=description,
        classes=classes,
        source={"file": path.name, **source, **stored, **({"note": note} if note else {})},
        encoder=encoder,
        alternatives=alternatives,
        dropped=foreign.dropped,
    )
    problem = mismatch(file)
    if problem:
        raise UserError(f"{path}: {problem}")
    return file


def head_of(tensors: Raw, *, last_relu: bool = False) -> Head:
    """Layers and tensors of an MLP that is an `nn.Sequential` of linears, batch norms and ReLUs.

    Its names are `INDEX.weight` and the like. A 2-d weight begins a layer, one-dimensional tensors
    at the next index are its batch norm, and every layer but the last ends in a ReLU (`last_relu`:
    that one too). A single linear, whose names have no index, is an MLP of one layer.

    Raises:
        UserError: the names or shapes are no such MLP.
    """
    modules: dict[int, Raw] = {}
    if "weight" in tensors:
        tensors = {f"0.{name}": tensor for name, tensor in tensors.items()}
    for name, tensor in tensors.items():
        place, _, kind = name.partition(".")
        if not place.isdecimal():
            raise UserError(f"a head with {name!r} is no chain of linear layers and batch norms")
        modules.setdefault(int(place), {})[kind] = tensor
    layers: list[dict[str, Any]] = []
    ours: Raw = {}
    for index in sorted(modules):
        module = modules[index]
        if "running_mean" in module:
            if not layers or layers[-1]["norm"] != "none":
                raise UserError(f"the batch norm {index} of a head follows no linear layer")
            kinds = {(True, True): "affine", (True, False): "scale", (False, False): "plain"}
            key = ("weight" in module, "bias" in module)
            if key not in kinds:
                raise UserError(f"the batch norm {index} of a head has a bias, but no weight")
            layers[-1]["norm"] = kinds[key]
            ours |= {f"layers.{len(layers) - 1}.norm.{kind}": t for kind, t in module.items()}
        elif "weight" in module and len(module["weight"].shape) == 2:
            out = int(module["weight"].shape[0])
            layers.append({"out": out, "bias": "bias" in module, "norm": "none", "relu": True})
            ours |= {f"layers.{len(layers) - 1}.linear.{kind}": t for kind, t in module.items()}
        else:
            raise UserError(f"module {index} of a head is neither linear nor a batch norm")
    if not layers:
        raise UserError("a head has no linear layer")
    layers[-1]["relu"] = last_relu
    return layers, ours


def _as_linear(weight: Tensor) -> Tensor:
    """out x in of a 1x1 convolution's out x in x 1 x 1; a bias stays as it is."""
    return weight.flatten(1) if weight.shape[2:] == (1, 1) else weight


def _one_further(name: str) -> str:
    """The name that a module's tensor has one place further down a row."""
    index, _, rest = name.partition(".")
    return f"{int(index) + 1}.{rest}" if index.isdecimal() else name
