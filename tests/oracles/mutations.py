"""Small checkpoints of every container, and what a bad disk or a bad mind makes of them."""

import contextlib
import io
import random
import signal
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import save_file

from tests.oracles.checkpoints import tf
from tests.oracles.encoders import encoder_file, net
from visrep.errors import UserError
from visrep.weights import EncoderFile, read_weights, write_encoder
from visrep.weights import detectron2 as d2
from visrep.weights.canonical import fingerprint, mismatch, require_finite
from visrep.weights.pickle_files import write_pickle
from visrep.weights.torch_files import read_tree, tensors_in

LIMIT = 10.0  # seconds of processor time for one file


def _state() -> dict[str, torch.Tensor]:
    return net(width=1 / 32, stem="imagenet").state_dict()


def _torch(path: Path, *, zipped: bool) -> None:
    content = {
        "state_dict": {f"module.{name}": tensor for name, tensor in _state().items()},
        "epoch": 3,
        "optimizer": {"state": {0: {"step": 1, "momentum": torch.ones(3)}}, "lr": [0.1, None]},
    }
    torch.save(content, path, _use_new_zipfile_serialization=zipped)


def _detectron2(path: Path) -> None:
    d2.write_pkl(path, encoder_file(path.with_name("encoder.safetensors"), width=1 / 32))


# Name -> what writes such a file. A bundle is two files; the first one is changed.
FILES: dict[str, Callable[[Path], object]] = {
    "visrep": lambda path: encoder_file(path, width=1 / 32),
    "safetensors": lambda path: save_file(_state(), path, metadata={"format": "pt"}),
    "torch": lambda path: _torch(path, zipped=True),
    "torch before 1.6": lambda path: _torch(path, zipped=False),
    "detectron2": _detectron2,
    "byol": lambda path: path.write_bytes(tf.byol_net().pickled()),
    "bundle's index": lambda path: tf.write_bundle(
        path.with_suffix(""), tf.simclr_net(head=0).values
    ),
    "bundle's data": lambda path: tf.write_bundle(
        path.with_name(path.name.partition(".data")[0]), tf.simclr_net(head=0).values
    ),
}
READERS = {"detectron2": d2.read_pkl}
NAMES = {"bundle's index": "model.ckpt.index", "bundle's data": "model.ckpt.data-00000-of-00001"}


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


@contextlib.contextmanager
def in_time(seconds: float = LIMIT) -> Iterator[None]:
    """Raises TimeoutError once the body has used that much of the processor."""

    def late(*_: object) -> None:
        raise TimeoutError(f"it takes more than {seconds} s")

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
