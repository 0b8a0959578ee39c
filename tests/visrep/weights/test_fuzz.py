"""Thousands of damaged files: each ends in one line, or in an encoder that is complete."""

import functools
import random
import resource
import shutil
from pathlib import Path

import pytest

from tests.oracles import mutations
from tests.oracles.mutations import (
    CASES,
    FILES,
    READERS,
    Late,
    everything,
    examine,
    examine_tree,
    mutate,
    rearrange,
    write,
)
from tests.oracles.trees import tree
from visrep.weights import read_weights, reading
from visrep.weights.recognition import known_formats


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """kind -> the file that is to be changed, in a folder of its own."""

    @functools.cache
    def path(kind: str) -> Path:
        return write(kind, tmp_path_factory.mktemp("whole"))

    return path


def test_no_format_is_missing(saved):
    kinds = {read_weights(saved(kind)).kind for kind in FILES}
    # A seal covers every byte of a snapshot, see formats/test_visrep_snapshot.py.
    assert kinds | {"visrep snapshot"} == {known.NAME for known in known_formats()}


@pytest.mark.parametrize("kind", FILES)
def test_damaged_checkpoints(saved, tmp_path, kind):
    shutil.copytree(saved(kind).parent, tmp_path, dirs_exist_ok=True)
    path = tmp_path / saved(kind).name
    whole, rng = path.read_bytes(), random.Random(kind)
    out = tmp_path / "out" / "encoder.safetensors"
    complete, before = 0, memory()
    for number in range(25):
        data = mutate(whole, rng) if number else whole
        path.write_bytes(data)
        try:
            complete += examine(path, out, READERS.get(kind, read_weights))
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {kind}: {error!r}") from error
    assert complete >= 1
    assert memory() - before < 200_000  # KiB


@pytest.mark.parametrize("name", CASES)
def test_rearranged_checkpoints(tmp_path, monkeypatch, name):
    """Names, shapes and kinds of what is held are changed, which a flip seldom does."""
    content, rng = CASES[name]().content, random.Random(name)
    out = tmp_path / "out" / "encoder.safetensors"
    for number in range(4):
        changed = tree(rearrange(content, rng) if number else content)
        monkeypatch.setattr(reading, "read_tree", lambda _, changed=changed: changed)
        try:
            good = examine(tmp_path / "model.pth", out, reading.read_weights)
        except BaseException as error:
            raise AssertionError(f"change {number} of {name}: {error!r}") from error
        assert good or number


@pytest.mark.parametrize("kind", everything())
def test_damaged_trees(tmp_path, kind):
    path = tmp_path / "model.bin"
    whole, rng = everything()[kind], random.Random(kind)
    before = memory()
    for number in range(300):
        path.write_bytes(mutate(whole, rng) if number else whole)
        try:
            good = examine_tree(path)
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {kind}: {error!r}") from error
        assert good or number
    assert memory() - before < 200_000  # KiB


def test_every_cut_of_a_small_file(tmp_path):
    path = tmp_path / "model.bin"
    for whole in everything().values():
        for size in range(1, len(whole), 1 + len(whole) // 40):
            path.write_bytes(whole[:size])
            assert not examine_tree(path)


def test_a_hang_would_be_noticed(tmp_path, monkeypatch):
    with pytest.raises(Late), mutations.in_time(0.05):
        while True:
            pass

    def hang(_: object) -> None:
        with mutations.in_time(0.05):
            while True:
                pass

    path = tmp_path / "model.bin"
    path.write_bytes(everything()["zip"])
    monkeypatch.setattr("visrep.weights.containers.weights_files.find_bundle", hang)
    with pytest.raises(Late):
        examine_tree(path)
