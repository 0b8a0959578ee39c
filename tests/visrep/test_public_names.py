"""`import visrep` is quick, its names are there when asked for, and typed; so are 0.1.0's."""

import ast
import importlib
import subprocess
import sys
from pathlib import Path

import pytest

import visrep
import visrep.weights

FOLDER = Path(visrep.__file__).parent


def stub(path: Path) -> dict[str, str]:
    """Name -> module, as a stub says it."""
    nodes = ast.parse(path.read_text()).body
    return {
        str(alias.asname): str(node.module)
        for node in nodes
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_import_alone_loads_nothing():
    code = "import sys, visrep; print([m for m in sys.modules if m.startswith('visrep.')])"
    code += "; print({'torch', 'numpy', 'hydra'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout.split("\n") == ["['visrep.renamed']", "set()", ""], done.stderr


def test_every_public_name_is_what_its_stub_says():
    named = stub(FOLDER / "__init__.pyi")
    assert set(named) <= set(dir(visrep))
    assert named == visrep._MODULES
    for name, module in named.items():
        assert getattr(visrep, name) is getattr(importlib.import_module(module), name)
        assert name in visrep.__doc__
    assert (FOLDER / "py.typed").read_text() == ""


def test_the_names_of_0_1_0_are_the_same_things():
    named = stub(FOLDER / "weights" / "__init__.pyi")
    assert set(named) == {
        *("Encoder", "EncoderFile", "load_classifier", "load_encoder", "read_weights"),
        *("save_encoder", "write_encoder"),
    }
    for name in named:
        assert getattr(visrep.weights, name) is getattr(visrep, name)


def test_a_name_that_is_not_there():
    with pytest.raises(AttributeError, match="module 'visrep' has no attribute 'load_model'"):
        _ = visrep.load_model
    with pytest.raises(ImportError, match="load_model"):
        from visrep.weights import load_model  # noqa: F401
