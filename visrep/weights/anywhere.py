"""A ResNet wherever it lies in a file that no format knows: under any container and any prefix.

Lightning modules call it `model.` or `net.`, scripts save `{"net": ...}` or `{"model":
{"state_dict": ...}}`, DeepSpeed puts it under `module`, averaged weights beside `n_averaged`. What
lies beside the net, under another prefix, is left out and counted. A file of one ResNet leaves no
choice; of several, `prefix=` names one, and nothing is guessed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from visrep.errors import UserError
from visrep.weights.architecture import depth_of
from visrep.weights.containers.stored import Stored
from visrep.weights.containers.tree import DEPTH, Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice, ForeignTensors, Raw, encoder_file
from visrep.weights.naming import CHILDREN, bare_name, shortcut_kind, shortcut_names

NAME = "ResNet under a prefix"
_FIRST = re.compile(r"((?:.+\.)?)(conv1\.weight|conv1\.0\.weight|0\.weight)")
_PARTS = re.compile(r"(conv1|bn1|layer[1-4]|fc)\.")


@dataclass(frozen=True)
class Net:
    """A ResNet of a file.

    Attributes:
        container: keys that lead to its state dict, joined by '/'.
        prefix: of its names there, without the parts of wrappers.
        tensors: torchvision's name -> tensor.
    """

    container: str
    prefix: str
    tensors: Raw

    @property
    def place(self) -> str:
        return "/".join(filter(None, (self.container, self.prefix)))


def nets_in(tree: Tree) -> list[Net]:
    """Every ResNet of `tree`, in the order of the file; a dict that is there twice counts once."""
    return [net for place, tensors in _state_dicts(tree.value) for net in _nets(place, tensors)]


def read(tree: Tree, choice: Choice, nets: list[Net]) -> EncoderFile:
    """The one of `nets`, those of `tree`, that `choice.prefix` names; or the only one.

    Raises:
        UserError: there are several, or none of that name; the message names all.
    """
    wanted = choice.prefix
    if wanted is not None:
        named = bare_name(f"{wanted.strip('./')}.").rstrip(".")
        fitting = [net for net in nets if net.place.rstrip(".") == named]
        fitting = fitting or [net for net in nets if net.prefix.rstrip(".") == named]
    else:
        fitting = nets
    if len(fitting) != 1:
        found = ", ".join(f"prefix={net.place or '.'} ({_depth(tree, net)})" for net in nets)
        what = "it holds several networks" if wanted is None else f"prefix={wanted} names none of"
        what = f"prefix={wanted} names several of" if fitting and wanted is not None else what
        raise UserError(f"{tree.path}: {what}: {found or 'no ResNet'}; give prefix= of one")
    net = fitting[0]
    foreign = ForeignTensors(tree, net.tensors)
    foreign.drop("counter of averaged weights", r"n_averaged$")
    strangers = sorted(name for name in foreign.left if not _PARTS.match(name))
    if strangers and wanted is None:
        raise UserError(
            f"{tree.path} fits none of the known formats; it holds a {_depth(tree, net)} under "
            f"prefix={net.place or '.'}, and {strangers[0]} beside it: give that prefix= to leave "
            "out what is beside"
        )
    foreign.drop("tensors beside the net", rf"(?!{_PARTS.pattern})")
    total = sum(len(tensors) for _, tensors in _state_dicts(tree.value))
    mlp = any(re.match(r"fc\.\d+\.", name) for name in net.tensors)
    head = foreign.head(foreign.take("fc.")) if mlp else None
    if "fc.bias" not in net.tensors:
        foreign.drop("of a classifier without a bias", r"fc\.")
    fc = foreign.take("fc.")
    backbone = foreign.take("", shortcut_names(net.tensors))
    foreign.count("tensors beside the net", total - len(net.tensors))
    place = {"container": net.container, "prefix": net.prefix}
    return encoder_file(
        foreign,
        backbone,
        choice=replace(choice, prefix=None),
        head=head,
        fc=fc or None,
        source={"format": NAME, **{key: value for key, value in place.items() if value}},
        note="nothing says what its input went through: ImageNet's mean and std are assumed",
        shortcut=shortcut_kind(net.tensors),
    )


def _state_dicts(value: object) -> Iterator[tuple[str, Raw]]:
    """(keys, tensors by bare name) of every dict that holds tensors under names."""
    seen: set[int] = set()

    def walk(value: object, place: tuple[str, ...]) -> Iterator[tuple[str, Raw]]:
        if not isinstance(value, dict) or id(value) in seen or len(place) > DEPTH:
            return
        seen.add(id(value))
        named = {k: t for k, t in value.items() if isinstance(k, str) and isinstance(t, Stored)}
        bare = {bare_name(name): tensor for name, tensor in named.items()}
        if named:
            yield "/".join(place), bare if len(bare) == len(named) else named
        for key, held in value.items():
            if isinstance(key, str):
                yield from walk(held, (*place, key))

    return walk(value, ())


def _nets(container: str, tensors: Raw) -> list[Net]:
    prefixes = {}
    for name in tensors:
        match = _FIRST.fullmatch(name)
        if match and len(tensors[name].shape) == 4:
            in_order = match[2] == "0.weight"
            layer = "4.0.conv1.weight" if in_order else "layer1.0.conv1.weight"
            if f"{match[1]}{layer}" in tensors:
                prefixes[match[1]] = in_order
    return [
        Net(container, prefix, _under(prefix, tensors, in_order=in_order))
        for prefix, in_order in prefixes.items()
    ]


def _under(prefix: str, tensors: Raw, *, in_order: bool) -> Raw:
    net: dict[str, Any] = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            continue
        inner = name.removeprefix(prefix)
        if in_order:
            child, _, rest = inner.partition(".")
            inner = f"{CHILDREN[child]}.{rest}" if child in CHILDREN else ""
        net[inner or name] = tensor
    return net


def _depth(tree: Tree, net: Net) -> str:
    try:
        shapes = {name: tuple(t.shape) for name, t in net.tensors.items()}
        return f"ResNet-{depth_of(shapes, tree.path)}"
    except UserError:
        return "a ResNet of no usual depth"
