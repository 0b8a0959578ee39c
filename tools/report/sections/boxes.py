"""Boxes on test images: `predictions.json` of `visrep detect`.

The file is `{"dataset", "classes", "images": [{"id", "file", "height", "width", "truth": {"boxes",
"labels"}, "boxes", "labels", "scores"}]}`; boxes are continuous x1 y1 x2 y2 in pixels, labels index
`classes`.
"""

from functools import partial
from typing import Any

from markupsafe import Markup

from visrep.tools.report.images import embedded
from visrep.tools.report.section import Context

TITLE = "Boxes on test images"
ORDER = 60


def render(context: Context) -> Markup | None:
    """The same test images with the boxes of both detectors."""

    jpeg = partial(embedded, kind="jpeg", largest=480)

    def read(content: dict[str, Any]) -> tuple[str, bool, Markup]:
        shots = context.fill("boxes_of_one.html", content=content, jpeg=jpeg)
        truth = any(image.get("truth") for image in content["images"])
        return str(content["dataset"]), truth, shots

    return context.fill("boxes.html", panels=context.runs.read_each("predictions.json", read))
