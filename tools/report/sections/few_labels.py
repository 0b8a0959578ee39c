"""Finetuned nets as a table: a line for each net, a column for each labels and selector."""

from markupsafe import Markup

from visrep.results import Record
from visrep.tools.report.nets import cells, differing, nets, stated
from visrep.tools.report.rows import Spread
from visrep.tools.report.section import Context
from visrep.tools.report.words import init, joined, metric, share

TITLE = "Few labels: nets by labels and selector"
ORDER = 15


def render(context: Context) -> Markup | None:
    """The table; None where there is one column at most."""
    of = nets(context.runs)
    nets_of: dict[tuple[str, ...], list[Record]] = {}
    for record in context.runs.records:
        if record.task == "finetune":
            for net in of(record):
                which = net.name, net.key, record.init, record.dataset, record.metric
                nets_of.setdefault(which, []).append(record)
    columns = sorted({_column(record) for records in nets_of.values() for record in records})
    if len(columns) < 2:
        return None
    measures = {joined(dataset, metric(measured)) for *_, dataset, measured in nets_of}
    common = measures.pop() if len(measures) == 1 else ""
    lines: dict[str, dict[tuple, Spread | None]] = {}
    for (name, _, start, dataset, measured), records in nets_of.items():
        for setting, of_setting in _by_recipe(records).items():
            line = {
                column: Spread.of(record for record in of_setting if _column(record) == column)
                for column in columns
            }
            where = "" if common else joined(dataset, metric(measured))
            lines[joined(name, init(start), where, setting)] = line
    heads = [f"Net; {common}, %" if common else "Net, %"]
    heads += [f"{share(labels)}, selector {selector}" for _, labels, selector in columns]
    return context.fill(
        "few_labels.html", heads=heads, columns=columns, lines=dict(sorted(lines.items()))
    )


def _column(record: Record) -> tuple[str, float | str, int]:
    """Share of the labels (or list) and selector; shares come first, in their order."""
    labels = record.extra.get("labels", 1.0)
    selector = int(record.extra.get("selector", record.config.get("selector") or 0))
    number = f"{labels:012.9f}" if isinstance(labels, int | float) else f"~{labels}"
    return number, labels, selector


def _by_recipe(records: list[Record]) -> dict[str, list[Record]]:
    """Records of a net apart by recipe, which is what differs within one column."""
    by_column: dict[tuple, list[Record]] = {}
    for record in records:
        by_column.setdefault(_column(record), []).append(record)
    keys = sorted(
        {
            key
            for column in by_column.values()
            for key in differing(cell[0].config for cell in cells(column))
        }
    )
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(stated(record.config, keys), []).append(record)
    return found
