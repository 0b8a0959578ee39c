"""Augmented views: `views.png` of `visrep views`."""

from markupsafe import Markup

from visrep.data.images import BrokenImage
from visrep.tools.report.images import embedded
from visrep.tools.report.section import Context

TITLE = "Augmented views"
ORDER = 50


def render(context: Context) -> Markup | None:
    """Every views.png, each once."""
    shown: dict[str, str] = {}
    for folder in context.runs.folders:
        try:
            if (folder.path / "views.png").exists():
                shown.setdefault(embedded(folder.path / "views.png", "png"), folder.name)
        except BrokenImage as error:
            context.runs.notes.append(f"{error}.")
    return context.fill("views.html", pictures=shown)
