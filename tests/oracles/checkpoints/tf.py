"""SimCLR's and BYOL's own networks and checkpoints, as TensorFlow 1 and haiku make them.

A net is a function that is run once: it makes a variable when it needs one and names it by a
counter, as TensorFlow 1 does, or by its module, as haiku does; run again with the variables, it
uses them. Padding is worked out from the SAME rule, in place of any of ours.
"""

import io
import pickle
import struct
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import google_crc32c
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

BLOCKS = {10: (1, 1, 1, 1), 14: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3)}
BLOCKS |= {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
BASIC = (10, 18, 34)


class Variables:
    """Values by name, drawn as they are asked for; `scope` goes before every name."""

    def __init__(self, seed: int = 0) -> None:
        self.values: dict[str, np.ndarray] = {}
        self.generator = np.random.default_rng(seed)
        self.scope = ""
        self.counts: dict[str, int] = {}

    def begin(self, scope: str) -> None:
        """Start a run under `scope`."""
        self.scope, self.counts = scope, {}

    def numbered(self, kind: str) -> str:
        """TensorFlow's name of the next layer of a kind: without number, then _1, _2, ..."""
        count = self.counts.get(kind, 0)
        self.counts[kind] = count + 1
        return f"{self.scope}{kind}_{count}" if count else f"{self.scope}{kind}"

    def get(self, name: str, shape: tuple[int, ...], low: float, high: float) -> Tensor:
        if name not in self.values:
            drawn = self.generator.uniform(low, high, shape)
            self.values[name] = drawn.astype(np.float32)
        assert self.values[name].shape == shape, name
        return torch.from_numpy(self.values[name])

    def kernel(self, name: str, shape: tuple[int, ...]) -> Tensor:
        reach = (3 / np.prod(shape[:-1])) ** 0.5
        return self.get(name, shape, -reach, reach)


def same(x: Tensor, kernel: int, stride: int, value: float = 0.0) -> Tensor:
    """Padded such that ceil(n / stride) positions remain, the odd one at the end."""
    pads: list[int] = []
    for size in (x.shape[3], x.shape[2]):
        outs = (size + stride - 1) // stride
        need = max(0, (outs - 1) * stride + kernel - size)
        pads += [need // 2, need - need // 2]
    return F.pad(x, pads, value=value)


def normalise(x: Tensor, gamma: Any, beta: Any, mean: Tensor, variance: Tensor) -> Tensor:
    """Over channels, dimension 1."""
    shape = [1, -1] + [1] * (x.dim() - 2)
    x = (x - mean.reshape(shape)) / (variance.reshape(shape) + 1e-5).sqrt()
    x = x * gamma.reshape(shape)
    return x if beta is None else x + beta.reshape(shape)


# SimCLR, TensorFlow 1


def tf_conv(v: Variables, x: Tensor, outs: int, kernel: int, stride: int = 1) -> Tensor:
    name = f"{v.numbered('conv2d')}/kernel"
    weight = v.kernel(name, (kernel, kernel, x.shape[1], outs)).permute(3, 2, 0, 1)
    return F.conv2d(x, weight, stride=stride, padding=(kernel - 1) // 2)


def tf_norm(v: Variables, x: Tensor, *, relu: bool = True, center: bool = True) -> Tensor:
    name, width = v.numbered("batch_normalization"), (x.shape[1],)
    gamma = v.get(f"{name}/gamma", width, 0.5, 1.5)
    beta = v.get(f"{name}/beta", width, -0.2, 0.2) if center else None
    mean = v.get(f"{name}/moving_mean", width, -0.2, 0.2)
    x = normalise(x, gamma, beta, mean, v.get(f"{name}/moving_variance", width, 0.5, 1.5))
    return F.relu(x) if relu else x


def tf_block(v: Variables, x: Tensor, width: int, stride: int, **style: bool) -> Tensor:
    """style: `basic`, `sk`, `first` of its group, `port`."""
    basic, sk, first, port = (style[key] for key in ("basic", "sk", "first", "port"))
    outs, shortcut = (width if basic else 4 * width), x
    if first:
        if sk and (stride == 2 or port):
            shortcut = F.avg_pool2d(F.pad(x, (0, 1, 0, 1)), 2, stride)
        elif sk:  # the mean of those inside: at the end, the last row and column are there twice
            shortcut = F.avg_pool2d(F.pad(x, (0, 1, 0, 1), mode="replicate"), 2, 1)
        shortcut = tf_conv(v, shortcut, outs, 1, 1 if sk else stride)
        shortcut = tf_norm(v, shortcut, relu=False)
    if basic:
        x = tf_norm(v, tf_conv(v, x, width, 3, stride))
        x = tf_norm(v, tf_conv(v, x, width, 3), relu=False)
        return F.relu(x + shortcut)
    x = tf_norm(v, tf_conv(v, x, width, 1))
    x = tf_norm(v, tf_conv(v, x, 2 * width if sk else width, 3, stride))
    if sk:
        one, two = x[:, :width], x[:, width:]
        pooled = (one + two).mean((2, 3), keepdim=True)
        squeezed = tf_norm(v, tf_conv(v, pooled, max(32, int(width * 0.0625)), 1))
        logits = tf_conv(v, squeezed, 2 * width, 1)
        share = torch.sigmoid(logits[:, :width] - logits[:, width:])  # a softmax over two
        x = share * one + (1 - share) * two
    x = tf_norm(v, tf_conv(v, x, outs, 1), relu=False)
    return F.relu(x + shortcut)


def simclr(
    v: Variables,
    x: Tensor,
    *,
    depth: int = 14,
    channels: int = 4,
    sk: bool = False,
    cifar: bool = False,
    port: bool = False,
) -> Tensor:
    """N x 3 x H x W in [0, 1] -> N x D; `channels` of the first group, where SimCLR has 64.

    port: pool as SimCLRv2-Pytorch does.
    """
    if cifar:
        x = tf_norm(v, tf_conv(v, x, channels, 3))
    else:
        if sk:
            x = tf_norm(v, tf_conv(v, x, channels // 2, 3, 2))
            x = tf_norm(v, tf_conv(v, x, channels // 2, 3))
            x = tf_norm(v, tf_conv(v, x, channels, 3))
        else:
            x = tf_norm(v, tf_conv(v, x, channels, 7, 2))
        x = F.max_pool2d(x, 3, 2, 1) if port else F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2)
    for group, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            stride = 2 if group and not block else 1
            style = {"basic": depth in BASIC, "sk": sk, "first": block == 0, "port": port}
            x = tf_block(v, x, channels * 2**group, stride, **style)
    return x.mean((2, 3))


def tf_head(v: Variables, x: Tensor, *, layers: int = 3, outs: int = 8) -> Tensor:
    width, scope = x.shape[1], v.scope
    for layer in range(layers):
        last = layer == layers - 1
        v.begin(f"{scope}nl_{layer}/")
        size = outs if last else width
        x = x @ v.kernel(f"{v.scope}dense/kernel", (x.shape[1], size))
        x = tf_norm(v, x, relu=not last, center=not last)
    v.scope = scope
    return x


def tf_classifier(v: Variables, x: Tensor, classes: int = 5) -> Tensor:
    name = "head_supervised/linear_layer/dense"
    bias = v.get(f"{name}/bias", (classes,), -0.1, 0.1)
    return x @ v.kernel(f"{name}/kernel", (x.shape[1], classes)) + bias


@dataclass
class Net:
    """A SimCLR checkpoint: its variables, and what its own code makes of images."""

    variables: Variables
    spec: dict[str, Any] = field(default_factory=dict)

    @property
    def values(self) -> dict[str, np.ndarray]:
        return self.variables.values

    def features(self, images: Tensor, prefix: str = "") -> Tensor:
        self.variables.begin(f"{prefix}base_model/")
        return simclr(self.variables, images, **self.spec)

    def projected(self, images: Tensor, layers: int = 3, prefix: str = "") -> Tensor:
        """After all layers of the head."""
        features = self.features(images, prefix)
        self.variables.begin(f"{prefix}head_contrastive/")
        return tf_head(self.variables, features, layers=layers)


def simclr_net(*, ema: bool = False, head: int = 3, seed: int = 0, **spec: Any) -> Net:
    """`head` layers of a projection head, a classifier on the encoder, slots and a step counter."""
    net = Net(Variables(seed), spec)
    images = torch.zeros(1, 3, 64, 64)
    for prefix in ("", "ema_model/") if ema else ("",):
        features = net.features(images, prefix)
        if head:
            net.projected(images, head, prefix)
    tf_classifier(net.variables, features)
    slots = [name for name in net.values if "moving" not in name and "ema" not in name]
    net.values.update({f"{name}/Momentum": np.zeros(1, np.float32) for name in slots})
    net.values["global_step"] = np.array(250228, np.int64)
    return net


STATISTICS = ("gamma", "beta", "moving_mean", "moving_variance")
_PORT = ("weight", "bias", "running_mean", "running_var")


def simclr_port(*, sk: bool, seed: int = 0) -> tuple[dict[str, Any], Net]:
    """What SimCLRv2-Pytorch makes of a checkpoint, and the net: {"resnet", "head"}.

    Its modules are created in TensorFlow's order, which is how its converter matches them.
    """
    net = simclr_net(sk=sk, seed=seed)
    convs, norms = port_order(14, sk=sk)
    resnet: dict[str, Tensor] = {}
    for i, name in enumerate(convs):
        kernel = net.values[f"base_model/conv2d{f'_{i}' if i else ''}/kernel"]
        resnet[f"{name}.weight"] = torch.from_numpy(kernel).permute(3, 2, 0, 1)
    for i, name in enumerate(norms):
        scope = f"base_model/batch_normalization{f'_{i}' if i else ''}"
        for theirs, torchs in zip(STATISTICS, _PORT, strict=True):
            resnet[f"{name}.{torchs}"] = torch.from_numpy(net.values[f"{scope}/{theirs}"])
        resnet[f"{name}.num_batches_tracked"] = torch.tensor(0)
    dense = "head_supervised/linear_layer/dense"
    resnet["fc.weight"] = torch.from_numpy(net.values[f"{dense}/kernel"].T.copy())
    resnet["fc.bias"] = torch.from_numpy(net.values[f"{dense}/bias"])
    head: dict[str, Tensor] = {}
    for i in range(3):
        scope = f"head_contrastive/nl_{i}"
        head[f"layers.{3 * i}.weight"] = torch.from_numpy(net.values[f"{scope}/dense/kernel"].T)
        for theirs, torchs in zip(STATISTICS, _PORT, strict=True):
            value = net.values.get(f"{scope}/batch_normalization/{theirs}", np.zeros(8, "f4"))
            head[f"layers.{3 * i + 1}.{torchs}"] = torch.from_numpy(value)
        head[f"layers.{3 * i + 1}.num_batches_tracked"] = torch.tensor(0)
    return {"resnet": resnet, "head": head}, net


def port_order(depth: int, *, sk: bool) -> tuple[list[str], list[str]]:
    """The port's names of convolutions and norms, in the order in which it registers them."""
    stem = (0, 2, 4) if sk else (0,)
    convs = [f"net.0.{i}" for i in stem]
    norms = [f"net.0.{i + 1}.0" for i in stem]
    for stage, blocks in enumerate(BLOCKS[depth], 1):
        for b in range(blocks):
            at = f"net.{stage}.blocks.{b}"
            if b == 0:
                convs.append(f"{at}.projection.shortcut{'.2' if sk else ''}")
                norms.append(f"{at}.projection.bn.0")
            middle = ["2.main_conv.0", "2.mixing_conv.0", "2.mixing_conv.2"] if sk else ["2"]
            middle_norms = ["2.main_conv.1.0", "2.mixing_conv.1.0"] if sk else ["3.0"]
            last = 3 if sk else 4
            convs += [f"{at}.net.{name}" for name in ["0", *middle, f"{last}"]]
            norms += [f"{at}.net.{name}" for name in ["1.0", *middle_norms, f"{last + 1}.0"]]
    return convs, norms


# A bundle's files


def varint(number: int) -> bytes:
    groups = [number & 127]
    while number := number >> 7:
        groups.append(number & 127)
    return bytes([*(g | 128 for g in groups[:-1]), groups[-1]])


def message(*fields: tuple[int, int | bytes], fixed: tuple[int, int] | None = None) -> bytes:
    """A protocol buffer; numbers that are 0 are left out, `fixed` is a field of 4 bytes."""
    out = b""
    for number, value in fields:
        if isinstance(value, bytes):
            out += varint(number << 3 | 2) + varint(len(value)) + value
        elif value:
            out += varint(number << 3) + varint(value)
    return out + (varint(fixed[0] << 3 | 5) + struct.pack("<I", fixed[1]) if fixed else b"")


def masked(data: bytes) -> int:
    crc = google_crc32c.value(data)
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32


def block(entries: list[tuple[bytes, bytes]], kind: int = 0) -> bytes:
    """With its trailer; every 16th key is whole."""
    out, restarts, last = b"", [], b""
    for i, (key, value) in enumerate(entries):
        shared = 0
        if i % 16 == 0:
            restarts.append(len(out))
        else:
            while shared < min(len(key), len(last)) and key[shared] == last[shared]:
                shared += 1
        sizes = varint(shared) + varint(len(key) - shared) + varint(len(value))
        out += sizes + key[shared:] + value
        last = key
    restarts = restarts or [0]
    out += b"".join(struct.pack("<I", at) for at in [*restarts, len(restarts)]) + bytes([kind])
    return out + struct.pack("<I", masked(out))


def table(entries: dict[bytes, bytes], *, each: int = 50, kind: int = 0) -> bytes:
    """A table with `each` entries in a block."""
    out, places = b"", []
    ordered = sorted(entries.items())
    for start in range(0, len(ordered), each):
        part = ordered[start : start + each]
        written = block(part, kind)
        places.append((part[-1][0], varint(len(out)) + varint(len(written) - 5)))
        out += written
    handles = b""
    for content in ([], places):
        written = block(content)
        handles += varint(len(out)) + varint(len(written) - 5)
        out += written
    return out + handles.ljust(40, b"\0") + struct.pack("<Q", 0xDB4775248B80FB57)


TYPES = {"float32": 1, "float64": 2, "int32": 3, "int64": 9, "bool": 10, "float16": 19}


def entry(
    array: np.ndarray, *, shard: int = 0, offset: int = 0, data: bytes = b"", kind: int = 0
) -> bytes:
    """`kind` in place of the array's own type."""
    shape = message(*((2, message((1, int(n)))) for n in array.shape))
    numbers = [(1, kind or TYPES[array.dtype.name]), (2, shape), (3, shard), (4, offset)]
    return message(*numbers, (5, len(data)), fixed=(6, masked(data)))


def write_bundle(
    prefix: Path,
    values: dict[str, np.ndarray],
    *,
    shards: int = 1,
    more: dict[bytes, bytes] | None = None,
    header: bytes | None = None,
    kind: int = 0,
) -> Path:
    """The files of a bundle; `prefix` again. more: further entries of the index."""
    data = [b"" for _ in range(shards)]
    entries = {b"": message((1, shards), (3, message((1, 1)))) if header is None else header}
    for i, (name, array) in enumerate(sorted(values.items())):
        raw, shard = array.tobytes(), i % shards
        place = {"shard": shard, "offset": len(data[shard])}
        entries[name.encode()] = entry(array, **place, data=raw)
        data[shard] += raw
    prefix.with_name(f"{prefix.name}.index").write_bytes(
        table({**entries, **(more or {})}, kind=kind)
    )
    for i, content in enumerate(data):
        prefix.with_name(f"{prefix.name}.data-{i:05}-of-{shards:05}").write_bytes(content)
    return prefix


# BYOL, haiku


def haiku_conv(v: Variables, x: Tensor, name: str, outs: int, kernel: int, stride: int) -> Tensor:
    weight = v.kernel(f"params/{v.scope}{name}/w", (kernel, kernel, x.shape[1], outs))
    return F.conv2d(same(x, kernel, stride), weight.permute(3, 2, 0, 1), stride=stride)


def haiku_norm(v: Variables, x: Tensor, name: str) -> Tensor:
    """In evaluation, with the debiased averages."""
    shape = (1,) * (x.dim() - 1) + (x.shape[1],)
    gamma = v.get(f"params/{v.scope}{name}/scale", shape, 0.5, 1.5)
    beta = v.get(f"params/{v.scope}{name}/offset", shape, -0.2, 0.2)
    at = f"state/{v.scope}{name}/~"
    v.values.setdefault(f"{at}/mean_ema/counter", np.array(9, np.int32))
    v.get(f"{at}/mean_ema/hidden", shape, -0.2, 0.2)
    v.get(f"{at}/var_ema/hidden", shape, 0.5, 1.5)
    mean = v.get(f"{at}/mean_ema/average", shape, -0.2, 0.2)
    return normalise(x, gamma, beta, mean, v.get(f"{at}/var_ema/average", shape, 0.5, 1.5))


def haiku_net(v: Variables, x: Tensor, *, depth: int = 14, channels: int = 4) -> Tensor:
    """N x 3 x H x W, normalised -> N x D."""
    root, basic = f"res_net{depth}/~/", depth in BASIC
    v.scope = root
    x = F.relu(haiku_norm(v, haiku_conv(v, x, "initial_conv", channels, 7, 2), "initial_batchnorm"))
    x = F.max_pool2d(same(x, 3, 2, -torch.inf), 3, 2)
    for group, blocks in enumerate(BLOCKS[depth]):
        for block in range(blocks):
            width, stride = channels * 2**group, 2 if group and not block else 1
            v.scope = f"{root}block_group_{group}/~/block_{block}/~/"
            shortcut = x
            if block == 0:
                outs = width if basic else 4 * width
                shortcut = haiku_conv(v, x, "shortcut_conv", outs, 1, stride)
                shortcut = haiku_norm(v, shortcut, "shortcut_batchnorm")
            layers = [(width, 3, stride), (width, 3, 1)]
            if not basic:
                layers = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
            for i, (outs, kernel, step) in enumerate(layers):
                x = haiku_norm(
                    v, haiku_conv(v, x, f"conv_{i}", outs, kernel, step), f"batchnorm_{i}"
                )
                x = F.relu(x + shortcut if i == len(layers) - 1 else x)
    return x.mean((2, 3))


def haiku_mlp(v: Variables, x: Tensor, name: str, hidden: int = 12, outs: int = 6) -> Tensor:
    v.scope = f"{name}/"
    bias = v.get(f"params/{name}/linear/b", (hidden,), -0.1, 0.1)
    x = x @ v.kernel(f"params/{name}/linear/w", (x.shape[1], hidden)) + bias
    x = F.relu(haiku_norm(v, x, "batch_norm"))
    return x @ v.kernel(f"params/{name}/linear_1/w", (hidden, outs))


def haiku_linear(v: Variables, x: Tensor, name: str, outs: int = 5) -> Tensor:
    bias = v.get(f"params/{name}/b", (outs,), -0.1, 0.1)
    return x @ v.kernel(f"params/{name}/w", (x.shape[1], outs)) + bias


def haiku_tree(v: Variables, part: str) -> dict[str, dict[str, np.ndarray]]:
    """`params` or `state` as haiku has it: module -> name -> array."""
    tree: dict[str, dict[str, np.ndarray]] = {}
    for name, value in v.values.items():
        kind, _, path = name.partition("/")
        if kind == part:
            module, _, leaf = path.rpartition("/")
            tree.setdefault(module, {})[leaf] = value
    return tree


_KINDS = ("params", "state")


@dataclass
class Byol:
    """A BYOL checkpoint: variables of `online` and `target`, and what upstream makes of images."""

    nets: dict[str, Variables]
    spec: dict[str, Any]

    def features(self, images: Tensor, side: str = "online") -> Tensor:
        return haiku_net(self.nets[side], images, **self.spec)

    def projected(self, images: Tensor, side: str = "online") -> Tensor:
        return haiku_mlp(self.nets[side], self.features(images, side), "projector")

    def logits(self, images: Tensor, side: str = "online") -> Tensor:
        return haiku_linear(self.nets[side], self.features(images, side), "classifier")

    def pickled(self) -> bytes:
        """What pretraining saves; two names of the same variables are the same objects in it."""
        made = {(id(v), p): haiku_tree(v, p) for v in self.nets.values() for p in _KINDS}
        trees = [made[id(v), p] for p in _KINDS for v in self.nets.values()]
        slots = {"momentum": haiku_tree(self.nets["online"], "params")}
        fields = ("online_params", "target_params", "online_state", "target_state", "opt_state")
        return dill_pickle("_ByolExperimentState", dict(zip(fields, [*trees, slots], strict=True)))

    def linear_eval(self) -> bytes:
        """What linear evaluation saves: the classifier is `linear`, alone."""
        v = self.nets["online"]
        params = {k: t for k, t in haiku_tree(v, "params").items() if k.startswith("res_net")}
        state = {k: t for k, t in haiku_tree(v, "state").items() if k.startswith("res_net")}
        linear = {"linear": haiku_tree(v, "params")["classifier"]}
        fields: dict[str, Any] = {"backbone_params": params, "classif_params": linear}
        fields |= {"backbone_state": state, "backbone_opt_state": None}
        return dill_pickle("_EvalExperimentState", {**fields, "classif_opt_state": (linear,)})


def byol_net(**spec: Any) -> Byol:
    byol = Byol({"online": Variables(0), "target": Variables(1)}, spec)
    images = torch.zeros(1, 3, 64, 64)
    for side, v in byol.nets.items():
        byol.logits(images, side)
        haiku_mlp(v, byol.projected(images, side), "predictor")
    return byol


class FlatMapping:
    """Stands for haiku's frozen mapping, of one dict."""

    def __init__(self, mapping: dict[str, Any]) -> None:
        self.mapping = mapping

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.mapping,)


def dill_pickle(name: str, fields: dict[str, Any], *, frozen: bool = True) -> bytes:
    """{experiment_state, step, rng} in protocol 2, the state as dill pickles a named tuple.

    dill writes a call of its function that makes the class; haiku's mappings are frozen.
    """

    def create_namedtuple(*args: Any) -> None: ...

    frozen_fields = [
        FlatMapping(v) if frozen and isinstance(v, dict) else v for v in fields.values()
    ]
    names = {create_namedtuple: ("dill._dill", "_create_namedtuple")}
    names[FlatMapping] = ("haiku._src.data_structures", "FlatMapping")
    state = _NamedTuple(create_namedtuple, (name, tuple(fields), "__main__"), tuple(frozen_fields))
    stream = io.BytesIO()
    _Pickler(stream, names).dump(
        {"experiment_state": state, "step": 9, "rng": np.array([0, 1], np.uint32)}
    )
    return stream.getvalue()


@dataclass
class _NamedTuple:
    create: Callable[..., Any]
    described: tuple[Any, ...]
    content: tuple[Any, ...]


class _Pickler(pickle._Pickler):
    """Python's own pickler, which writes other modules' names for some of ours."""

    def __init__(self, stream: io.BytesIO, names: dict[Any, tuple[str, str]]) -> None:
        super().__init__(stream, protocol=2)
        self.names = names

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        if isinstance(obj, _NamedTuple):
            self.save(obj.create)
            self.save(obj.described)
            self.write(pickle.REDUCE)
            self.save(obj.content)
            self.write(pickle.NEWOBJ)
        elif callable(obj) and obj in self.names:
            module, name = self.names[obj]
            self.write(pickle.GLOBAL + f"{module}\n{name}\n".encode())
        else:
            super().save(obj, save_persistent_id)


def saved(path: Path, content: bytes | dict[str, Any]) -> Path:
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    return path


# name -> what writes it at a path and returns what `weights=` is to be given
CASES: dict[str, Callable[[Path], Path]] = {
    "simclr v1": lambda path: write_bundle(path, simclr_net(head=0).values),
    "simclr v2": lambda path: write_bundle(path, simclr_net(sk=True, ema=True).values, shards=2),
    "simclr for cifar": lambda path: write_bundle(path, simclr_net(depth=10, cifar=True).values),
    "simclrv2-pytorch": lambda path: saved(path, simclr_port(sk=False)[0]),
    "simclrv2-pytorch, sk": lambda path: saved(path, simclr_port(sk=True)[0]),
    "byol": lambda path: saved(path, byol_net(depth=10).pickled()),
    "byol, linear": lambda path: saved(path, byol_net(depth=10).linear_eval()),
}
