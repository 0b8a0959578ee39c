"""Loss and kNN of the pretraining, then the losses of all other runs, folded away."""

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from visrep.tools.report import charts
from visrep.tools.report.runs import Folder
from visrep.tools.report.section import Context
from visrep.tools.report.words import INITS, capital, init, task

TITLE = "Training"
ORDER = 40


def render(context: Context) -> Markup | None:
    """Charts of the runs' metrics.jsonl."""
    levels = {
        INITS[kind]: spread.mean
        for row in context.rows
        if (row.task, row.metric) == ("knn", "top1")
        for kind in ("raw_pixels", "random")
        if (spread := row.spread(kind))
    }
    own = [folder for folder in context.runs.folders if folder.pretraining]
    main = [
        _chart(own, "loss", title="Pretraining loss", y_label="loss", levels={}),
        _chart(own, "knn", title="kNN during pretraining", y_label="top-1, %", levels=levels),
    ]
    others: dict[str, list[Folder]] = {}
    for folder in context.runs.folders:
        if folder.task != "pretrain":
            others.setdefault(folder.task, []).append(folder)
    rest = [
        _chart(them, "loss", title=f"{capital(task(name))} loss", y_label="loss", levels={})
        for name, them in others.items()
    ]
    drawn = {"main": list(filter(None, main)), "rest": list(filter(None, rest))}
    return context.fill("training.html", **drawn, frame=charts)


def _chart(folders: Sequence[Folder], metric: str, **options: Any) -> charts.Chart | None:
    """The chart of `metric` in all `folders`; None where none has two points of it."""
    series = [
        charts.Series(
            name=folder.name if folder.pretraining else init(folder.init),
            points=points,
            kind=folder.init,
        )
        for folder in folders
        if len(points := folder.points(metric)) > 1
    ]
    return charts.chart(series, **options) if series else None
