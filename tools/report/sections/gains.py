"""Random init against pretrained: what has both sides; rarer metrics and the rest folded away."""

from markupsafe import Markup

from visrep.tools.report.rows import Row
from visrep.tools.report.section import Context
from visrep.tools.report.words import joined

TITLE = "Random init against pretrained"
ORDER = 10
MAIN_METRICS = (
    *("top1", "mIoU", "keypoint_AP50", "keypoint_AP"),
    *("AP50", "AP", "AP75", "mask_AP50", "mask_AP"),
)


def render(context: Context) -> Markup | None:
    """The chain's table with its footnotes."""
    compared = any(row.gain is not None for row in context.rows)
    main = [
        row
        for row in context.rows
        if row.metric in MAIN_METRICS and (row.gain is not None or not compared)
    ]
    rest = [row for row in context.rows if row not in main]
    tables = [main, rest] if main else [rest]
    notes = list(dict.fromkeys(note for row in (*main, *rest) for note in row.notes))
    return context.fill("gains.html", tables=tables, notes=notes, circumstances=circumstances)


def circumstances(row: Row) -> str:
    """Where a row was measured and how: data, engine, form of the metric, what tells it apart."""
    first = next(iter(row.sides.values()))[0]
    engine = "" if row.engine == "visrep" else row.engine
    form = "" if "area" in row.metric else first.extra.get("form")
    pixels = row.spread("raw_pixels")
    reference = f"raw pixels, no net: {pixels.mean:.1f}" if pixels else ""
    return joined(row.dataset, engine, form, row.chain, row.setting, reference)
