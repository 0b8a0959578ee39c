"""The command `convert` on files made to harm: one line, exit 1, nothing run, nothing written."""

import io
import os
import pickle
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.oracles.checkpoints.frameworks import CASES
from visrep.cli import main


class Call:
    """Calls `function` when it is unpickled."""

    def __init__(self, function: Callable[..., object], *args: object) -> None:
        self.call = function, args

    def __reduce__(self) -> tuple[object, ...]:
        return self.call


def archive(content: bytes, *, packed: bool = False, storage: bytes = b"") -> bytes:
    """What torch.save writes around a pickle."""
    stream = io.BytesIO()
    kind = zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED
    with zipfile.ZipFile(stream, "w", kind) as made:
        made.writestr("a/data.pkl", content)
        made.writestr("a/data/0", storage)
    return stream.getvalue()


def checkpoint(canary: Path, *, zipped: bool) -> bytes:
    """A checkpoint that is in order but for one item."""
    content = CASES["torchvision: linear evaluation"]().content
    stream = io.BytesIO()
    evil = {**content, "args": Call(os.system, f"touch {canary}")}
    torch.save(evil, stream, _use_new_zipfile_serialization=zipped)
    return stream.getvalue()


def reduce_bomb(_: Path) -> bytes:
    """Nine lists of ten of the one before, and a call that would make them a billion numbers."""
    bomb: list[object] = [1.0]
    for _number in range(9):
        bomb = [bomb] * 10
    return pickle.dumps({"state_dict": Call(bytes.__mul__, b"x" * 1000, 10**9), "b": bomb})


def huge(_: Path) -> bytes:
    """A tensor that claims a million times a million numbers of a storage of one."""
    stream = io.BytesIO()
    torch.save({"conv1.weight": torch.zeros(1), "layer1.0.conv1.weight": torch.zeros(1)}, stream)
    ones = b"K\x00K\x01\x85q"  # offset 0, shape (1,)
    large = b"K\x00J\x40\x42\x0f\x00J\x40\x42\x0f\x00\x86q"  # shape (10**6, 10**6)
    with zipfile.ZipFile(stream) as made:
        entries = {name.partition("/")[2]: made.read(name) for name in made.namelist()}
    assert ones in entries["data.pkl"]
    return archive(entries["data.pkl"].replace(ones, large), storage=entries["data/0"])


FILES: dict[str, Callable[[Path], bytes]] = {
    "os.system": lambda canary: pickle.dumps(Call(os.system, f"touch {canary}")),
    "os.system in a checkpoint": lambda canary: checkpoint(canary, zipped=True),
    "os.system in a checkpoint before 1.6": lambda canary: checkpoint(canary, zipped=False),
    "exec": lambda canary: archive(pickle.dumps(Call(exec, f"open({str(canary)!r}, 'w')"))),
    "reduce bomb": reduce_bomb,
    "nested zip": lambda canary: archive(archive(pickle.dumps(Call(os.mkdir, str(canary))))),
    "zip bomb": lambda _: archive(bytes(50_000_000), packed=True),
    "huge shapes": huge,
}

REASONS = {  # what the line says of each
    "os.system": "asks to run posix.system",
    "os.system in a checkpoint": "asks to run posix.system",
    "os.system in a checkpoint before 1.6": "asks to run posix.system",
    "exec": "asks to run builtins.exec",
    "reduce bomb": "asks to run builtins.bytes.__mul__",
    "nested zip": "is cut short or damaged",
    "zip bomb": "with packed entries",
    "huge shapes": "is cut short or damaged",
}


@pytest.mark.parametrize("name", FILES)
def test_nothing_runs_and_nothing_is_written(tmp_path, monkeypatch, capsys, name):
    monkeypatch.chdir(tmp_path)
    canary = tmp_path / "canary"
    Path("evil.pth").write_bytes(FILES[name](canary))
    before = time.process_time()
    with pytest.raises(SystemExit) as caught:
        main(["convert", "weights=evil.pth", "out=x"])
    seconds = time.process_time() - before
    output = capsys.readouterr()
    assert caught.value.code == 1
    assert output.out == ""
    assert output.err.startswith("visrep: evil.pth ")
    assert REASONS[name] in output.err
    assert output.err.count("\n") == 1
    assert not canary.exists()
    assert {path.name for path in tmp_path.iterdir()} == {"evil.pth"}
    assert seconds < 2.0


def test_the_canary_is_one(tmp_path):
    canary = tmp_path / "canary"
    pickle.loads(FILES["os.system"](canary))
    assert canary.exists()
