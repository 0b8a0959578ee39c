"""Figures of the report as HTML and inline SVG text: charts, bars, boxes over images.

Everything that came from a user or a file goes through `text`; colours and sizes are classes of
the page's style sheet, so that a figure follows the light or dark scheme.
"""

import base64
import html
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from visrep.data.images import read_image

WIDTH, HEIGHT = 420, 250  # of a chart, in its own units; a phone shows it at about that width
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 12, 40
MOST_POINTS = 300  # per curve; more cannot be seen at this size
LARGEST_SIDE = 480  # pixels of an embedded photograph


def text(value: object) -> str:
    """`value` with HTML's special characters escaped, also for quoted attributes."""
    return html.escape(str(value), quote=True)


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: its name, its (step, value) points, and pretrained, random or other."""

    name: str
    points: list[tuple[float, float]]
    kind: str = "pretrained"


def ticks(low: float, high: float, *, most: int = 5) -> list[float]:
    """Round numbers from `low` to `high`, both inside, at most `most` + 1 of them."""
    if not high > low:
        return [low]
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor * power for factor in (1, 2, 2.5, 5, 10) if factor * power >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(i * step, 12) for i in range(first, last + 1)]


def chart(
    series: Sequence[Series],
    *,
    title: str,
    x_label: str,
    y_label: str,
    references: Sequence[tuple[str, float]] = (),
) -> str:
    """A line chart with labelled axes; `references` are (name, value) of dashed level lines."""
    xs = [x for curve in series for x, _ in curve.points]
    ys = [y for curve in series for _, y in curve.points] + [value for _, value in references]
    low, high = min(ys), max(ys)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    low, high = (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def at(x: float, y: float) -> tuple[float, float]:
        across = LEFT + (x - first) / (last - first) * (WIDTH - LEFT - RIGHT)
        return across, HEIGHT - BOTTOM - (y - low) / (high - low) * (HEIGHT - TOP - BOTTOM)

    parts = []
    for value in ticks(low, high):
        _, y = at(first, value)
        parts.append(
            f'<path class="grid" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>'
            f'<text class="tick" x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>'
        )
    for value in ticks(first, last, most=4):
        x, _ = at(value, low)
        anchor = "end" if x > WIDTH - RIGHT - 12 else "middle"
        parts.append(
            f'<text class="tick" x="{x:.1f}" y="{HEIGHT - BOTTOM + 16}" text-anchor="{anchor}">'
            f"{value:,g}</text>"
        )
    parts.append(
        f'<text class="axis" x="{(LEFT + WIDTH - RIGHT) / 2}" y="{HEIGHT - 5}" '
        f'text-anchor="middle">{text(x_label)}</text>'
        f'<text class="axis" transform="translate(11 {(TOP + HEIGHT - BOTTOM) / 2}) rotate(-90)" '
        f'text-anchor="middle">{text(y_label)}</text>'
    )
    taken = math.inf
    for name, value in sorted(references, key=lambda reference: -reference[1]):
        _, y = at(first, value)
        parts.append(f'<path class="level" d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}"/>')
        # Above its line, or below it where the line above is too near to leave room.
        label = y - 5 if abs(taken - y) > 17 else y + 13
        taken = y
        parts.append(
            f'<text class="tick" x="{WIDTH - RIGHT - 2}" y="{label:.1f}" text-anchor="end">'
            f"{text(name)} {value:.1f}</text>"
        )
    for curve in series:
        stride = math.ceil(len(curve.points) / MOST_POINTS)
        shown = [*curve.points[:-1:stride], curve.points[-1]]
        line = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(*point) for point in shown))
        x, y = at(*curve.points[-1])
        parts.append(
            f'<polyline class="curve {text(curve.kind)}" points="{line}"/>'
            f'<circle class="end {text(curve.kind)}" cx="{x:.1f}" cy="{y:.1f}" r="3.5"/>'
        )
    names = dict.fromkeys((curve.name, curve.kind) for curve in series)
    key = "".join(f'<span class="key {text(kind)}">{text(name)}</span>' for name, kind in names)
    key = key if len(series) > 1 else ""
    return (
        f'<figure class="chart"><figcaption><b>{text(title)}</b>{key}</figcaption>'
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{text(title)}">'
        f"{''.join(parts)}</svg></figure>"
    )


def bars(values: Sequence[tuple[str, str, Any]]) -> str:
    """Horizontal bars of percentages, 0 to 100: (name, kind, Spread), with the range as a line."""
    lines = []
    for name, kind, spread in values:
        low, mean, high = (min(max(v, 0.0), 100.0) for v in (spread.low, spread.mean, spread.high))
        spread_line = (
            f'<span class="range" style="left:{low:.2f}%;width:{high - low:.2f}%"></span>'
            if spread.n > 1
            else ""
        )
        lines.append(
            f'<div class="bar"><span class="name">{text(name)}</span>'
            f'<span class="track"><span class="fill {text(kind)}" style="width:{mean:.2f}%"></span>'
            f'{spread_line}</span><span class="value">{spread.mean:.1f}</span></div>'
        )
    return f'<div class="bars">{"".join(lines)}</div>'


def picture(data: bytes, *, kind: str, alt: str, css: str = "") -> str:
    """An `<img>` that holds its own bytes; `kind` png or jpeg."""
    encoded = base64.b64encode(data).decode()
    source = f"data:image/{text(kind)};base64,{encoded}"
    return f'<img class="{text(css)}" alt="{text(alt)}" src="{source}">'


def png(path: Path) -> bytes:
    """The bytes of an image file as PNG, decoded and encoded again so that they are an image.

    Raises:
        BrokenImage: it is none.
    """
    return _encoded(Image.fromarray(read_image(path).permute(1, 2, 0).numpy()), "PNG")


def jpeg(path: Path) -> bytes:
    """An image file as JPEG, at most LARGEST_SIDE pixels a side. Raises as `png`."""
    image = Image.fromarray(read_image(path).permute(1, 2, 0).numpy())
    image.thumbnail((LARGEST_SIDE, LARGEST_SIDE))
    return _encoded(image, "JPEG", quality=88, subsampling=0)


def _encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, form, optimize=True, **options)
    return stream.getvalue()


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A box to draw: (x1, y1, x2, y2) in pixels, class name, score (None = ground truth)."""

    xyxy: tuple[float, float, float, float]
    label: str
    score: float | None = None


def boxes(image: bytes, *, width: int, height: int, drawn: Sequence[Drawn], alt: str) -> str:
    """A JPEG with boxes over it: ground truth dashed, predictions solid with class and score."""
    encoded = base64.b64encode(image).decode()
    unit = max(width, height) / 100
    parts = [
        f'<image href="data:image/jpeg;base64,{encoded}" width="{width}" height="{height}" '
        'preserveAspectRatio="none"/>'
    ]
    for box in sorted(drawn, key=lambda box: -1.0 if box.score is None else box.score):
        left, top, right, bottom = box.xyxy
        kind = "truth" if box.score is None else "found"
        shape = (
            f'x="{left:.1f}" y="{top:.1f}" width="{max(right - left, 0):.1f}" '
            f'height="{max(bottom - top, 0):.1f}"'
        )
        parts.append(f'<rect class="halo" {shape}/><rect class="{kind}" {shape}/>')
        if box.score is not None:
            # Inside the image, whichever edge the box touches.
            below = top - 1.2 * unit < 6 * unit
            y = min(bottom + 6 * unit, height - unit) if below else top - 1.2 * unit
            end = left > width * 0.7
            parts.append(
                f'<text x="{right if end else left:.1f}" y="{y:.1f}" '
                f'text-anchor="{"end" if end else "start"}" font-size="{6 * unit:.1f}" '
                f'stroke-width="{1.6 * unit:.1f}">{text(box.label)} {100 * box.score:.0f}%</text>'
            )
    return (
        f'<svg class="boxes" viewBox="0 0 {width} {height}" role="img" aria-label="{text(alt)}">'
        f"{''.join(parts)}</svg>"
    )
