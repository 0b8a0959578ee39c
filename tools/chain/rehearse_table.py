"""The rehearsal's numbers: read from the jobs' folders, as a table, a picture and records."""

import json
import statistics
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.patheffects import withStroke

from visrep import results
from visrep.files import atomic_path, write_text
from visrep.tools.chain.entrants import Entrant
from visrep.tools.report.words import signed

MEASURES = {"knn": "kNN", "linear": "linear", "svm": "SVM on all layers"}


@dataclass(frozen=True)
class Change:
    """A measure of the untrained and of the trained net, percent; None where there is none."""

    before: float | None
    after: float | None

    @property
    def gain(self) -> float | None:
        """Points."""
        return None if self.before is None or self.after is None else self.after - self.before


@dataclass(frozen=True)
class Row:
    """A method.

    Attributes:
        method: its name in `methods=`.
        title: as papers write it.
        judge: which of `measures` the bar is on.
        measures: knn, linear and, where it is the judge, svm. `before` of kNN is the better of the
            two untrained nets: batch statistics as initialised, and those of the data.
        verdict: of the engine's watch; "-" where it has written none.
        images: views' images seen, counted with repetition.
        images_per_s: of the training, the median over its log.
        cost: whole step / its encoder passes alone, 1 or more, from the benchmark.
    """

    method: str
    title: str
    judge: str
    measures: dict[str, Change]
    verdict: str
    images: int
    images_per_s: float | None
    cost: float

    def passes(self, bar: float) -> bool:
        """Whether it gained at least `bar` points of what judges it."""
        gain = self.measures[self.judge].gain
        return gain is not None and gain >= bar


def collect(out: Path, methods: Sequence[Entrant]) -> list[Row]:
    """The rows, best gain first."""
    rows = [_row(out, method) for method in methods]
    return sorted(rows, key=lambda row: -(row.measures[row.judge].gain or -100.0))


def _row(out: Path, method: Entrant) -> Row:
    name, measures = method.name, {}
    for command in sorted(method.measures):
        before = [_top1(out / f"{command}-random-{method.family}")]
        if command == "knn":
            before.append(_top1(out / f"knn-reestimated-{method.family}"))
        known = [value for value in before if value is not None]
        measures[command] = Change(max(known, default=None), _top1(out / f"{command}-{name}"))
    speed = results.read(out / f"speed-{name}" / "results.jsonl")[-1]
    steps, images_per_s = _training(out / f"pretrain-{name}" / "metrics.jsonl")
    return Row(
        method=name,
        title=method.title,
        judge=method.judge,
        measures=measures,
        verdict=_verdict(out / f"pretrain-{name}" / "health.json"),
        images=steps * int(speed.config["batch_size"]),
        images_per_s=images_per_s,
        cost=1 / speed.value,
    )


def _top1(folder: Path) -> float | None:
    path = folder / "results.jsonl"
    if not path.exists():
        return None
    return next(record.value for record in results.read(path) if record.metric == "top1")


def _training(metrics: Path) -> tuple[int, float | None]:
    """Steps done, and the median of images per second."""
    if not metrics.exists():
        return 0, None
    lines = [json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines()]
    speeds = [line["images_per_s"] for line in lines if "images_per_s" in line]
    return lines[-1]["step"], statistics.median(speeds) if speeds else None


def _verdict(path: Path) -> str:
    if not path.exists():
        return "-"
    return str(json.loads(path.read_text(encoding="utf-8"))["verdict"])


def table(rows: list[Row], *, bar: float) -> str:
    """One line for each method; what is wide in it is two numbers, before and after."""
    head = (
        f"\n{'':13}{'kNN':>14}{'linear':>15}{'gain':>8}  {'':7}"
        f"{'health':>11}{'k images':>10}{'images/s':>10}{'cost / ideal':>14}"
    )
    lines = [head]
    for row in rows:
        gain = row.measures[row.judge].gain
        outcome = "" if row.passes(bar) else "MISSED"
        speed = "-" if row.images_per_s is None else f"{row.images_per_s:.0f}"
        lines.append(
            f"{row.title:13}{_shown(row.measures['knn']):>14}{_shown(row.measures['linear']):>15}"
            f"{'-' if gain is None else signed(gain):>8}  {outcome:7}"
            f"{row.verdict:>11}{row.images / 1e3:>10.0f}{speed:>10}{row.cost:>14.2f}"
        )
    for row in rows:
        if row.judge != "knn":
            shown = _shown(row.measures[row.judge])
            lines.append(f"{row.title}'s gain is that of its {MEASURES[row.judge]}: {shown}")
    lines.append(
        f"Top-1 of the better untrained net > of the trained one, in %; bar: {signed(bar)} points."
        "\ncost / ideal: time of a step / time of the encoder passes that the method needs."
    )
    return "\n".join(lines)


def _shown(change: Change) -> str:
    before, after = ("-" if v is None else f"{v:.1f}" for v in (change.before, change.after))
    return f"{before} > {after}"


def write(rows: list[Row], out: Path, *, bar: float) -> None:
    """`rehearsal.json` and `rehearsal.png`."""
    found = [asdict(row) | {"passed": row.passes(bar)} for row in rows]
    write_text(out / "rehearsal.json", json.dumps({"bar": bar, "rows": found}, indent=1))
    with atomic_path(out / "rehearsal.png") as path:
        draw(rows, bar=bar).savefig(path, dpi=150)


INK, QUIET, BEFORE, AFTER, MISSED = "#1d2430", "#5b6472", "#b8c0cc", "#2563a8", "#c2410c"


def draw(rows: list[Row], *, bar: float) -> Figure:
    """Two panels of bars, untrained and trained, one pair for each method; best gain on top."""
    figure = Figure(figsize=(10.5, 1.5 + 0.52 * len(rows)), layout="constrained")
    judged, linear = figure.subplots(1, 2, sharey=True)
    _panel(judged, rows, [row.judge for row in rows], bar=bar)
    _panel(linear, rows, ["linear"] * len(rows), bar=None)
    special = [f"{row.title}: {MEASURES[row.judge]}" for row in rows if row.judge != "knn"]
    judged.set_title("kNN" + "".join(f" ({text})" for text in special), loc="left", color=INK)
    linear.set_title("linear probe", loc="left", color=INK)
    judged.set_yticks(range(len(rows)), [row.title for row in rows], fontsize=11, color=INK)
    judged.invert_yaxis()
    missed = not all(row.passes(bar) for row in rows)
    figure.legend(
        handles=[
            Patch(color=BEFORE, label="untrained"),
            Patch(color=AFTER, label="pretrained"),
            *([Patch(color=MISSED, label="below the bar")] if missed else []),
            Line2D([], [], color=INK, linewidth=2, label=f"bar to beat: {signed(bar)} points"),
        ],
        loc="outside lower center",
        ncols=4,
        frameon=False,
    )
    return figure


def _panel(axes: Axes, rows: list[Row], measures: list[str], *, bar: float | None) -> None:
    for y, (row, measure) in enumerate(zip(rows, measures, strict=True)):
        change = row.measures[measure]
        passed = bar is None or row.passes(bar)
        sides = ((change.before, BEFORE, -0.2), (change.after, AFTER if passed else MISSED, 0.2))
        for value, colour, shift in sides:
            if value is not None:
                axes.barh(y + shift, value, height=0.36, color=colour)
                text = axes.text(value + 1, y + shift, f"{value:.1f}", va="center", color=QUIET)
                text.set(
                    size=9, zorder=4, path_effects=[withStroke(linewidth=3, foreground="white")]
                )
        if bar is not None and change.before is not None:
            axes.plot([change.before + bar] * 2, [y - 0.4, y + 0.4], color=INK, linewidth=2)
    axes.set_xlim(0, 105)
    axes.set_xlabel("top-1, %", color=QUIET)
    axes.tick_params(colors=QUIET, length=0)
    axes.grid(axis="x", color="#e3e7ec", zorder=0)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)
