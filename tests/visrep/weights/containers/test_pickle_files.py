"""Arrays in a pickle come back; whatever else it asks for does not happen."""

import io
import os
import pickle
import pickletools
import random
from collections import OrderedDict

import numpy as np
import pytest

from tests.oracles.refusals import refused
from visrep.errors import UserError
from visrep.weights.containers.pickle_files import write_pickle
from visrep.weights.containers.tree import float_tensor, tensors_in
from visrep.weights.containers.weights_files import read_tree

ARRAYS = {
    "f4": np.arange(12, dtype=np.float32).reshape(3, 4),
    "f8": np.array(1.5),
    "fortran": np.asfortranarray(np.arange(6, dtype=np.float32).reshape(2, 3)),
    "strided": np.arange(12, dtype=np.float32)[::2],
    "big endian": np.arange(4, dtype=">f4"),
    "i8": np.arange(3),
    "bool": np.array([True, False]),
    "empty": np.zeros((0, 3), dtype=np.float32),
}


def read_pickle(path) -> object:
    tree = read_tree(path)
    assert tree.container == "pickle"
    return tree.value


def same(a, b: np.ndarray) -> bool:
    a = a if isinstance(a, np.ndarray) else a.read().numpy()
    return a.shape == b.shape and a.dtype.name == b.dtype.name and np.array_equal(a, b)


@pytest.mark.parametrize("protocol", [0, 1, 2, 3, 4, 5])
def test_numpys_own_pickles_are_read(tmp_path, protocol):
    path = tmp_path / "a.pkl"
    content = {"model": OrderedDict(ARRAYS), "n": np.float64(2.5), "list": [1, None, "é", (b"x",)]}
    path.write_bytes(pickle.dumps(content, protocol))
    read = read_pickle(path)
    assert all(same(read["model"][name], array) for name, array in ARRAYS.items())
    assert read["n"] == 2.5
    assert read["list"] == [1, None, "é", (b"x",)]


def test_pickles_of_python_2_are_read(tmp_path):
    # {'a': array([1.0], dtype=float32)} as Python 2 wrote it: bytes as text, numpy.core.
    path = tmp_path / "a.pkl"
    path.write_bytes(
        b"\x80\x02}q\x00U\x01aq\x01cnumpy.core.multiarray\n_reconstruct\nq\x02cnumpy\nndarray\n"
        b"q\x03K\x00\x85q\x04U\x01bq\x05\x87q\x06Rq\x07(K\x01K\x01\x85q\x08cnumpy\ndtype\nq\t"
        b"U\x02f4q\nK\x00K\x01\x87q\x0bRq\x0c(K\x03U\x01<q\rNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xff"
        b"K\x00tq\x0eb\x89U\x04\x00\x00\x80?q\x0ftq\x10bs."
    )
    assert same(read_pickle(path)["a"], np.array([1.0], dtype=np.float32))


def test_what_is_written_opens_everywhere_and_names_no_private_module(tmp_path):
    buffer = io.BytesIO()
    write_pickle(buffer, {"model": ARRAYS, "a": [1, "x", None, True, 2.5]})
    plain = pickle.loads(buffer.getvalue(), encoding="latin1")
    assert all(same(plain["model"][name], array) for name, array in ARRAYS.items())
    assert all(array.flags.writeable for array in plain["model"].values())
    path = tmp_path / "a.pkl"
    path.write_bytes(buffer.getvalue())
    read = read_pickle(path)
    assert all(same(read["model"][name], array) for name, array in ARRAYS.items())
    assert read["a"] == [1, "x", None, True, 2.5]
    texts, named = [], set()
    for opcode, argument, _ in pickletools.genops(buffer.getvalue()):
        if opcode.name == "STACK_GLOBAL":
            named.add(tuple(texts[-2:]))
        if isinstance(argument, str):
            texts.append(argument)
    assert named == {("numpy", "ndarray")}


class Call:
    def __init__(self, function, *arguments):
        self.reduced = function, arguments

    def __reduce__(self):
        return self.reduced


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_nothing_is_executed(tmp_path, protocol):
    proof = tmp_path / "executed"
    evil = pickle.dumps({"model": Call(os.mkdir, str(proof))}, protocol)
    refused(tmp_path / "a.pkl", "asks to run posix.mkdir", content=evil)
    evil = pickle.dumps(Call(eval, f"open({str(proof)!r}, 'w')"), protocol)
    refused(tmp_path / "a.pkl", "asks to run", content=evil)
    assert not proof.exists()


MALICIOUS = {
    "objects in an array": pickle.dumps(np.array([{}, []], dtype=object)),
    "a record type": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
    "numpy load": b"cnumpy\nload\n(V/etc/passwd\ntR.",
    "array of a size without data": b"cnumpy\nndarray\n((I1000000\nI1000000\ntV<f4\ntR.",
    "array of a size with little data": b"cnumpy\nndarray\n((I1000000\ntV<f4\nVabcd\ntR.",
    "bytes of a size": b"cbuiltins\nbytearray\n(I100000000000\ntR.",
    "bytes of a size, protocol 5": b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",
    "text of a size": b"\x80\x04\x8d\x00\x00\x00\x00\x10\x00\x00\x00.",
    "a memo of a size": b"\x80\x02Nr\xff\xff\xff\xff.0",
    "another encoding": b"c_codecs\nencode\n(Vx\nVrot13\ntR.",
    "a change of a function": b"\x80\x02cnumpy\nndarray\n}V__defaults__\nI1\nsb.",
    "a dtype's state": b"cnumpy\ndtype\n(Vf4\ntR(I3\nV?\nNNNtb.",
    "persistent": b"Px\n.",
    "extension": b"\x80\x02\x82\x01.",
    "nothing": b"",
    "stop": b".",
}


@pytest.mark.parametrize("name", MALICIOUS)
def test_malicious_pickles_are_refused(tmp_path, name):
    if name == "a memo of a size":  # harmless where the memo is a dict
        (tmp_path / "a.pkl").write_bytes(MALICIOUS[name])
        assert read_pickle(tmp_path / "a.pkl") is None
    else:
        refused(tmp_path / "a.pkl", content=MALICIOUS[name])


def test_a_reduce_bomb_is_small_work(tmp_path):
    bomb: list = [1.0]
    for _ in range(10):
        bomb = [bomb] * 100
    path = tmp_path / "a.pkl"
    path.write_bytes(pickle.dumps(bomb))
    assert path.stat().st_size < 10_000
    assert len(read_pickle(path)) == 100
    assert list(tensors_in(read_pickle(path))) == []


def test_cuts_and_flips_end_in_one_line_or_in_plain_values(tmp_path):
    buffer = io.BytesIO()
    write_pickle(buffer, {"model": ARRAYS, "visrep": {"a": [1, 2]}})
    path = tmp_path / "a.pkl"
    rng = random.Random(0)
    for whole in (buffer.getvalue(), pickle.dumps({"model": ARRAYS}, 2)):
        for size in [0, 1, 2, len(whole) - 1, *(rng.randrange(len(whole)) for _ in range(15))]:
            refused(path, content=whole[:size])
        for _ in range(80):
            changed = bytearray(whole)
            for _ in range(rng.randint(1, 3)):
                changed[rng.randrange(len(changed))] = rng.randrange(256)
            path.write_bytes(changed)
            try:
                tree = read_tree(path)
                for name, value in tensors_in(tree.value):
                    float_tensor(tree, name, value)
            except UserError as error:
                assert "\n" not in str(error)
