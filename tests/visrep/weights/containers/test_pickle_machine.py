"""The pickles of strangers: what they describe is kept as records, what attacks is refused."""

import argparse
import collections
import datetime
import enum
import functools
import io
import pathlib
import pickle
import time
import typing

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf

from tests.oracles.refusals import refused
from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Global, Inert
from visrep.weights.containers.tree import tensors_in
from visrep.weights.containers.weights_files import read_tree

PROTOCOLS = [0, 1, 2, 3, 4, 5]


def read(path, content: bytes):
    path.write_bytes(content)
    return read_tree(path).value


# Harmless objects


class Colour(enum.Enum):
    RED = 1


class Settings(dict):
    """As Lightning's AttributeDict."""


class Outer:
    class Inner:
        def __init__(self) -> None:
            self.width = 3


Pair = collections.namedtuple("Pair", "first second")


def settings() -> Settings:
    made = Settings(lr=0.1)
    made.extra = [1]
    return made


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_plain_values_are_themselves(tmp_path, protocol):
    content = {
        "numbers": [0, 1, -1, 255, 256, 65536, -(2**31), 2**40, -(10**30), 1.5, float("inf")],
        "texts": ["", "a", "é\n", "日本", "x" * 300, "'"],
        "bytes": [b"", b"a\xff", bytes(300), bytearray(b"ab")],
        "words": [None, True, False],
        "nested": ({"a": ({},)}, [[], [()]], (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        "counted": collections.Counter("aab"),
        "ordered": collections.OrderedDict([("b", 1), ("a", 2)]),
        "default": collections.defaultdict(list, {3: [4]}),
        7: 1j,
    }
    given = read(tmp_path / "a.pkl", pickle.dumps(content, protocol))
    assert given == content
    assert list(given["ordered"]) == ["b", "a"]
    sets = pickle.dumps({"s": {1}, "f": frozenset([2]), "d": collections.deque([3])}, protocol)
    given = read(tmp_path / "a.pkl", sets)
    assert [list(given[name]) for name in "sfd"] == [[1], [2], [3]]


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_numpys_scalars_are_numbers_and_texts(tmp_path, protocol):
    content = [np.float64(1.5), np.float32(0.5), np.int64(-3), np.bool_(True), np.str_("né")]
    given = read(tmp_path / "a.pkl", pickle.dumps({"a": content}, protocol))["a"]
    assert given == [1.5, 0.5, -3, True, "né"]
    assert [type(value) for value in given] == [float, float, int, bool, str]


HARMLESS = {
    "argparse": (argparse.Namespace(lr=0.1), "argparse.Namespace", {"lr": 0.1}),
    "an enum": (Colour.RED, f"{__name__}.Colour", {}),
    "a dict's subclass": (settings(), f"{__name__}.Settings", {"lr": 0.1, "extra": [1]}),
    "a nested class": (Outer.Inner(), f"{__name__}.Outer.Inner", {"width": 3}),
    "a named tuple": (Pair(1, 2), f"{__name__}.Pair", {}),
    "a path": (pathlib.PosixPath("/a"), "pathlib.PosixPath", {}),
    "a date": (datetime.datetime(2020, 1, 1), "datetime.datetime", {}),
    "a part of a function": (functools.partial(torch.nn.ReLU), "functools.partial", {}),
    "a generator": (np.random.default_rng(0), None, {}),
    "an old generator": (np.random.RandomState(0), None, {}),
    "a configuration": (OmegaConf.create({"a": {"b": [1]}}), "omegaconf.dictconfig.DictConfig", {}),
    "a range": (range(3), None, {}),
}


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("case", HARMLESS)
def test_objects_become_records(tmp_path, case, protocol):
    value, name, fields = HARMLESS[case]
    given = read(tmp_path / "a.pkl", pickle.dumps({"a": value}, protocol))["a"]
    assert type(given) is Inert
    assert name is None or given.name == name
    assert fields.items() <= given.fields().items()


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_names_that_are_only_mentioned_are_kept(tmp_path, protocol):
    mentioned = [typing.Any, Outer, Outer.Inner, torch.float32, torch.relu, len, np.mean]
    given = read(tmp_path / "a.pkl", pickle.dumps({"a": mentioned, Outer: 1}, protocol))
    assert all(type(item) is Global for item in given["a"])
    assert [item.name.rpartition(".")[2] for item in given["a"]][:3] == ["Any", "Outer", "Inner"]
    assert len(given) == 2  # callbacks keyed by their class


def test_a_mapping_is_seen_through_whichever_way_it_is_frozen():
    inner = {"w": 1}
    for record in (
        Inert("haiku._src.data_structures.FlatMapping", (inner,)),
        Inert("haiku._src.data_structures.FlatMapping", state={"_mapping": inner, "_hash": 3}),
        Inert("haiku._src.data_structures.frozendict", state={"_storage": inner}),
        Inert("flax.FrozenDict", items=inner),
    ):
        assert record.fields() == inner


@pytest.mark.parametrize("protocol", [2, 4])
def test_dills_named_tuples_and_arrays(tmp_path, protocol):
    """As dill writes what is defined in a script: its own functions, by name."""
    array = np.arange(6, dtype=np.float32).reshape(2, 3)
    function, args, state = array.__reduce__()

    class Create:
        def __init__(self, name: str, *arguments: object) -> None:
            self.call = Named(f"dill._dill.{name}"), arguments

        def __reduce__(self):
            return self.call

    named = Create("_create_namedtuple", "State", ("params", "step"), "byol")

    class Made:
        def __reduce__(self):
            return Named.new, (named, Create("_create_array", function, args, state, None), 5)

    given = read(tmp_path / "a.pkl", dump({"state": Made()}, protocol))["state"]
    assert given.name == "byol.State"
    fields = given.fields()
    assert list(fields) == ["params", "step"]
    assert fields["step"] == 5
    assert np.array_equal(fields["params"].read().numpy(), array)


class Named:
    """A function that is pickled as the name it is given."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __call__(self) -> None:
        """Never called: pickle asks for something callable."""

    new: "Named"


Named.new = Named("copyreg.__newobj__")


def dump(value: object, protocol: int) -> bytes:
    """`value`, with the functions of `Named` under their names."""
    buffer = io.BytesIO()

    class Pickler(pickle._Pickler):
        def save(self, item: object, *rest: object, **named: object) -> None:
            if isinstance(item, Named):
                module, _, name = item.name.rpartition(".")
                self.write(b"c" + f"{module}\n{name}\n".encode())
            else:
                super().save(item, *rest, **named)

    Pickler(buffer, protocol).dump(value)
    return buffer.getvalue()


# Attacks


class Call:
    def __init__(self, name: str, *arguments: object) -> None:
        self.call = Named(name), arguments

    def __reduce__(self):
        return self.call


ATTACKS = [
    "os.system",
    "posix.system",
    "nt.system",
    "os.execl",
    "subprocess.Popen",
    "subprocess.check_output",
    "builtins.eval",
    "builtins.exec",
    "builtins.compile",
    "builtins.open",
    "builtins.__import__",
    "builtins.getattr",
    "__builtin__.eval",
    "__builtin__.apply",
    "__builtin__.file",
    "shutil.rmtree",
    "runpy.run_path",
    "importlib.import_module",
    "pty.spawn",
    "ctypes.CDLL",
    "socket.create_connection",
    "webbrowser.open",
    "pickle.loads",
    "marshal.loads",
    "torch.load",
    "torch.hub.load",
    "torch.jit.load",
    "torch.storage._load_from_bytes",
    "torch.utils.cpp_extension.load",
    "torch._dynamo.guards.GuardBuilder.get",
    "numpy.load",
    "numpy.testing._private.utils.runstring",
    "numpy.f2py.crackfortran.getlincoef",
    "dill._dill._create_function",
    "dill._dill._import_module",
    "types.FunctionType",
    "operator.methodcaller",
    "operator.attrgetter",
    "pip.main",
    "pathlib.Path.unlink",
    "lib.unknown.do_it",
    "distutils.file_util.write_file",
    "codecs.decode",
    "logging.config._resolve",
    "builtins.map",
    "builtins.print",
    "functools.reduce",
    "itertools.starmap",
]


@pytest.mark.parametrize("name", ATTACKS)
def test_calls_are_refused_by_name(tmp_path, name):
    shown = name.replace("__builtin__", "builtins")
    for protocol in (0, 2, 4):
        evil = dump({"conv1.weight": 1, "x": Call(name, "id")}, protocol)
        refused(tmp_path / "a.pkl", f"asks to run {shown}", "which visrep never does", content=evil)
    module, _, function = name.rpartition(".")
    for opcodes in (f"(S'id'\ni{module}\n{function}\n.", f"(c{module}\n{function}\nS'id'\no."):
        refused(tmp_path / "a.pkl", f"asks to run {shown}", content=b"\x80\x02" + opcodes.encode())


@pytest.mark.parametrize("name", ["os.system", "subprocess.Popen", "builtins.eval", "sys.modules"])
def test_some_names_are_refused_wherever_they_stand(tmp_path, name):
    module, _, function = name.rpartition(".")
    mentioned = f"c{module}\n{function}\n".encode()
    for content in (
        mentioned + b".",  # alone
        b"}S'a'\n" + mentioned + b"s.",  # as a value
        mentioned + b")\x81.",  # as a class
        mentioned + b"}b.",  # changed
        b"ctorch._tensor\n_rebuild_from_type_v2\n(" + mentioned + b"ctorch\nTensor\n)NtR.",
    ):
        refused(tmp_path / "a.pkl", f"asks to run {name}", content=b"\x80\x02" + content)
    nested = f"S'{module}'\nS'{function}'\n\x93.".encode("latin1")
    refused(tmp_path / "a.pkl", f"asks to run {name}", content=b"\x80\x04" + nested)


STRANGE = {
    "a call of an object": b"\x80\x02cargparse\nNamespace\n)\x81)R.",
    "a call of a text": b"\x80\x02S'a'\n)R.",
    "arguments that are none": b"\x80\x02cargparse\nNamespace\nNR.",
    "a change of a class": b"\x80\x02cargparse\nNamespace\n}b.",
    "an attribute of a text": b"\x80\x02cbuiltins\ngetattr\n(S'a'\nS'b'\ntR.",
    "an attribute of a function": b"\x80\x02cbuiltins\ngetattr\n(cnumpy\nmean\nS'b'\ntR.",
    "an attribute that is a function": (
        b"\x80\x02cbuiltins\ngetattr\n(cpathlib\nPath\nS'unlink'\ntR(tR."
    ),
    "a key that is a list": b"\x80\x02}]Ns.",
    "a key that is a dict": b"\x80\x02}}Ns.",
    "items of a number": b"\x80\x02K\x01NNs.",
    "elements of a text": b"\x80\x02S'a'\nNa.",
    "no mark": b"\x80\x02Nt.",
    "nothing to pop": b"\x80\x020.",
    "an unknown memo": b"\x80\x02h\x07.",
    "an unknown operation": b"\x80\x02\xff.",
    "a later protocol": b"\x80\x09N.",
    "no end": b"\x80\x02N",
    "a name that is no text": b"\x80\x04K\x01K\x02\x93.",
    "a name that is not unicode": b"\x80\x02c\xff\n\xff\n.",
    "a name with colours": b"\x80\x02cos\n\x1b[31mx\n.",
    "a line without end": b"\x80\x02I" + b"1" * 5000,
    "a number of many digits": b"\x80\x02I" + b"1" * 5000 + b"\n.",
    "a buffer from elsewhere": b"\x80\x05\x97.",
    "an extension": b"\x80\x02\x82\x01.",
    "a persistent id": b"\x80\x02Pa\n.",
    "a named tuple of numbers": (
        b"\x80\x02cdill._dill\n_create_namedtuple\n(S'A'\n(K\x01tS'm'\ntR."
    ),
    "an array of objects": pickle.dumps(np.array([{}], dtype=object)),
    "an array of records": pickle.dumps(np.zeros(2, dtype=[("a", "f4")])),
    "a large array": b"\x80\x02cnumpy\nndarray\n((I1000000\nI1000000\ntS'<f4'\nS'abcd'\ntR.",
    "an array with a negative side": b"\x80\x02cnumpy\nndarray\n((I-1\nI-1\ntS'<f4'\nS'abcd'\ntR.",
}


@pytest.mark.parametrize("name", STRANGE)
def test_what_no_pickler_writes_is_one_line(tmp_path, name):
    refused(tmp_path / "a.pkl", content=STRANGE[name])


BOMBS = {
    "nested lists": b"\x80\x02" + b"]" * 499_000 + b"a" * 498_999 + b".",
    "nested marks": b"\x80\x02" + b"(" * 900_000 + b".",
    "nested tuples": b"\x80\x02N" + b"\x85" * 900_000 + b".",
    "a key of tuples of tuples": b"\x80\x02}N" + b"2\x86" * 60 + b"Ns.",
    "many objects": b"\x80\x02" + b"}" * 3_000_000 + b".",
    "a long list that is copied": (
        b"\x80\x02(" + b"N" * 500_000 + b"lq\x00" + b"cbuiltins\ndict\n(h\x00tR" * 40_000 + b"."
    ),
    "a long tuple that is copied": (
        b"\x80\x02(" + b"N" * 500_000 + b"tq\x00" + b"ca\nB\nh\x00K\x01\x92" * 40_000 + b"."
    ),
    "bytes of a size": b"\x80\x02cbuiltins\nbytearray\n(I100000000000\ntR.",
    "bytes that are not there": b"\x80\x05\x96\x00\x00\x00\x00\x10\x00\x00\x00.",
    "a text that is not there": b"\x80\x04\x8d\x00\x00\x00\x00\x10\x00\x00\x00.",
    "a number that is not there": b"\x80\x02\x8b\xff\xff\xff\x7f.",
    "a frame that is not there": b"\x80\x04\x95",
    "a memo of a size": b"\x80\x02Nr\xff\xff\xff\xff0.",
}


@pytest.mark.parametrize("name", BOMBS)
def test_bombs_are_small_work(tmp_path, name):
    path = tmp_path / "a.pkl"
    path.write_bytes(BOMBS[name])
    began = time.process_time()
    try:
        value = read_tree(path).value
        assert list(tensors_in(value)) == []
    except UserError as error:
        assert "\n" not in str(error)
    assert time.process_time() - began < 4  # 2 s on an idle machine
