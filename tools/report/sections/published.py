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
from visrep.tools.report.nets import Net, cells, differing, nets, stated
from visrep.tools.report.rows import Spread
from visrep.tools.report.runs import Runs
from visrep.tools.report.section import Context
from visrep.tools.report.words import init, joined, share, task

TITLE = "Published beside measured"
ORDER = 20


@dataclass(kw_only=True)
class Comparison:
    """One measurement: what was published of it, and our records of it.

    Attributes:
        published: (weights, source) -> metric -> value.
        records: all of ours.
        ours: whose weights, with which settings -> metric -> records, of one cell.
    """

    published: dict[tuple[str, str], dict[str, float]]
    records: list[Record] = field(default_factory=list)
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
    found: dict[tuple[str, str], Comparison] = {}
    for name, about, entries, records in _lists(context.runs):
        try:
            published = _published(entries)
        except (KeyError, TypeError, ValueError, AttributeError):
            context.runs.notes.append(f"The published numbers of {name} cannot be read.")
            continue
        comparison = found.setdefault((name, about), Comparison(published=published))
        comparison.records += records
    for comparison in found.values():
        for metric in comparison.metrics:
            of_metric = [record for record in comparison.records if record.metric == metric]
            for whose, cell in _by_name(of_metric, context.runs).items():
                comparison.ours.setdefault(whose, {})[metric] = cell
    return context.fill("published.html", found=found) if found else None


def _lists(runs: Runs) -> Iterator[tuple[str, str, list[dict[str, Any]], list[Record]]]:
    """(measurement, about, published entries, our records) of every record and pretraining.

    `about` is what a task says of itself, or the run that pretrained.
    """
    for record in runs.records:
        entries = record.config.get("published")
        if entries and record.task != "pretrain":
            name = joined(record.config.get("task"), task(record.task), record.dataset)
            yield name, str(record.config.get("about") or ""), entries, [record]
    for folder in runs.folders:
        kinds: dict[tuple[str, str], list[dict[str, Any]]] = {}
        for entry in folder.config.get("published") or [] if folder.pretraining else []:
            known = entry if isinstance(entry, dict) else {}
            kinds.setdefault((str(known.get("task")), str(known.get("dataset"))), []).append(entry)
        for (kind, dataset), entries in kinds.items():
            records = [
                record
                for record in runs.records
                if (record.task, _plain(record.dataset)) == (kind, _plain(dataset))
                and runs.origin(record) is folder
            ]
            yield joined(folder.title, task(kind), dataset), folder.name, entries, records


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


def _by_name(records: list[Record], runs: Runs) -> dict[str, list[Record]]:
    """Records in cells, by what tells one from another: net, labels, settings where they vary."""
    of = nets(runs)
    groups: dict[tuple[str, Net, str], list[Record]] = {}
    for record in records:
        labels = record.extra.get("labels")
        said = "" if labels is None else f"{share(labels)} of labels"
        for net in of(record):
            groups.setdefault((record.init, net, said), []).append(record)
    found = {(start, net) for start, net, _ in groups}
    several = {start for start, _ in found if sum(start == other for other, _ in found) > 1}
    shares = {said for _, _, said in groups}
    made: dict[str, list[Record]] = {}
    for (start, net, said), members in groups.items():
        known = start == "pretrained" and runs.origin(members[0]) is not None
        words = [net.name] if known or start in several else []
        words += [] if known else [init(start)]
        words += [said] if len(shares) > 1 else []
        parts = cells(members)
        keys = differing(part[0].config for part in parts)
        for part in parts:
            made[", ".join(filter(None, (*words, stated(part[0].config, keys))))] = part
    return made
