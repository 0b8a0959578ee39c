"""Teacher against student: accuracy, parameters, sizes, latency."""

from markupsafe import Markup

from visrep.tools.report.section import Context

TITLE = "Teacher against student"
ORDER = 30


def render(context: Context) -> Markup | None:
    """One table per kind of distillation."""
    return context.fill("students.html")
