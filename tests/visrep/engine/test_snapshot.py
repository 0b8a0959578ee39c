"""A damaged snapshot is noticed wherever the damage is, and the one before it is used."""

import hashlib
import logging
import os
import random
from collections import OrderedDict
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.oracles.small_disk import small_disk
from visrep import dist
from visrep.engine import snapshot
from visrep.errors import UserError
from visrep.weights.containers import seal


def state(value: float) -> dict:
    net = torch.nn.Sequential(torch.nn.Linear(5, 4), torch.nn.BatchNorm1d(4))
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.fill_(value)
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1, momentum=0.9)
    net(torch.ones(3, 5)).sum().backward()
    optimizer.step()
    return {
        "task": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "queue": torch.full((7,), value),
        "pointer": 3,
        "names": ["a", "b"],
        "none": None,
        "channels_last": torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last),
    }


def equal(a: object, b: object) -> bool:
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b) and a.dtype == b.dtype and a.stride() == b.stride()
    return a == b


def test_state_comes_back_as_it_was(tmp_path):
    snapshot.save(tmp_path / "snapshots", 7, state(2.0))
    step, loaded = snapshot.latest(tmp_path / "snapshots")
    assert step == 7
    assert equal(loaded, state(2.0))


def test_a_file_is_an_ordinary_torch_file(tmp_path):
    snapshot.save(tmp_path, 1, state(1.0))
    loaded = torch.load(tmp_path / "step-000000001.pt", weights_only=True)
    assert equal(loaded, state(1.0))


def test_no_folder_and_empty_folder_hold_none(tmp_path):
    assert snapshot.latest(tmp_path / "absent") is None
    (tmp_path / "step-x.pt").write_bytes(b"not one of ours")
    assert snapshot.latest(tmp_path) is None


def test_the_newest_n_are_kept_in_the_order_of_steps(tmp_path):
    for step in (9, 10, 100, 1000):
        snapshot.save(tmp_path, step, {"step": step}, keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "step-000000100.pt",
        "step-000001000.pt",
    ]
    assert snapshot.latest(tmp_path) == (1000, {"step": 1000})


def test_a_save_removes_what_a_killed_save_left(tmp_path):
    (tmp_path / ".step-000000005.x1y2z3.pt").write_bytes(b"half a snapshot")
    assert snapshot.latest(tmp_path) is None
    snapshot.save(tmp_path, 6, {"step": 6})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000006.pt"]


def cuts(size: int) -> list[int]:
    rng = random.Random(0)
    near_ends = [0, 1, 2, 3, 4, 30, size - 1, size - 2, size - 40, size - 90, size - 91, size - 92]
    return sorted({*near_ends, *(rng.randrange(size) for _ in range(60))})


def test_every_cut_is_noticed(tmp_path, caplog):
    snapshot.save(tmp_path, 1, state(1.0))
    snapshot.save(tmp_path, 2, state(2.0))
    path = tmp_path / "step-000000002.pt"
    whole = path.read_bytes()
    for size in cuts(len(whole)):
        path.write_bytes(whole[:size])
        caplog.clear()
        with caplog.at_level(logging.WARNING, logger="visrep"):
            step, loaded = snapshot.latest(tmp_path)
        assert step == 1, f"cut at {size}"
        assert equal(loaded, state(1.0))
        (record,) = caplog.records
        message = record.getMessage()
        assert "step-000000002.pt" in message
        assert "going on from step-000000001.pt" in message
        assert "\n" not in message


def test_every_flipped_bit_and_every_tail_is_noticed(tmp_path):
    snapshot.save(tmp_path, 1, state(1.0))
    snapshot.save(tmp_path, 2, state(2.0))
    path = tmp_path / "step-000000002.pt"
    whole = path.read_bytes()
    rng = random.Random(1)
    for _ in range(150):
        changed = bytearray(whole)
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
        path.write_bytes(changed)
        assert snapshot.latest(tmp_path)[0] == 1
    path.write_bytes(whole + b"\0")
    assert snapshot.latest(tmp_path)[0] == 1
    path.write_bytes(bytes(len(whole)))  # a crash can leave a file of zeros
    assert snapshot.latest(tmp_path)[0] == 1
    path.write_bytes(whole)
    assert snapshot.latest(tmp_path)[0] == 2


def test_several_damaged_ones_take_one_line(tmp_path, caplog):
    for step in (1, 2, 3):
        snapshot.save(tmp_path, step, {"step": step}, keep=3)
    for step in (2, 3):
        path = tmp_path / f"step-{step:09d}.pt"
        path.write_bytes(path.read_bytes()[:-100])
    with caplog.at_level(logging.WARNING, logger="visrep"):
        assert snapshot.latest(tmp_path) == (1, {"step": 1})
    assert len(caplog.records) == 1
    assert "step-000000003.pt" in caplog.text
    assert "step-000000002.pt" in caplog.text

    (tmp_path / "step-000000001.pt").write_bytes(b"")
    caplog.clear()
    with caplog.at_level(logging.WARNING, logger="visrep"):
        assert snapshot.latest(tmp_path) is None
    assert len(caplog.records) == 1
    assert "from the beginning" in caplog.text


def test_a_sealed_file_with_code_in_it_is_not_executed(tmp_path):
    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "executed"),)

    body = tmp_path / "body"
    torch.save({"a": Evil()}, body)
    content = body.read_bytes()
    line = seal.seal_of(hashlib.sha256(content).hexdigest())
    snapshot.save(tmp_path, 1, {"step": 1})
    (tmp_path / "step-000000002.pt").write_bytes(content + line)
    assert snapshot.latest(tmp_path) == (1, {"step": 1})
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("value", "where"),
    [
        ({"a": np.float64(1.0)}, r"state\['a'\] is a float64"),
        ({"a": [1, Path()]}, r"state\['a'\]\[1\]"),
        ({("a", Path()): 1}, "a key of state"),
        ({"a": {"b": print}}, r"state\['a'\]\['b'\]"),
    ],
)
def test_what_could_not_be_read_back_is_refused_when_saved(tmp_path, value, where):
    with pytest.raises(TypeError, match=where):
        snapshot.save(tmp_path, 1, value)
    assert not list(tmp_path.iterdir())


def test_ordered_dicts_are_plain(tmp_path):
    snapshot.save(tmp_path, 1, {"a": OrderedDict(b=(1, 2.0, True))})
    assert snapshot.latest(tmp_path) == (1, {"a": OrderedDict(b=(1, 2.0, True))})


def test_only_the_main_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr(dist, "is_main", lambda: False)
    snapshot.save(tmp_path, 1, {"step": 1})
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_older_snapshot_alone(tmp_path):
    snapshot.save(tmp_path, 1, {"step": 1})
    with small_disk(30_000), pytest.raises(UserError) as caught:
        snapshot.save(tmp_path, 2, {"step": 2, "big": torch.zeros(100_000)})
    (line,) = str(caught.value).splitlines()
    assert "cannot write" in line
    assert "step-000000002.pt" in line
    assert os.strerror(27) in line
    assert [p.name for p in tmp_path.iterdir()] == ["step-000000001.pt"]
    assert snapshot.latest(tmp_path) == (1, {"step": 1})


def test_a_file_without_permission_is_an_error_not_a_step_back(tmp_path, monkeypatch):
    snapshot.save(tmp_path, 1, {"step": 1})
    snapshot.save(tmp_path, 2, {"step": 2})

    def refuse(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(snapshot, "_check_seal", refuse)
    with pytest.raises(UserError, match=r"step-000000002\.pt: Permission denied"):
        snapshot.latest(tmp_path)


def test_one_older_snapshot_can_be_spared(tmp_path):
    for step in range(1, 7):
        snapshot.save(tmp_path, step, state(float(step)), spare=2)
    assert sorted(path.name[-4:-3] for path in tmp_path.iterdir()) == ["2", "5", "6"]


def test_snapshots_of_a_collapse_are_set_aside_and_not_taken(tmp_path):
    assert snapshot.newest(tmp_path) is None
    for step in (1, 2, 3):
        snapshot.save(tmp_path, step, state(float(step)), keep=3)
    snapshot.set_aside(tmp_path, after=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "collapsed-000000002.pt", "collapsed-000000003.pt", "step-000000001.pt",
    ]  # fmt: skip
    assert snapshot.newest(tmp_path) == snapshot.latest(tmp_path)[0] == 1
    snapshot.set_aside(tmp_path, after=None)
    assert snapshot.newest(tmp_path) is None
