"""The report's pictures as HTML: curves, views, boxes on test images, nearest neighbours.

The files it reads, each written by the command in brackets into its run folder:

* `views.png` [views]: a picture of augmented views.
* `neighbours.json` [knn]: `{"dataset", "bank", "queries": [{"image": PNG in base64, "label",
  "neighbours": [{"image", "label", "similarity"}]}]}`, nearest first.
* `predictions.json` [detect]: `{"dataset", "classes", "images": [{"id", "file", "height", "width",
  "truth": {"boxes", "labels"}, "boxes", "labels", "scores"}]}`; boxes are continuous
  x1 y1 x2 y2 in pixels, labels index `classes`.
"""

import base64
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from visrep.data.images import BrokenImage
from visrep.tools.report.figures import Drawn, Series, boxes, chart, jpeg, picture, png, text
from visrep.tools.report.rows import Row
from visrep.tools.report.runs import Folder, Runs

TITLES = {"distill": "distillation", "instance": "instance segmentation", "linear": "linear probe"}
INITS = {"pretrained": "Pretrained", "random": "Random init"}


def curves(runs: Runs, rows: Sequence[Row]) -> str:
    """Loss and kNN of the pretraining, then the losses of all other runs, folded away."""
    pretraining = [folder for folder in runs.folders if folder.pretraining]
    levels = {
        name: spread.mean
        for row in rows
        if (row.task, row.metric) == ("knn", "top1")
        for init, name in (("raw_pixels", "raw pixels"), ("random", "random init"))
        if (spread := row.spread(init))
    }
    main = [
        _chart(pretraining, "loss", title="Pretraining loss", y_label="loss", named=True),
        _chart(
            pretraining,
            "knn",
            title="kNN during pretraining",
            y_label="top-1, %",
            references=list(levels.items()),
            named=True,
        ),
    ]
    shown = "".join(main) or '<p class="missing">No training log (metrics.jsonl) here.</p>'
    others: dict[str, list[Folder]] = {}
    for folder in runs.folders:
        if folder.task != "pretrain":
            others.setdefault(folder.task, []).append(folder)
    rest = "".join(
        _chart(folders, "loss", title=f"{TITLES.get(task, task).capitalize()} loss", y_label="loss")
        for task, folders in others.items()
    )
    if rest:
        rest = (
            "<details><summary>Losses of the other runs</summary>"
            f'<div class="charts">{rest}</div></details>'
        )
    return f'<div class="charts">{shown}</div>{rest}'


def _chart(
    folders: Sequence[Folder],
    metric: str,
    *,
    title: str,
    y_label: str,
    references: Sequence[tuple[str, float]] = (),
    named: bool = False,
) -> str:
    """One chart of `metric` in all `folders`; empty when none has two points of it.

    `named`: each run under its own name; else under its initialisation.
    """
    series = []
    for folder in folders:
        points = folder.points(metric)
        if len(points) > 1:
            name = folder.name if named else INITS.get(folder.init, folder.init).lower()
            series.append(Series(name=name, points=points, kind=folder.init))
    if not series:
        return ""
    return chart(series, title=title, x_label="updates", y_label=y_label, references=references)


def views(runs: Runs) -> str:
    """Every views.png, each once."""
    shown: dict[bytes, str] = {}
    for folder in runs.folders:
        path = folder.path / "views.png"
        if path.exists():
            try:
                shown.setdefault(png(path), folder.name)
            except BrokenImage as error:
                runs.notes.append(f"{error}.")
    return "".join(
        f'<figure class="wide">{picture(data, kind="png", alt="augmented views")}'
        + (f"<figcaption>{text(name)}</figcaption>" if len(shown) > 1 else "")
        + "</figure>"
        for data, name in shown.items()
    )


def neighbours(runs: Runs, *, most: int) -> str:
    """The nearest images of a few test images, from pretrained and from random weights."""
    panels = []
    for init, title in INITS.items():
        found = _first(runs, "neighbours.json", init)
        if found is None:
            continue
        folder, content = found
        try:
            queries = "".join(_query(query) for query in content["queries"][:most])
        except (KeyError, TypeError, ValueError) as error:
            runs.notes.append(_unreadable(folder, "neighbours.json", error))
            continue
        panels.append(f'<div><h3>{text(title)}</h3><div class="queries">{queries}</div></div>')
    if not panels:
        return ""
    return (
        '<p class="hint">Left of the line a test image, right of it its nearest training images '
        "by cosine of their features. The number is the cosine; "
        '<span class="same">framed</span> ones have the same class.</p>'
        f'<div class="panels">{"".join(panels)}</div>'
    )


def _query(query: dict[str, Any]) -> str:
    label = str(query["label"])
    cells = [f'<figure class="query">{_small(query["image"], label)}</figure>']
    for near in query["neighbours"]:
        same = "same" if str(near["label"]) == label else "other"
        cells.append(
            f'<figure class="{same}">{_small(near["image"], str(near["label"]))}'
            f"<figcaption>{float(near['similarity']):.2f}</figcaption></figure>"
        )
    return f'<div class="row">{"".join(cells)}</div>'


def _small(encoded: str, label: str) -> str:
    data = base64.b64decode(encoded, validate=True)
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        raise ValueError("an image is no PNG")
    return picture(data, kind="png", alt=f"class {label}", css="pixels")


def detections(runs: Runs, *, most: int, min_score: float) -> str:
    """The same test images with the boxes of both detectors."""
    panels, dataset, truth = [], "", False
    for init, title in INITS.items():
        found = _first(runs, "predictions.json", init)
        if found is None:
            continue
        folder, content = found
        try:
            images, classes = content["images"][:most], content["classes"]
            shots = [_shot(image, classes, min_score) for image in images]
            dataset = str(content["dataset"])
            truth = truth or any("truth" in image for image in images)
        except BrokenImage as error:
            runs.notes.append(f"{error}.")
            continue
        except (KeyError, TypeError, ValueError, IndexError) as error:
            runs.notes.append(_unreadable(folder, "predictions.json", error))
            continue
        panels.append(
            f"<h3>{text(title)} <small>{text(folder.name)}</small></h3>"
            f'<div class="shots">{"".join(shots)}</div>'
        )
    if not panels:
        return ""
    dashed = '; <span class="swatch truth"></span>ground truth' if truth else ""
    return (
        f'<p class="hint">The first images of {text(dataset)}. '
        '<span class="swatch found"></span>predicted, with class and score '
        f"({100 * min_score:g} % or more){dashed}.</p>{''.join(panels)}"
    )


def _shot(image: dict[str, Any], classes: Sequence[str], min_score: float) -> str:
    truth = image.get("truth") or {"boxes": [], "labels": []}
    drawn = [
        Drawn(xyxy=_corners(box), label=str(classes[label]))
        for box, label in zip(truth["boxes"], truth["labels"], strict=True)
    ] + [
        Drawn(xyxy=_corners(box), label=str(classes[label]), score=float(score))
        for box, label, score in zip(image["boxes"], image["labels"], image["scores"], strict=True)
        if score >= min_score
    ]
    return boxes(
        jpeg(Path(image["file"])),
        width=int(image["width"]),
        height=int(image["height"]),
        drawn=drawn,
        alt=f"{image['id']} with boxes",
    )


def _corners(box: Sequence[float]) -> tuple[float, float, float, float]:
    left, top, right, bottom = (float(value) for value in box)
    return left, top, right, bottom


def _first(runs: Runs, name: str, init: str) -> tuple[Folder, dict[str, Any]] | None:
    """The first folder with a readable JSON file `name` from weights `init`, and its content."""
    for folder in runs.folders:
        path = folder.path / name
        if folder.init != init or not path.exists():
            continue
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            runs.notes.append(_unreadable(folder, name, error))
            continue
        if isinstance(content, dict):
            return folder, content
        runs.notes.append(_unreadable(folder, name, TypeError("no JSON object")))
    return None


def _unreadable(folder: Folder, name: str, error: Exception) -> str:
    reason = f"no {error}" if isinstance(error, KeyError) else str(error)
    return f"{folder.name}/{name} was left out: {reason}."
