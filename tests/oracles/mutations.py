"""Small checkpoints of every container, and what a bad disk or a bad mind makes of them."""

import contextlib
import io
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tests.oracles.checkpoints import frameworks, selfsup, tf
from tests.oracles.encoders import encoder_file
from visrep.d2 import pkl as d2
from visrep.errors import UserError
from visrep.weights import EncoderFile, read_weights, write_encoder
from visrep.weights.containers.pickle_files import write_pickle
from visrep.weights.containers.pickle_records import Global, Inert
from visrep.weights.containers.tree import tensors_in
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import fingerprint, mismatch, require_finite

LIMIT = 10.0  # seconds of processor time for one file


def _detectron2(path: Path) -> None:
    d2.write_pkl(path, encoder_file(path.with_name("encoder.safetensors"), width=1 / 32))


def _bundle(path: Path, suffix: str) -> Path:
    tf.CASES["simclr v1"](path)
    return path.with_name(path.name + suffix)


CASES: dict[str, Callable[[], Any]] = {**selfsup.CASES, **frameworks.CASES}


def _case(name: str) -> Callable[[Path], object]:
    return lambda path: CASES[name]().save(path)


# Name -> what writes such a file, or several files and returns the one that is changed.
# All of visrep.weights.formats are here, and every container that they come in.
FILES: dict[str, Callable[[Path], object]] = {
    "visrep": lambda path: encoder_file(path, width=1 / 32),
    "detectron2 of ours": _detectron2,
    "simclr's index": lambda path: _bundle(path, ".index"),
    "simclr's data": lambda path: _bundle(path, ".data-00000-of-00001"),
    **{name: tf.CASES[name] for name in ("simclrv2-pytorch, sk", "byol", "byol, linear")},
    **{
        name: _case(name)
        for name in (
            "MoCo v1",
            "SimSiam",
            "SwAV, training",
            "Barlow Twins",
            "NPID, CIFAR-10",
            "lightly, command line's MoCo",
            "lightly-train, SimCLR on an embedding",
            "lightly-train, wrapped model of timm",
            "solo-learn, momentum",
            "torchvision: linear evaluation",
            "torchvision: linear evaluation before 1.6",
            "timm: resnet18d",
            "Hugging Face: basic",
            "VISSL: converted",
            "sthalles/SimCLR",
            "Spijkervet/SimCLR",
            "lightning-bolts SimCLR",
            "mmpretrain: CIFAR",
            "Detectron2: arrays",
            "Caffe2: a detector",
        )
    },
}
READERS = {"detectron2 of ours": d2.read_pkl}


def write(kind: str, folder: Path) -> Path:
    """Write the files of FILES[kind] into `folder`; the one to be changed."""
    path = folder / "model"
    changed = FILES[kind](path)
    return changed if isinstance(changed, Path) else path


def everything() -> dict[str, bytes]:
    """Files without a net, of all kinds of values: small, so that most changes hit their frame."""
    arrays = {"f4": np.arange(6, dtype=np.float32).reshape(2, 3), "F": np.ones((2, 2), order="F")}
    values = {
        "a": [1, -1, 2.5, None, True, "text", b"bytes", (1, (2,)), {3: 4}],
        "s": np.float64(1),
    }
    tensors = {"w": torch.arange(12.0).reshape(3, 4).T, "b": torch.ones(2, dtype=torch.bfloat16)}
    content = {**tensors, **values, "net": torch.nn.Linear(2, 2)}
    made = {}
    for zipped in (True, False):
        buffer = io.BytesIO()
        torch.save(content, buffer, _use_new_zipfile_serialization=zipped)
        made["zip" if zipped else "legacy"] = buffer.getvalue()
    buffer = io.BytesIO()
    write_pickle(buffer, {"model": arrays, "v": [1, "x"]})
    made["ours"] = buffer.getvalue()
    import pickle

    for protocol in range(6):
        made[f"pickle {protocol}"] = pickle.dumps({**arrays, **values}, protocol)
    return made


def mutate(data: bytes, rng: random.Random) -> bytes:
    """One to three changes, most of them near the ends, where headers and directories are."""
    changed = bytearray(data)
    for _ in range(rng.randint(1, 3)):
        if not changed:
            break
        near = min(len(changed), 2000)
        place = rng.choice(
            (
                rng.randrange(len(changed)),
                rng.randrange(near),
                len(changed) - 1 - rng.randrange(near),
            )
        )
        kind = rng.randrange(7)
        if kind == 0:
            del changed[place:]
        elif kind == 1:
            changed[place] ^= 1 << rng.randrange(8)
        elif kind == 2:
            changed[place] = rng.choice((0, 1, 0x7F, 0x80, 0xFF, rng.randrange(256)))
        elif kind == 3:
            del changed[place : place + rng.randint(1, 64)]
        elif kind == 4:
            changed[place:place] = changed[place : place + rng.randint(1, 64)]
        elif kind == 5:
            other = rng.randrange(len(changed))
            size = rng.randint(1, 64)
            changed[place : place + size] = changed[other : other + size]
        else:
            size = rng.choice((2, 4, 8))
            number = rng.choice((0, 1, -1, 1 << 31, 1 << 40, (1 << 63) - 1, len(changed)))
            changed[place : place + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
    return bytes(changed)


def rearrange(content: Any, rng: random.Random) -> Any:
    """`content`, nested dicts, with one to three items renamed, taken away, doubled or replaced."""
    changed = _copied(content)
    for _ in range(rng.randint(1, 3)):
        places = list(_places(changed))
        held, name = rng.choice(places)
        item, kind = held[name], rng.randrange(8)
        if kind == 0:
            del held[name]
        elif kind == 1:
            held[_renamed(name, rng)] = held.pop(name)
        elif kind == 2:
            held[_renamed(name, rng)] = _copied(item)
        elif kind == 3:
            other, key = rng.choice(places)
            held[name] = _copied(other.get(key))
        elif kind == 4 and isinstance(item, torch.Tensor):
            row = item[None] if item.dim() == 0 else item
            held[name] = rng.choice((row[:0], row[None], row.flatten(), row[:-1], row.sum()))
        elif kind == 5 and isinstance(item, torch.Tensor):
            held[name] = item.to(rng.choice((torch.int64, torch.bool, torch.half, torch.cfloat)))
        elif kind == 6 and isinstance(item, torch.Tensor):
            held[name] = item * float("nan")
        else:
            values = (None, 1, -1.5, "text", b"\xff", [], [0], {}, {1: 2}, (1, "x"), Inert("a.B"))
            held[name] = rng.choice((*values, Inert("a.B", (item,), {"x": item}), Global("os.x")))
    return changed


def _copied(content: Any) -> Any:
    """Nested dicts are copied, what they hold is not."""
    if isinstance(content, dict):
        return {name: _copied(item) for name, item in content.items()}
    return content


def _places(content: Any) -> Iterator[tuple[dict[Any, Any], Any]]:
    """(dict, key) of every item of nested dicts."""
    if isinstance(content, dict):
        for name, item in content.items():
            yield content, name
            yield from _places(item)


def _renamed(name: object, rng: random.Random) -> object:
    """`name` with one of its parts replaced by another word that names have."""
    words = ("0", "1", "7", "01", "\u0663", "", "weight", "conv1", "bn", "layer1", "module", "fc")
    parts = str(name).split(".")
    parts[rng.randrange(len(parts))] = rng.choice(words)
    return rng.choice((".".join(parts), ".".join(parts), ".".join(parts), 3, None, ("a", 1)))


class Late(BaseException):
    """A body is too slow; no Exception, which readers turn into an error of the file."""


@contextlib.contextmanager
def in_time(seconds: float = LIMIT) -> Iterator[None]:
    """Raises Late once the body has used that much of the processor."""

    def late(*_: object) -> None:
        raise Late(f"it takes more than {seconds} s")

    before = signal.signal(signal.SIGVTALRM, late)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


def examine(path: Path, out: Path, read: Callable[[Path], EncoderFile] = read_weights) -> bool:
    """Convert `path` to `out`: one line and no file, or (True) a file that is complete."""
    existing = set(path.parent.iterdir())
    try:
        with in_time():
            file = read(path)
            require_finite(file, path)
    except UserError as error:
        _check_line(error)
        assert set(path.parent.iterdir()) == existing
        return False
    assert mismatch(file) is None
    assert file.sha256 == fingerprint(file.tensors)
    write_encoder(out, file)
    assert read_weights(out).sha256 == file.sha256
    out.unlink()
    return True


def examine_tree(path: Path) -> bool:
    """Read all that is in `path`: one line, or (True) plain values and dense tensors."""
    try:
        with in_time():
            tree = read_tree(path)
            for _, tensor in tensors_in(tree.value):
                try:
                    read = tensor.read()
                except (ValueError, RuntimeError, OSError):
                    continue  # `float_tensor` says so in one line
                assert tuple(read.shape) == tensor.shape
                assert read.dtype == tensor.dtype
                assert read.is_contiguous()
    except UserError as error:
        _check_line(error)
        return False
    return True


def _check_line(error: UserError) -> None:
    message = str(error)
    assert "\n" not in message
    assert message.isprintable()
    assert len(message) < 1000
