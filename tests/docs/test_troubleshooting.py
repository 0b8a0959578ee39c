"""Every message that docs/troubleshooting.md explains is one that the code can say."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HEADINGS = re.findall(
    r"^### `(.+)`$", (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8"), re.M
)


def texts() -> set[str]:
    """All texts in the code, with a sign for each value that is put in."""
    folders = ("pretrain", "transfer", "distill", "tools", "visrep")
    found = set()
    for path in {p.resolve() for folder in folders for p in (ROOT / folder).rglob("*.py")}:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr):
                found.add(
                    "".join(
                        str(getattr(v, "value", "")) if isinstance(v, ast.Constant) else "…"
                        for v in node.values
                    )
                )
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.add(node.value)
    return found


TEXTS = texts()


def test_there_are_messages() -> None:
    assert len(HEADINGS) > 25


@pytest.mark.parametrize("heading", HEADINGS)
def test_the_message_is_in_the_code(heading: str) -> None:
    # Values may stand for parts of a text that are put together elsewhere.
    pattern = re.compile(".*".join(map(re.escape, heading.split("…"))), re.S)
    assert any(pattern.search(text) for text in TEXTS)
