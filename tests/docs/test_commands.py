"""Every command line of the README, the tutorials and the pages beside them is one that visrep
takes."""

import importlib.util
import shlex
from pathlib import Path

import pytest
from PIL import Image

from tests.docs.pages import ROOT, read
from visrep import cli

PAGES = ["README.md", "docs/your-own-data.md", "docs/long-runs.md", "docs/detectron2.md"]
PAGES += sorted(f"docs/tutorials/{p.name}" for p in ROOT.glob("docs/tutorials/*.md"))
LINES = [(page, shlex.join(command)) for page in PAGES for command in read(page).commands]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the pages call photos/ and labels.txt: two classes of a picture each."""
    names = []
    for part in ("train", "test"):
        for name in ("cat", "dog"):
            place = tmp_path / "photos" / part / name
            place.mkdir(parents=True)
            Image.new("RGB", (32, 32)).save(place / "1.png")
            names += [f"{name}/1.png"] if part == "train" else []
    (tmp_path / "labels.txt").write_text("\n".join(names))
    (tmp_path / "imagenet").symlink_to("photos")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_each_page_has_commands() -> None:
    assert {page for page, _ in LINES} == set(PAGES) and len(PAGES) == 7


@pytest.mark.parametrize(("page", "line"), LINES)
def test_a_command_is_taken(page: str, line: str, folder: Path, capsys) -> None:
    if page == "docs/detectron2.md" and importlib.util.find_spec("detectron2") is None:
        pytest.skip("Detectron2 is not installed")
    with pytest.raises(SystemExit) as done:
        cli.main([*shlex.split(line), "--dry-run"])
    assert done.value.code in (0, None), capsys.readouterr().err
