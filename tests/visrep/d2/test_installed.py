"""Whether Detectron2 can be used: missing, broken and whole ones are told apart."""

import importlib.util
import sys

import pytest

from visrep.d2.installed import version


@pytest.mark.detectron2
def test_one_that_works_has_a_version():
    import detectron2

    assert version() == (detectron2.__version__, "")


def test_a_missing_one(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    assert version() == (None, "Detectron2 is not installed")


@pytest.mark.detectron2
@pytest.mark.parametrize("part", ["modeling", "_C"])
def test_one_without_a_part_is_named(monkeypatch, part):
    import detectron2

    monkeypatch.setitem(sys.modules, f"detectron2.{part}", None)
    monkeypatch.delattr(detectron2, part, raising=False)
    found, problem = version()
    assert found is None and problem.startswith("Detectron2 cannot be imported (")
    assert part in problem


def test_a_broken_one_is_not_taken_for_a_missing_one(monkeypatch, tmp_path):
    package = tmp_path / "detectron2"
    package.mkdir()
    (package / "__init__.py").write_text("raise OSError('libcudart.so.99: cannot open\\nmore')")
    for name in [n for n in sys.modules if n.split(".")[0] == "detectron2"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(str(tmp_path))
    assert version() == (None, "Detectron2 cannot be imported (libcudart.so.99: cannot open)")
