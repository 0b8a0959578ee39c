"""Nearest neighbours: `neighbours.json` of `visrep knn`.

The file is `{"dataset", "bank", "queries": [{"image": PNG in base64, "label", "neighbours":
[{"image", "label", "similarity"}]}]}`, nearest first.
"""

from typing import Any

from markupsafe import Markup

from visrep.tools.report.images import encoded_png
from visrep.tools.report.section import Context

TITLE = "Nearest neighbours"
ORDER = 70


def render(context: Context) -> Markup | None:
    """The nearest images of a few test images, from pretrained and from random weights."""

    def read(content: dict[str, Any]) -> Markup:
        return context.fill("neighbours_of_one.html", content=content, png=encoded_png)

    return context.fill("neighbours.html", panels=context.runs.read_each("neighbours.json", read))
