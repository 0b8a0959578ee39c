"""The documentation builds without a warning, needs no network, and has a page per command."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.pages import ROOT
from visrep.cli import COMMANDS

pytest.importorskip("mkdocs", reason="the documentation is built by mkdocs (the dev extra)")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        (sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


def test_each_command_has_a_page_with_its_settings(site: Path) -> None:
    for name in COMMANDS:
        assert f"visrep {name}" in (site / "commands" / f"{name}.html").read_text(encoding="utf-8")
    page = (site / "commands" / "pretrain.html").read_text(encoding="utf-8")
    row = re.search(r"<td><code>accumulate</code></td>\s*<td><code>1</code></td>", page)
    assert row is not None and "simclr_v2_r152_3x_sk" in page


def test_published_numbers_come_from_the_configurations(site: Path) -> None:
    page = (site / "published.html").read_text(encoding="utf-8")
    assert re.search(r"moco_v2_800ep</code></td>.{,99}<td>71.1</td>", page, re.S)


def test_a_page_loads_nothing_from_elsewhere(site: Path) -> None:
    for path in site.rglob("*.html"):
        text = path.read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|img|iframe)[^>]+src="(?:https?:)?//[^"]+', text)
        assert not re.findall(r'<link[^>]+rel="stylesheet"[^>]+href="(?:https?:)?//[^"]+', text)


def test_no_page_is_left_over(site: Path) -> None:
    pages = {path.relative_to(site).as_posix() for path in site.rglob("*.html")}
    assert not [page for page in pages if page.startswith("examples/")]
    linked = set(re.findall(r'href="([\w./-]+\.html)', (site / "index.html").read_text("utf-8")))
    assert pages - {"404.html"} <= linked | {"index.html"}


def test_what_people_import_is_on_the_page_of_the_api(site: Path) -> None:
    page = (site / "api.html").read_text(encoding="utf-8")
    public = re.findall(r"from (\S+) import (\w+)", (ROOT / "visrep" / "__init__.pyi").read_text())
    assert ("visrep.weights.reading", "load_encoder") in public
    assert [name for module, name in public if f'id="{module}.{name}"' not in page] == []
