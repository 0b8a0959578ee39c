"""What the detectors get wrong: `errors.json` of `visrep detect`.

`visrep.transfer.detection.evaluation.errors` says what is in the file. Every run has its numbers;
pictures of the worst errors are shown of the first pretrained and the first random one.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jinja2 import UndefinedError
from markupsafe import Markup

from visrep.errors import UserError
from visrep.tools.report import charts
from visrep.tools.report.images import embedded
from visrep.tools.report.section import Context

TITLE = "Errors of the detectors"
ORDER = 65
KINDS = {
    "localisation": "the right class, but it overlaps the object by 0.1 to 0.5 only",
    "class": "on an object of another class",
    "both": "another class, and it overlaps the object by 0.1 to 0.5 only",
    "duplicate": "of an object that a surer detection has found",
    "background": "no object there",
    "missed": "objects that nothing points at",
}
CLASSES = 40  # curves of classes in one chart; the lowest AP50 first
FOLDED = 12  # classes from which on the table is folded away
SIDE = 220  # pixels of a picture
AROUND = 0.35  # of the longer side, shown on every side of the boxes
LEAST = 24  # pixels of the image in a picture


def render(context: Context) -> Markup | None:
    """Per run kinds, curves, classes and confusions; of the first two the worst as pictures."""
    pictured: set[str] = set()

    def read(content: dict[str, Any]) -> dict[str, Any]:
        return {
            **content,
            "charts": [_precision(content["curves"], content["per_class"]), _scores(content)],
            "shown": sum(content["kinds"].values()),
        }

    runs = []
    for folder, content in context.runs.read_all("errors.json", read):
        worst = content["worst"] if folder.init not in pictured else {}
        try:
            body = context.fill(
                "errors_of_one.html",
                content=content,
                kinds=KINDS,
                worst=worst,
                picture=_picture,
                frame=charts,
                folded=FOLDED,
                address=lambda file: Path(file).absolute().as_uri(),
            )
        except (UserError, ValueError, TypeError, LookupError, UndefinedError) as error:
            context.runs.notes.append(f"{folder.name}/errors.json was left out: {error}.")
            continue
        pictured.add(folder.init)
        runs.append((folder, content, body))
    return context.fill("errors.html", runs=runs) if runs else None


def _precision(curves: dict[str, Any], per_class: list[dict[str, Any]]) -> charts.Chart:
    known = [row for row in per_class if row["AP50"] is not None]
    lowest = sorted(known, key=lambda row: row["AP50"])[:CLASSES]
    drawn = [
        (curves["classes"][row["class"]], "each class, 0.5", "each")
        for row in lowest
        if len(known) > 1
    ]
    drawn += [(curves["mean"]["AP50"], "mean, overlap 0.5", "at50")]
    drawn += [(curves["mean"]["AP75"], "mean, overlap 0.75", "at75")]
    series = [
        charts.Series(
            name=name,
            points=[(100 * at / (len(curve) - 1), 100 * y) for at, y in enumerate(curve)],
            kind=kind,
        )
        for curve, name, kind in drawn
    ]
    return charts.chart(
        series,
        title="Precision over recall",
        y_label="precision, %",
        x_label="recall, %",
        levels={},
    )


def _scores(content: dict[str, Any]) -> charts.Chart:
    scores = content["scores"]
    counts = {("right", "right"): scores["right"], ("wrong", "wrong"): scores["wrong"]}
    return charts.histogram(scores["edges"], counts, title="Scores of right and wrong detections")


def _picture(entry: dict[str, Any]) -> tuple[tuple[int, int, int, int], str]:
    """What is shown of an error: the region of its image, and that as a picture."""
    region = around(
        [box for box in (entry.get("box"), (entry.get("truth") or {}).get("box")) if box],
        height=int(entry["height"]),
        width=int(entry["width"]),
    )
    return region, embedded(
        entry["file"], "jpeg", largest=SIDE, depth=entry.get("depth"), region=region
    )


def around(
    boxes: Sequence[Sequence[float]], *, height: int, width: int
) -> tuple[int, int, int, int]:
    """A square around all `boxes`, cut at the image: left, top, right, bottom."""
    left, top = (min(box[side] for box in boxes) for side in (0, 1))
    right, bottom = (max(box[side] for box in boxes) for side in (2, 3))
    half = max(LEAST, (1 + 2 * AROUND) * max(right - left, bottom - top)) / 2
    ends = []
    for low, high, most in ((left, right, width), (top, bottom, height)):
        # Moved into the image where it can be, so that all pictures are square.
        low = min((low + high) / 2 - half, most - 2 * half)
        low = max(0, int(low))
        ends.append((low, min(most, low + int(2 * half + 1))))
    (left, right), (top, bottom) = ends
    return int(left), int(top), int(right), int(bottom)
