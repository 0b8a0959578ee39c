"""Key results: the gain in large, what it comes from as bars."""

from markupsafe import Markup

from visrep.tools.report.rows import Row
from visrep.tools.report.section import Context

TITLE = ""
ORDER = 0
METRICS = ("top1", "mIoU", "keypoint_AP50", "AP50", "mask_AP50")


def render(context: Context) -> Markup | None:
    """One card per measure that has a pretrained side, one for the first student."""
    rows: dict[tuple, Row] = {}
    for row in context.rows:
        if row.metric in METRICS and "pretrained" in row.sides:
            rows.setdefault((row.task, row.labels), row)
    pairs = [(p.teacher, p.student) for p in context.pairs[:1] if p.teacher.top1 and p.student.top1]
    if not rows and not pairs:
        return None
    return context.fill("headline.html", rows=rows.values(), pairs=pairs)
