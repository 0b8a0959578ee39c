"""The doctor: every kind of trouble is told apart, and only required parts fail the command."""

import importlib.metadata
import re
import sys
import tomllib
from itertools import chain
from pathlib import Path

import pytest
import torch
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.test_architecture import SOURCES, imports
from visrep import config
from visrep.errors import CheckFailed, ConfigError
from visrep.paths import config_dir
from visrep.tools import doctor

ROOT = Path(__file__).resolve().parents[2]


def run(*overrides: str) -> None:
    doctor.main(config.compose("doctor", overrides)[0])


def part(**changes: str) -> object:
    return doctor.Part(**{"name": "numpy", "module": "numpy", "remedy": "do this"} | changes)


def test_healthy_machine_passes_and_says_what_it_has(capsys):
    run()
    said = capsys.readouterr().out
    assert re.search(rf"ok  torch +{re.escape(torch.__version__.split('+')[0])}", said)
    assert "ok  torchvision ops" in said and "Everything required works" in said
    assert re.search(r"CPU +\d+ cores, torch uses 1 threads", said)
    assert "precision   auto means" in said
    assert "detection   norms over several processes are " in said
    assert "SyncBN; fp32, bf16, fp16" in doctor.detection_on(torch.device("cuda"))
    assert "naiveSyncBN; fp32 in Detectron2" in doctor.detection_on(torch.device("cpu"))


def least_versions(lines: list[str]) -> dict[str, str]:
    """Package -> version, of lines such as `hydra-core>=1.3`."""
    wanted = map(Requirement, lines)
    return {canonicalize_name(each.name): str(each.specifier).removeprefix(">=") for each in wanted}


def test_least_versions_are_those_of_the_package():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = {canonicalize_name(p.name): p.least for p in doctor.REQUIRED if p.least}
    assert required == least_versions(project["dependencies"])
    extras = project["optional-dependencies"]
    optional = {canonicalize_name(p.name): p.least for p in doctor.OPTIONAL if p.least}
    assert optional.items() <= least_versions([*chain(*extras.values())]).items()
    users = [name for name in extras if name != "dev"]
    assert optional.keys() >= least_versions([*chain(*(extras[n] for n in users))]).keys()


def test_every_package_that_a_command_imports_is_looked_at():
    """Imports within functions are found too; what the standard library has needs no doctor."""
    packages = {name.partition(".")[0] for path in SOURCES for name in imports(path)}
    looked_at = {p.module.partition(".")[0] for p in (*doctor.REQUIRED, *doctor.OPTIONAL)}
    assert packages - looked_at - sys.stdlib_module_names == {"visrep", "detectron2", "densepose"}


def test_the_settings_name_every_optional_part():
    text = (config_dir() / "doctor.yaml").read_text()
    for name in ("detectron2", "gpu", *(part.name for part in doctor.OPTIONAL)):
        assert re.search(rf"[ #]{name}\b", text), name


def test_found():
    found = doctor.examine(part(least="1.0"))
    assert found.found == importlib.metadata.version("numpy") and not found.problem


def test_missing_names_the_remedy_and_what_is_lost():
    found = doctor.examine(part(name="x", module="no_such_module_here", without="no visrep export"))
    assert found.found == "missing" and "do this" in found.problem
    assert "no visrep export" in found.problem


def test_too_old():
    found = doctor.examine(part(least="999"))
    assert "too old, 999 is needed: do this" in found.problem


@pytest.mark.parametrize(
    ("body", "said"),
    [("import no_such_part", "needs no_such_part"), ("raise OSError('bad elf')", "bad elf")],
)
def test_there_but_broken(tmp_path, monkeypatch, body, said):
    (tmp_path / "broken_thing.py").write_text(body)
    monkeypatch.syspath_prepend(tmp_path)
    found = doctor.examine(part(name="broken-thing", module="broken_thing"))
    assert found.found == "broken" and said in found.problem and "do this" in found.problem


@pytest.mark.parametrize(
    ("found", "least", "older"),
    [
        ("2.11", "2.11", False),
        ("2.9.1", "2.11", True),
        ("2.12.0a0+cpu", "2.12", False),
        ("0.1.5.post20221221", "0.1.5", False),
        ("odd", "1", False),
    ],
)
def test_versions_are_compared_as_versions(found, least, older):
    assert doctor.older(found, least) is older


def test_a_broken_required_part_fails_the_command(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "REQUIRED", [part(name="gone", module="no_such_module_here")])
    with pytest.raises(CheckFailed, match=r"gone: not installed: do this") as caught:
        run()
    assert caught.value.exit_code == 3
    assert "--  gone" in capsys.readouterr().out


def test_an_optional_part_fails_only_where_it_is_required(monkeypatch, capsys):
    monkeypatch.setattr(doctor, "OPTIONAL", [part(name="extra", module="no_such_module_here")])
    run()
    assert "Not here: " in capsys.readouterr().out
    with pytest.raises(CheckFailed, match="extra"):
        run("require=[extra]")
    with pytest.raises(ConfigError, match="choose from detectron2, extra, gpu"):
        run("require=[extraa]")


def test_detectron2_is_asked_for_its_compiled_part(monkeypatch):
    monkeypatch.setattr("visrep.d2.installed.version", lambda: (None, "its _C cannot be imported"))
    found = doctor.detectron2()
    assert "_C cannot be imported" in found.problem
    assert doctor.INSTALL in found.problem and "engine=auto" in found.problem


def test_detectron2_cannot_even_be_looked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "visrep.d2.installed", None)
    monkeypatch.delattr("visrep.d2.installed", raising=False)
    assert "cannot look for it" in doctor.detectron2().problem


def test_a_cache_that_cannot_be_written_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "new" / "below"))
    assert not [finding for finding in doctor.working() if finding.problem]
    monkeypatch.setattr("os.access", lambda path, mode: path != tmp_path)
    (found,) = [finding for finding in doctor.working() if finding.problem]
    assert found.name == "cache folder" and "VISREP_CACHE" in found.problem
    assert str(tmp_path) in found.problem
