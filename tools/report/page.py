"""The report's page: heading, sections in order, credits; no network, no script."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from markupsafe import Markup

from visrep import __version__
from visrep.data.builtin.digits import CREDITS
from visrep.errors import ConfigError
from visrep.tools.report import section
from visrep.tools.report.pairs import pairs
from visrep.tools.report.rows import rows
from visrep.tools.report.runs import Folder, Runs
from visrep.tools.report.words import backbone, joined, listed

MARK = Markup('<meta name="generator" content="visrep report">')


def page(runs: Runs, *, title: str | None, images: int, min_score: float) -> str:
    """The whole page as HTML.

    Args:
        runs: what to show; `notes` grows by what turns out to be unreadable.
        title: the heading; None = which method on which data.
        images: test images and neighbour queries shown at most.
        min_score: lowest score of a box that is drawn, 0 to 1.

    Raises:
        ConfigError: a section breaks its contract; the message names it.
    """
    context = section.Context(
        runs=runs, rows=rows(runs), pairs=pairs(runs), images=images, min_score=min_score
    )
    bodies = list(_sections(context))
    return context.fill(
        "page.html",
        mark=MARK,
        title=title or _title(runs),
        about=_about(runs),
        sections=bodies,
        footer=list(_footer(runs)),  # after the sections, which note what they could not read
    )


def _sections(context: section.Context) -> Iterator[tuple[str, Markup]]:
    for module in section.found():
        body = module.render(replace(context, folder=Path(str(module.__file__)).parent))
        if isinstance(body, Markup):
            yield module.TITLE, body
        elif body is not None:
            raise ConfigError(
                f"report section {module.__name__}: render returns {type(body).__name__}; it must "
                "be what context.fill(template, ...) returns, or None"
            )


def _pretraining(runs: Runs) -> list[Folder]:
    return [folder for folder in runs.folders if folder.pretraining and folder.records]


def _title(runs: Runs) -> str:
    found = _pretraining(runs)
    if not found:
        return f"Results in {runs.root.resolve().name}"
    data = listed(folder.records[0].dataset.partition("/")[0] for folder in found)
    return f"{listed(folder.title for folder in found)} on {data}"


def _about(runs: Runs) -> str:
    """What was run, where it is and when it was."""
    backbones = listed(backbone(folder.config.get("backbone")) for folder in _pretraining(runs))
    times = sorted(record.time[:16].replace("T", " ") for record in runs.records)
    first, last = times[0], times[-1]
    end = last[11:] if first[:10] == last[:10] else last
    when = first if first == last else f"{first} to {end}"
    folders = sum(bool(folder.records) for folder in runs.folders)
    return joined(backbones, f"{folders} runs in {runs.root}", f"{when} UTC")


def _footer(runs: Runs) -> Iterator[str]:
    if any(record.dataset.split("/")[0] == "scenes" for record in runs.records):
        yield CREDITS
    environments = (folder.path / "env.txt" for folder in runs.folders)
    for path in list(filter(Path.exists, environments))[:1]:
        yield joined(*path.read_text(errors="replace").splitlines())
    if runs.notes:
        yield "Left out: " + " ".join(dict.fromkeys(runs.notes))
    yield f"Written by visrep {__version__}."
