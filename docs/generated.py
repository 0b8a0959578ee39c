"""Pages that are made when the site is built: one per command, and the published numbers.

They are made from the yaml files, so that they cannot say something else than the code; nothing of
them is committed.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from visrep import groups
from visrep.cli import COMMANDS, config_name
from visrep.paths import config_dir

KEY = re.compile(r"( *)([\w.]+):(?: +([^#\s].*?))?(?: +# *(.*))?")
LONG = 6  # choices; more are shown folded
# What the settings of every command mean, where its own yaml says nothing.
SHARED = {
    "out": "run folder",
    "seed": "of everything that is random",
    "device": "auto, cpu or cuda",
    "threads": "CPU threads; null = torch's choice",
    "workers": "processes that decode images",
    "resume": "never, auto or must: go on from the last snapshot",
    "overwrite": "true replaces what is in `out=`",
    "log_every": "updates",
}


@dataclass
class Settings:
    """What a yaml says: `prose` and `examples` of its head, rows of (key, value, text)."""

    prose: list[str] = field(default_factory=list)
    examples: list[str] = field(default_factory=list)
    rows: list[list[str]] = field(default_factory=list)


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put the pages of the commands into the navigation."""
    pages = ["commands/index.md", *(f"commands/{name}.md" for name in COMMANDS)]
    for section in config.nav or []:
        if "Commands" in section:
            section["Commands"] = pages
    return config


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of the folder."""
    pages = {"commands/index.md": overview(), "published.md": published()}
    pages |= {f"commands/{name}.md": command(name) for name in COMMANDS}
    for path, text in pages.items():
        files.append(File.generated(config, path, content=text))
    return files


def overview() -> str:
    """All commands, and what holds for each of them."""
    lines = ["# Commands", "", "| command | what it does |", "|---|---|"]
    lines += [f"| [`{name}`]({name}.md) | {text} |" for name, (_, text) in COMMANDS.items()]
    return "\n".join([*lines, "", Path(__file__).with_name("commands.md.in").read_text()])


def command(name: str) -> str:
    """The page of one command: purpose, examples, settings, choices."""
    settings = read(config_dir() / f"{config_name(name)}.yaml")
    lines = [f"# {name}", "", f"`visrep {name}`: {COMMANDS[name][1]}.", ""]
    if settings.examples:
        lines += ["```bash", *settings.examples, "```", ""]
    lines += [" ".join(settings.prose), ""]
    if settings.rows:
        lines += ["## Settings", "", "| key | default | meaning |", "|---|---|---|"]
        lines += [f"| `{key}` | {value} | {escape(text)} |" for key, value, text in settings.rows]
        lines += [
            "",
            "`required` has no default. `null` is computed, or off, as its line says.",
            "",
        ]
    chosen = groups.groups_of(config_name(name))
    if chosen:
        lines += ["## Choices", ""]
    for group, names in chosen.items():
        rows = ["| choice | what it is |", "|---|---|"]
        rows += [f"| `{choice}` | {escape(about(group, choice))} |" for choice in names]
        if len(names) > LONG:
            rows = [f'??? note "`{group}=` one of {len(names)}"', "", *(f"    {r}" for r in rows)]
        else:
            rows = [f"`{group}=`", "", *rows]
        lines += [*rows, ""]
    return "\n".join(lines)


def read(path: Path) -> Settings:
    """The head, the keys and the comments of a command's yaml."""
    found = Settings()
    lines = path.read_text(encoding="utf-8").splitlines()
    head = [line for line in lines[: first_key(lines)] if not line.startswith("# @package")]
    text = re.sub(r" \\\n +", " ", "\n".join(line.removeprefix("# ") for line in head))
    for line in text.splitlines():
        is_command = line.startswith(("visrep ", "torchrun "))
        (found.examples if is_command else found.prose).append(re.sub(r" {2,}", "  # ", line))
    parents: list[tuple[int, str]] = []
    for line in lines[first_key(lines) :]:
        match = KEY.fullmatch(line)
        if match is None:
            continued(found.rows, line)
            continue
        indent, key, value, text = len(match[1]), match[2], match[3] or "", match[4] or ""
        parents = [parent for parent in parents if parent[0] < indent]
        path_of_key = ".".join([*(name for _, name in parents), key])
        if path_of_key == "defaults" or path_of_key.startswith("defaults."):
            continue
        if value:
            found.rows.append([path_of_key, shown(value), text or SHARED.get(path_of_key, "")])
        else:
            parents.append((indent, key))
            if text:
                found.rows.append([path_of_key, "", text])
    return found


def continued(rows: list[list[str]], line: str) -> None:
    """A line that is no key goes on with the comment, or the list, of the key before it."""
    if not rows or not line.strip():
        return
    value, _, text = line.strip().partition("#")
    if value.strip():
        rows[-1][1] = f"{rows[-1][1]} {shown(value.strip())}".strip()
    rows[-1][2] = f"{rows[-1][2]} {text.strip()}".strip()


def first_key(lines: list[str]) -> int:
    """The number of lines of comments at the top."""
    return next((i for i, line in enumerate(lines) if line and line[0] != "#"), len(lines))


def shown(value: str) -> str:
    """A default as it stands in the table."""
    return "required" if value == "???" else f"`{value}`".replace("|", r"\|")


def escape(text: str) -> str:
    """`text` within a cell: a bar would end it, and angle brackets would be taken for HTML."""
    return text.replace("|", r"\|").replace("<", "&lt;").replace("*", r"\*")


def about(group: str, choice: str) -> str:
    """The first sentence of what a choice's file says of itself."""
    path = config_dir() / group / f"{choice}.yaml"
    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    if content.get("published"):
        first = content["published"][0]
        return f"{first['weights']}: {first['metric']} {first['value']} ({first['source']})"
    if "about" in content:
        return str(content["about"])
    prose = " ".join(read(path).prose)
    sentence = re.split(r"(?<=[.:;]) (?=[A-Z])", prose, maxsplit=1)[0]
    return sentence.rstrip(".:;")


def published() -> str:
    """Every published number that a configuration of ours aims at."""
    text = Path(__file__).with_name("published.md.in").read_text(encoding="utf-8")
    runs = [row("`paper=`", "of", "top-1, %", "measured by", "source"), "|---|---|---|---|---|"]
    for name, content in files_of("paper"):
        for n in content["published"]:
            measured = f"{n['task']} on {n['dataset']}"
            runs.append(row(f"`{name}`", n["weights"], n["value"], measured, cited(n)))
    tasks = []
    for name, content in files_of("task"):
        if content.get("published"):
            tasks += [
                f"### {name}",
                "",
                f"{content['about']}.",
                "",
                *pivot(content["published"]),
                "",
            ]
    text = text.replace("<!-- paper -->", "\n".join(runs))
    return text.replace("<!-- task -->", "\n".join(tasks))


def pivot(numbers: list[dict[str, Any]]) -> list[str]:
    """A row for each weights and source, a column for each metric."""
    metrics = list(dict.fromkeys(number["metric"] for number in numbers))
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number in numbers:
        rows.setdefault((number["weights"], cited(number)), {})[number["metric"]] = number["value"]
    lines = [row("weights", *metrics, "source"), "|---" * (len(metrics) + 2) + "|"]
    return lines + [
        row(weights, *(values.get(metric, "") for metric in metrics), source)
        for (weights, source), values in rows.items()
    ]


def cited(number: dict[str, Any]) -> str:
    """The source of a published number, and the runs behind it where that is known."""
    return number["source"] + (f", {number['runs']} runs" if number["runs"] else "")


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(escape(str(cell)) for cell in cells)} |"


def files_of(group: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and content of each yaml file of a group."""
    for name in groups.choices(group):
        path = config_dir() / group / f"{name}.yaml"
        yield name, yaml.safe_load(path.read_text(encoding="utf-8")) or {}
