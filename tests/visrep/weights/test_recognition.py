"""One format matches, or the error says what was found; a stranger's format is one file."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.oracles.checkpoints import tf
from tests.oracles.checkpoints.comparing import formats_of
from tests.oracles.encoders import in_memory, net
from tests.oracles.trees import tree
from visrep import plugins
from visrep.errors import ConfigError, UserError
from visrep.weights import formats
from visrep.weights.containers.pickle_records import Inert
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights
from visrep.weights.recognition import check_contract, identify, known_formats, prefixes

W = torch.zeros(1)
FOLDER = Path(formats.__file__).parent
ROOT = FOLDER.parents[2]


def test_no_match_lists_the_prefixes_with_counts():
    state = {f"module.encoder_q.layer{i}.weight": W for i in range(5)}
    state |= {"module.encoder_k.conv1.weight": W, "module.queue": W}
    with pytest.raises(UserError) as caught:
        identify(tree({"epoch": 1, "state_dict": state}))
    message = str(caught.value)
    assert "model.pth fits none of the known formats" in message
    assert "state_dict/module.encoder_q. 5" in message
    assert "state_dict/module.encoder_k. 1" in message
    assert "state_dict/module.queue 1" in message
    assert "torchvision state dict" in message


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ({}, "no tensor"),
        ({"a": 1}, "no tensor"),
        ("text", "no tensor"),
        (W, "a single tensor 1"),
        ([W, W], "0 1, 1 1"),
        ({"a\n\x1b[31mb": W}, "a??[31mb 1"),
        ({"x" * 200: W}, "x" * 57 + "... 1"),
        ({f"p{i}.a": W for i in range(30)}, "and 22 more prefixes"),
        ({1: {2: W}}, "1/2 1"),
        (Inert("Net", state={"x": Inert("Frozen", ({"w": 1},))}), "no tensor"),
    ],
)
def test_anything_can_be_described_in_one_line(value, found):
    assert found in prefixes(tree(value))
    with pytest.raises(UserError) as caught:
        identify(tree(value))
    assert "\n" not in str(caught.value)


def test_every_module_of_the_folder_is_a_format():
    modules = known_formats()
    files = {path.stem for path in FOLDER.glob("*.py")} - {"__init__"}
    assert [m.__name__.rpartition(".")[2] for m in modules] == sorted(files)
    assert len({m.NAME for m in modules}) == len(modules) >= 18
    for module in modules:
        check_contract(module)


def test_a_file_that_says_it_is_ours_is_ours():
    state = {"conv1.weight": W, "layer1.0.conv1.weight": W}
    assert identify(tree(state, format="visrep-encoder/1")).NAME == "visrep encoder"
    assert identify(tree(state, format="pt")).NAME == "torchvision state dict"


@pytest.mark.parametrize("case", tf.CASES)
def test_one_format_has_what_tensorflow_and_haiku_save(tmp_path, case):
    assert len(formats_of(tf.CASES[case](tmp_path / "checkpoint"))) == 1


# A stranger's format

MINE = '''
"""Nets of the imaginary library foo: torchvision's names behind `foo/`, in a dict `weights`."""

from visrep.weights.foreign import ForeignTensors, encoder_file, unwrap

NAME = "foo"


def recognise(tree):
    return "foo/conv1.weight" in unwrap(tree, "weights")[0]


def read(tree, choice):
    foreign = ForeignTensors(tree, unwrap(tree, "weights")[0])
    foreign.drop("steps", "steps$")
    return encoder_file(foreign, foreign.take("foo/"), choice=choice, source={"format": NAME})
'''


@pytest.fixture
def plugin(tmp_path, monkeypatch):
    """A function that makes a module of a text and names it in `plugins=`."""
    monkeypatch.setattr(plugins, "_loaded", {})
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))

    def load(name: str, text: str) -> None:
        monkeypatch.delitem(sys.modules, name, raising=False)
        (tmp_path / f"{name}.py").write_text(text)
        plugins.load([name])

    return load


@pytest.fixture
def foo(tmp_path):
    """A checkpoint of the imaginary library, and the encoder in it."""
    encoder = net(stem="imagenet")
    tensors = {f"foo/{name}": tensor for name, tensor in encoder.state_dict().items()}
    torch.save({"weights": {**tensors, "steps": torch.ones(3)}}, tmp_path / "model.bin")
    return tmp_path / "model.bin", encoder


def test_a_strangers_format_is_one_file(plugin, foo):
    path, encoder = foo
    with pytest.raises(UserError, match="fits none of the known formats"):
        read_weights(path)
    plugin("format_of_foo", MINE)
    file = read_weights(path, Choice(padding="tf"))
    assert file.kind == "foo" and file.dropped["steps"] == 1
    assert file.backbone == {**encoder.spec, "padding": "tf"}
    assert file.sha256 == in_memory(stem="imagenet").sha256


def test_the_command_line_reads_a_strangers_format(foo):
    path, _ = foo
    (path.parent / "format_of_foo.py").write_text(MINE)
    convert = (sys.executable, "-m", "visrep", "convert", "weights=model.bin", "out=x.safetensors")
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    for plugin, code, said in (
        ("plugins=nobodys", 2, "plugins=nobodys: there is no such module"),
        ("plugins=format_of_foo", 0, "read      model.bin: foo, ResNet-18 of width 0.0625"),
    ):
        command = [*convert, plugin]
        done = subprocess.run(command, cwd=path.parent, env=env, capture_output=True, text=True)
        assert (done.returncode, said in done.stdout + done.stderr) == (code, True), done.stderr
    written = read_weights(path.parent / "x.safetensors")
    assert written.sha256 == in_memory(stem="imagenet").sha256


def test_a_file_that_fits_ours_and_a_strangers_is_an_error(plugin):
    state = {"conv1.weight": W, "layer1.0.conv1.weight": W}
    plugin("greedy", MINE.replace('"foo/conv1.weight" in', "True or"))
    with pytest.raises(UserError, match="several formats, torchvision state dict and foo"):
        identify(tree(state))
    assert identify(tree({"b": W})).NAME == "foo"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('NAME = "foo"', "", "the NAME of a checkpoint format must be a text"),
        ('NAME = "foo"', "NAME = 3", "the NAME of a checkpoint format must be a text"),
        ("recognise(tree)", "recognise()", r"must hold a function recognise\(tree\)"),
        ("def read", "def reads", r"must hold a function read\(tree, choice\)"),
        ("read(tree, choice)", "read(tree)", r"must hold a function read\(tree, choice\)"),
    ],
)
def test_a_member_that_breaks_the_contract_is_named(plugin, old, new, said):
    plugin("wrong", MINE.replace(old, new))
    with pytest.raises(ConfigError, match=f"^wrong: .*{said}$"):
        identify(tree({"b": W}))


def test_what_a_strangers_reader_returns_is_looked_at(plugin, foo):
    plugin("forgetful", MINE.replace("return encoder_file", "encoder_file"))
    with pytest.raises(ConfigError, match="forgetful: read must return an EncoderFile, not None"):
        read_weights(foo[0])
