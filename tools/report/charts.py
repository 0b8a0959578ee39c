"""The geometry of line charts and histograms; `templates/chart.html` draws them as SVG.

Lengths are in the chart's own units; a phone shows it at about that size in pixels.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 420, 250
LEFT, RIGHT, TOP, BOTTOM = 46, WIDTH - 12, 12, HEIGHT - 40  # edges of the plot
MOST_POINTS = 300  # per curve; more cannot be seen at this size

Point = tuple[float, float]


@dataclass(frozen=True, kw_only=True)
class Series:
    """One curve: its name, its (step, value) points, and pretrained, random or other; where it has
    `deviations`, one of each point, these are drawn as bars."""

    name: str
    points: list[Point]
    kind: str = "pretrained"
    deviations: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Chart:
    """A chart laid out.

    Attributes:
        rows, columns: (position, value) of the ticks.
        levels: (position, position of the label, name, value) of the dashed lines.
        curves: (kind, points) of the lines.
        whiskers: (kind, position across, highest, lowest) of the deviations.
        key: (name, kind), each once.
        bars: (kind, left, top, width, height).
    """

    title: str
    y_label: str
    x_label: str
    rows: list[Point]
    columns: list[Point]
    levels: list[tuple[float, float, str, float]]
    curves: list[tuple[str, list[Point]]]
    key: list[tuple[str, str]]
    whiskers: list[tuple[str, float, float, float]] = field(default_factory=list)
    bars: list[tuple[str, float, float, float, float]] = field(default_factory=list)


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
    y_label: str,
    levels: Mapping[str, float],
    x_label: str = "updates",
    logarithmic: bool = False,
) -> Chart:
    """Lay out a chart of `series`, at least one; `levels` are drawn across, each with its name.

    logarithmic: across, where all steps are above 0; each has a tick.
    """
    xs = [x for curve in series for x, _ in curve.points]
    ys = [*levels.values(), *(y for curve in series for _, y in curve.points)]
    ys += [end for curve in series for _, *ends in _ends(curve) for end in ends]
    low, high = min(ys), max(ys)
    margin = 0.06 * (high - low) or 0.5 * abs(high) or 1.0
    low, high = (max(0.0, low - margin) if low >= 0 else low - margin), high + margin
    first, last = min(xs), max(max(xs), min(xs) + 1)

    def across(x: float) -> float:
        if logarithmic:
            return LEFT + math.log(x / first) / math.log(last / first) * (RIGHT - LEFT)
        return LEFT + (x - first) / (last - first) * (RIGHT - LEFT)

    def down(y: float) -> float:
        return BOTTOM - (y - low) / (high - low) * (BOTTOM - TOP)

    lines: list[tuple[float, float, str, float]] = []
    for name, value in sorted(levels.items(), key=lambda level: -level[1]):
        y = down(value)
        # The label is above its line, or below it where the line above is too near to leave room.
        room = not lines or abs(lines[-1][0] - y) > 17
        lines.append((y, y - 5 if room else y + 13, name, value))
    curves = []
    for curve in series:
        stride = math.ceil(len(curve.points) / MOST_POINTS)
        shown = [*curve.points[:-1:stride], curve.points[-1]]
        curves.append((curve.kind, [(across(x), down(y)) for x, y in shown]))
    return Chart(
        title=title,
        y_label=y_label,
        rows=[(down(value), value) for value in ticks(low, high)],
        columns=[
            (across(value), value)
            for value in (sorted(set(xs)) if logarithmic else ticks(first, last, most=4))
        ],
        levels=lines,
        curves=curves,
        whiskers=[
            (curve.kind, across(x), down(high), down(low))
            for curve in series
            for x, low, high in _ends(curve)
        ],
        key=list(dict.fromkeys((curve.name, curve.kind) for curve in series)),
        x_label=x_label,
    )


def histogram(
    edges: Sequence[float], counts: Mapping[tuple[str, str], Sequence[int]], *, title: str
) -> Chart:
    """Lay out counts per bin, side by side for each (name, kind), on a scale of powers of ten.

    `edges` are one more than the bins, rising, all bins of one width. The scale begins at half a
    detection, so that one can be seen.
    """
    most = max(1, *(count for each in counts.values() for count in each))
    top, low = math.log10(most * 1.5), math.log10(0.5)

    def across(x: float) -> float:
        return LEFT + (x - edges[0]) / (edges[-1] - edges[0]) * (RIGHT - LEFT)

    def down(count: float) -> float:
        return BOTTOM - (math.log10(count) - low) / (top - low) * (BOTTOM - TOP)

    width = (across(edges[1]) - across(edges[0])) * 0.86 / len(counts)
    bars = [
        (kind, across(left) + place * width, down(count), width, BOTTOM - down(count))
        for place, ((_, kind), each) in enumerate(counts.items())
        for left, count in zip(edges, each, strict=False)
        if count
    ]
    powers = [10.0**power for power in range(int(math.log10(most)) + 1)]
    return Chart(
        title=title,
        y_label="detections",
        rows=[(down(value), value) for value in powers],
        columns=[(across(value), value) for value in ticks(edges[0], edges[-1])],
        levels=[],
        curves=[],
        key=list(counts),
        x_label="score",
        bars=bars,
    )


def _ends(curve: Series) -> list[tuple[float, float, float]]:
    """Step, low and high end of each bar of a curve."""
    if not curve.deviations:
        return []
    pairs = zip(curve.points, curve.deviations, strict=True)
    return [(x, y - off, y + off) for (x, y), off in pairs if off]
