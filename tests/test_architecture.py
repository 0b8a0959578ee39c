"""Who may import whom, what is packaged, and what a file may be called."""

import ast
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("visrep", "pretrain", "transfer", "distill", "tools")
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
STAGES = ("pretrain", "transfer", "distill")


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(["visrep", *parts] if parts[0] == "tools" else parts)


def imports(path: Path, *, top_level_only: bool = False) -> Iterator[str]:
    """Every module that `path` imports, `from a import b` as `a.b` and `a`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def under(name: str, *packages: str) -> bool:
    return any(name == package or name.startswith(f"{package}.") for package in packages)


def offenders(allowed, forbidden, sources=None, **kwargs) -> list[str]:
    """Files that `allowed(module)` does not cover and that import what `forbidden(name)` names."""
    return [
        f"{module_of(path)} imports {name}"
        for path in sources or SOURCES
        if not allowed(module_of(path))
        for name in imports(path, **kwargs)
        if forbidden(name)
    ]


def test_stages_never_import_one_another():
    for stage in STAGES:
        others = [other for other in STAGES if other != stage]
        sources = sorted((ROOT / stage).rglob("*.py"))
        assert not offenders(lambda _: False, lambda n, o=others: under(n, *o), sources)


def test_shared_package_imports_no_stage_and_no_tool():
    sources = sorted((ROOT / "visrep").rglob("*.py"))
    # The command `convert` writes Detectron2's configs and asks its real backbone: a stage's files.
    assert not offenders(
        lambda module: module == "visrep.convert",
        lambda name: under(name, *STAGES, "visrep.tools", "tools", "tests"),
        sources,
    )
    converter = [n for n in imports(ROOT / "visrep" / "convert.py") if under(n, *STAGES)]
    allowed = ("transfer.d2_tasks", "transfer.d2_verify")
    assert all(under(name, *allowed) or name == "transfer" for name in converter)


def test_layers_of_the_shared_package():
    """nn knows only nn, dist and errors; the engine knows no method, backbone or view recipe."""
    nn = sorted((ROOT / "visrep" / "nn").rglob("*.py"))
    assert not offenders(
        lambda _: False,
        lambda n: (
            under(n, "visrep")
            and not under(n, "visrep.nn", "visrep.dist", "visrep.errors")
            and n != "visrep"
        ),
        nn,
    )
    engine = sorted((ROOT / "visrep" / "engine").rglob("*.py"))
    assert not offenders(
        lambda _: False,
        lambda n: under(n, "visrep.nn.resnet", "visrep.data.views", "visrep.data.scenes"),
        engine,
    )


def test_a_method_imports_torch_nn_and_dist_only():
    methods = [path for path in (ROOT / "pretrain" / "methods").glob("*.py") if path.stat().st_size]
    assert methods
    assert not offenders(
        lambda _: False,
        lambda n: (
            under(n, "visrep", "pretrain", "hydra", "omegaconf")
            and n != "visrep"
            and not under(n, "visrep.nn", "visrep.dist", "visrep.errors", "visrep.seeds")
        ),
        methods,
    )


def test_torch_distributed_appears_in_three_files():
    allowed = ("visrep.dist", "visrep.engine.parallel", "visrep.weights.snapshot")
    assert not offenders(
        lambda module: module in allowed, lambda name: under(name, "torch.distributed")
    )


def test_detectron2_appears_in_its_files_inside_functions():
    allowed = (
        "transfer.detect_d2",
        "transfer.d2_backbone",
        "transfer.d2_heads",
        "transfer.d2_data",
        "transfer.d2_verify",
    )
    assert not offenders(lambda module: module in allowed, lambda name: under(name, "detectron2"))
    assert not offenders(
        lambda _: False, lambda name: under(name, "detectron2"), top_level_only=True
    )


def test_hydra_appears_in_the_command_line_and_its_configuration():
    assert not offenders(
        lambda module: module in ("visrep.cli", "visrep.config"), lambda name: under(name, "hydra")
    )


def test_nobody_imports_tools_or_tests():
    sources = [path for path in SOURCES if path.parts[len(ROOT.parts)] != "tools"]
    assert not offenders(
        lambda _: False, lambda n: under(n, "tools", "visrep.tools", "tests"), sources
    )


def test_packages_are_the_folders_with_code():
    listed = set(
        tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    )
    found = {module_of(path) for path in SOURCES if path.name == "__init__.py"}
    assert listed == found | {"visrep.configs"}


@pytest.mark.parametrize("word", ["utils", "misc", "common", "base", "manager"])
def test_no_drawer_for_odds_and_ends(word):
    assert not [path for path in SOURCES if word in path.stem.split("_")]
