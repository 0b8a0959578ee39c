"""What the pages show as code: files to write and command lines to type."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r'^```(\w+)(?: title="([^"]+)")?\n(.*?)^```$', re.M | re.S)


@dataclass
class Page:
    """The code blocks of a page: `files`, name -> text, and `commands` without `visrep`."""

    files: dict[str, str]
    commands: list[list[str]]


def read(name: str) -> Page:
    """The page `name`, relative to the root of the repository."""
    page = Page({}, [])
    for language, title, text in BLOCK.findall((ROOT / name).read_text(encoding="utf-8")):
        if title:
            page.files[title] = text
        elif language == "bash":
            lines = (shlex.split(line, comments=True) for line in text.splitlines())
            page.commands += [line[1:] for line in lines if line[:1] == ["visrep"]]
    return page


def write(files: dict[str, str], folder: Path) -> None:
    """Put the files of a page into `folder`."""
    for name, text in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
