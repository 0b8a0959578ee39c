"""Detection from few labels: AP over the share of labelled images, pretrained against random."""

from markupsafe import Markup

from visrep.results import Record
from visrep.tools.report import charts
from visrep.tools.report.nets import differing, stated
from visrep.tools.report.rows import Row
from visrep.tools.report.section import Context
from visrep.tools.report.words import INITS, joined, metric, task

TITLE = "Few labels: detection"
ORDER = 16
METRICS = ("AP", "coco_AP", "mask_AP")


def render(context: Context) -> Markup | None:
    """A chart of each metric, net and engine; None where all was trained on one share."""
    measures: dict[tuple[str, ...], list[Row]] = {}
    for row in context.rows:
        if row.task in ("detection", "instance") and row.metric in METRICS:
            measure = row.task, row.metric, row.dataset, row.engine, row.chain
            measures.setdefault(measure, []).append(row)
    found: dict[tuple[str, ...], list[Row]] = {}
    for named, rows in measures.items():
        # Over all shares: a row's own `setting` tells it from those of its share alone.
        keys = differing(_first(row).config for row in rows)
        for row in rows:
            found.setdefault((*named, stated(_first(row).config, keys)), []).append(row)
    drawn = [
        charts.chart(
            series,
            title=joined(task(which[0]), metric(which[1]), *which[2:]),
            y_label=f"{metric(which[1])}, %",
            x_label="labelled images, %",
            levels={},
            logarithmic=True,
        )
        for which, rows in found.items()
        if len({_share(row) for row in rows}) > 1 and (series := _series(rows))
    ]
    return context.fill("few_boxes.html", charts=drawn, frame=charts) if drawn else None


def _series(rows: list[Row]) -> list[charts.Series]:
    """A curve of each initialisation that was measured at two shares or more."""
    series = []
    for kind in ("random", "pretrained"):
        spreads = {_share(row): spread for row in rows if (spread := row.spread(kind))}
        if len(spreads) > 1:
            shares = sorted(spreads)
            points = [(share, spreads[share].mean) for share in shares]
            off = [spreads[share].deviation for share in shares]
            series.append(charts.Series(name=INITS[kind], points=points, kind=kind, deviations=off))
    return series


def _share(row: Row) -> float:
    """Labelled images in percent of those that there are."""
    return 100 * float(_first(row).extra.get("share", 1.0))


def _first(row: Row) -> Record:
    return next(iter(row.sides.values()))[0]
