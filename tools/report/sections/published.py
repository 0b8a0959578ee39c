"""Published numbers beside ours, each with its source.

They are the key `published` of a run's configuration, which configs/task/ (of `detect`) and
configs/paper/ (of `pretrain`) bring: a list of `{metric, value, weights, source, runs}`. Those of a
pretraining also name `task` and `dataset`, and stand beside what was measured so on its encoder.
"""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from markupsafe import Markup

from visrep.results import Record
from visrep.tools.report.rows import Spread
from visrep.tools.report.runs import Runs
from visrep.tools.report.section import Context
from visrep.tools.report.words import init, joined, task

TITLE = "Published beside measured"
ORDER = 20


@dataclass(kw_only=True)
class Comparison:
    """One measurement: what was published of it, and our records of it.

    Attributes:
        about: what the published numbers are of, in words; may be empty.
        published: (weights, source) -> metric -> value.
        ours: whose weights -> metric -> records.
    """

    about: str
    published: dict[tuple[str, str], dict[str, float]]
    ours: dict[str, dict[str, list[Record]]] = field(default_factory=dict)

    @property
    def metrics(self) -> list[str]:
        """The published metrics, in the order of the list."""
        return list(dict.fromkeys(name for line in self.published.values() for name in line))

    def spread(self, whose: str, metric: str) -> Spread | None:
        """Mean and range of ours."""
        return Spread.of(self.ours[whose].get(metric, []))


def render(context: Context) -> Markup | None:
    """One table per measurement; None where no run names a published number."""
    found: dict[str, Comparison] = {}
    for name, about, entries, records in _lists(context.runs):
        try:
            published = _published(entries)
        except (KeyError, TypeError, ValueError, AttributeError):
            context.runs.notes.append(f"The published numbers of {name} cannot be read.")
            continue
        comparison = found.setdefault(name, Comparison(about=about, published=published))
        for record in records:
            ours = comparison.ours.setdefault(_whose(context.runs, record), {})
            ours.setdefault(record.metric, []).append(record)
    return context.fill("published.html", found=found) if found else None


def _lists(runs: Runs) -> Iterator[tuple[str, str, list[dict[str, Any]], list[Record]]]:
    """(measurement, about, published entries, our records) of every record and pretraining."""
    for record in runs.records:
        entries = record.config.get("published")
        if entries and record.task != "pretrain":
            name = joined(record.config.get("task"), task(record.task), record.dataset)
            yield name, str(record.config.get("about") or ""), entries, [record]
    for folder in runs.folders:
        kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for entry in folder.config.get("published") or [] if folder.pretraining else []:
            kinds.setdefault((str(entry.get("task")), str(entry.get("dataset"))), []).append(entry)
        for (kind, dataset), entries in kinds.items():
            records = [
                record
                for record in runs.records
                if (record.task, _plain(record.dataset)) == (kind, _plain(dataset))
                and runs.origin(record) is folder
            ]
            yield joined(folder.title, task(kind), dataset), "", entries, records


def _published(entries: list[dict[str, Any]]) -> dict[tuple[str, str], dict[str, float]]:
    lines: dict[tuple[str, str], dict[str, float]] = {}
    for entry in entries:
        runs = entry.get("runs")
        number = f"{runs} run{'s' * (runs != 1)}" if runs else "number of runs not stated"
        line = lines.setdefault((str(entry["weights"]), f"{entry['source']}; {number}"), {})
        line[str(entry["metric"])] = float(entry["value"])
    return lines


def _plain(dataset: str) -> str:
    """A data set's name without its split and its spelling: of "ImageNet" and "imagenet/val"."""
    return "".join(filter(str.isalnum, dataset.partition("/")[0].lower()))


def _whose(runs: Runs, record: Record) -> str:
    """Which pretraining's weights were measured, or which initialisation."""
    origin = runs.origin(record) if record.init == "pretrained" else None
    return origin.title if origin and origin.pretraining else init(record.init)
