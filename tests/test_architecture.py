"""Who may import whom, what is packaged, and what a file may be called."""

import ast
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from visrep.cli import COMMANDS

ROOT = Path(__file__).resolve().parent.parent
PACKAGES = ("visrep", "pretrain", "transfer", "distill", "tools")
# rglob does not follow links, so every file is seen once, in the folder where it lies.
SOURCES = sorted(path for package in PACKAGES for path in (ROOT / package).rglob("*.py"))
STAGES = ("pretrain", "transfer", "distill")
METHODS_MAY = (
    "visrep.pretrain.method",
    "visrep.nn",
    "visrep.dist",
    "visrep.errors",
    "visrep.seeds",
)

# Parts of an entry that lie in a file of their own, or read yaml files as data.
READS_CONFIGURATIONS = (
    "visrep.engine.run",
    "visrep.d2.tasks",
    "visrep.pretrain.checks",
    "visrep.transfer.detection.parts",
    "visrep.transfer.frozen.opening",
)


def module_of(path: Path) -> str:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    if parts[-1] == "__init__":
        parts.pop()
    return ".".join(parts if parts[0] == "visrep" else ["visrep", *parts])


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
        others = [f"visrep.{other}" for other in STAGES if other != stage]
        sources = sorted((ROOT / stage).rglob("*.py"))
        assert not offenders(lambda _: False, lambda n, o=others: under(n, *o), sources)


def test_shared_package_imports_no_stage_and_no_tool():
    sources = [path for path in SOURCES if path.is_relative_to(ROOT / "visrep")]
    stages = [f"visrep.{stage}" for stage in STAGES]
    assert not offenders(
        lambda _: False, lambda name: under(name, *stages, "visrep.tools", "tests"), sources
    )


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
        lambda n: under(
            n, "visrep.nn.resnet", "visrep.data.views.batch", "visrep.data.builtin.scenes"
        ),
        engine,
    )


def test_a_method_imports_torch_nn_and_dist_only():
    methods = [path for path in (ROOT / "pretrain" / "methods").glob("*.py") if path.stat().st_size]
    assert methods
    assert not offenders(
        lambda _: False,
        lambda n: (
            under(n, "visrep", "hydra", "omegaconf")
            and n != "visrep"
            and not under(n, *METHODS_MAY)
        ),
        methods,
    )


def test_torch_distributed_appears_in_three_files():
    allowed = ("visrep.dist", "visrep.engine.parallel", "visrep.engine.snapshot")
    assert not offenders(
        lambda module: module in allowed, lambda name: under(name, "torch.distributed")
    )


def test_detectron2_appears_in_its_folder_and_its_engine_inside_functions():
    engine = "visrep.transfer.detection.engine_d2"
    assert not offenders(
        lambda module: under(module, "visrep.d2", engine), lambda name: under(name, "detectron2")
    )
    assert not offenders(
        lambda _: False, lambda name: under(name, "detectron2"), top_level_only=True
    )
    # A folder of that name on sys.path would be taken for Detectron2 itself.
    assert not list(ROOT.glob("*/detectron2")) and not (ROOT / "detectron2").exists()


def test_hydra_appears_in_the_command_line_and_its_configuration():
    assert not offenders(
        lambda module: module in ("visrep.config", "visrep.overrides"),
        lambda name: under(name, "hydra"),
    )


def test_a_configuration_is_read_by_entries_alone():
    """Below a command's module there is no `cfg`, only arguments."""
    entries = {module for module, _ in COMMANDS.values()}
    allowed = entries | {
        "visrep.cli",
        "visrep.config",
        "visrep.groups",
        "visrep.overrides",
        "visrep.values",
        *READS_CONFIGURATIONS,
    }
    assert not offenders(lambda module: module in allowed, lambda name: under(name, "omegaconf"))


def test_no_circle_of_imports():
    """None for type checking either: what two files need of one another is a third."""
    modules = {module_of(path): path for path in SOURCES}
    graph = {
        module: {name for name in imports(path) if name in modules and name != module}
        for module, path in modules.items()
    }
    for module in graph:  # `from package import module` is about the module
        graph[module] -= {name for name in graph[module] if modules[name].name == "__init__.py"}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        pytest.fail(" -> ".join(error.args[1]))


def test_nobody_imports_tools_or_tests():
    sources = [path for path in SOURCES if path.parts[len(ROOT.parts)] != "tools"]
    assert not offenders(lambda _: False, lambda n: under(n, "visrep.tools", "tests"), sources)


@pytest.mark.parametrize("word", ["utils", "misc", "common", "base", "manager"])
def test_no_drawer_for_odds_and_ends(word):
    assert not [path for path in SOURCES if word in path.stem.split("_")]
