"""Thousands of damaged files: each ends in one line, or in an encoder that is complete."""

import random
import resource

import pytest

from tests.oracles import mutations
from tests.oracles.mutations import FILES, NAMES, READERS, everything, examine, examine_tree, mutate
from visrep.weights import read_weights


def memory() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


@pytest.mark.parametrize("kind", FILES)
def test_damaged_checkpoints(tmp_path, kind):
    path = tmp_path / NAMES.get(kind, "model.bin")
    FILES[kind](path)
    whole, rng = path.read_bytes(), random.Random(kind)
    out = tmp_path / "out" / "encoder.safetensors"
    complete, before = 0, memory()
    for number in range(150):
        data = mutate(whole, rng) if number else whole
        path.write_bytes(data)
        try:
            complete += examine(path, out, READERS.get(kind, read_weights))
        except BaseException as error:
            raise AssertionError(f"mutation {number} of {kind}: {error!r}") from error
    assert complete >= 1
    assert memory() - before < 200_000  # KiB


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


def test_a_hang_would_be_noticed():
    with pytest.raises(TimeoutError), mutations.in_time(0.05):
        while True:
            pass
