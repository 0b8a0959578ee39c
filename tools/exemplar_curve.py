"""`visrep exemplar_curve data=scenes out=DIR`: Exemplar-CNN over the size of its surrogate task.

Accuracy of the SVM on all layers over the number of surrogate classes N, and over the samples of
each class K, as in the figures of arXiv 1406.6909. Every point is a pretraining of equal length
and an SVM, in a folder of its own below DIR; a second call makes only what is missing.
"""

from dataclasses import dataclass
from typing import Any

from matplotlib.figure import Figure
from omegaconf import DictConfig, OmegaConf

from visrep import results
from visrep.config import compose
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.files import atomic_path
from visrep.pretrain import train
from visrep.transfer.frozen import svm

METRIC = "top1"


@dataclass(frozen=True, order=True)
class Point:
    """A surrogate task: N classes of K samples."""

    classes: int
    samples: int

    @property
    def name(self) -> str:
        """Its folder."""
        return f"classes{self.classes:05d}-samples{self.samples:03d}"


def main(cfg: DictConfig) -> None:
    """Train and measure every point, write the records, draw the curve, print the table."""
    points = points_of(cfg)
    run = open_run(cfg)
    (run.out / "results.jsonl").unlink(missing_ok=True)  # it is written anew from the points'
    measured = {point: _measured(cfg, point, run) for point in points}
    untrained = _evaluated(cfg, points[0], run, init="random")
    for point, record in [*measured.items(), (None, untrained)]:
        sizes = {} if point is None else {"classes": point.classes, "samples": point.samples}
        extra: dict[str, Any] = {"steps": int(cfg.steps), **sizes}
        run.record(
            task="exemplar_curve",
            dataset=record.dataset,
            metric=METRIC,
            value=record.value,
            weights=record.weights,
            init=record.init,
            **extra,
        )
    values = {point: record.value for point, record in measured.items()}
    picture = draw(values, untrained.value, fixed=_fixed(cfg), title=untrained.dataset)
    with atomic_path(run.out / "curve.png") as path:
        picture.savefig(path, dpi=150)
    print(f"{'classes':>8} {'samples':>8} {METRIC:>8}")
    for point, value in sorted(values.items()):
        print(f"{point.classes:8d} {point.samples:8d} {value:8.2f}")
    print(f"{'untrained':>17} {untrained.value:8.2f}")
    print(f"The curve: {run.out / 'curve.png'}")


def points_of(cfg: DictConfig) -> list[Point]:
    """All points: each N at the fixed K, each K at the fixed N; none twice.

    Raises:
        ConfigError: a number below 1, or none at all.
    """
    fixed = _fixed(cfg)
    found = {Point(int(n), fixed.samples) for n in cfg.classes}
    found |= {Point(fixed.classes, int(k)) for k in cfg.samples}
    if not found or min(min(p.classes, p.samples) for p in found) < 1 or cfg.steps < 1:
        raise ConfigError(
            f"classes={list(cfg.classes)} samples={list(cfg.samples)} steps={cfg.steps}: give "
            "numbers above 0"
        )
    return sorted(found)


def draw(values: dict[Point, float], untrained: float, *, fixed: Point, title: str) -> Figure:
    """Two panels: accuracy over N at the fixed K, and over K at the fixed N."""
    figure = Figure(figsize=(9, 3.6), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    over_classes = [(p.classes, v) for p, v in values.items() if p.samples == fixed.samples]
    over_samples = [(p.samples, v) for p, v in values.items() if p.classes == fixed.classes]
    for panel, curve, label in (
        (panels[0], over_classes, f"surrogate classes, {fixed.samples} samples of each"),
        (panels[1], over_samples, f"samples of each of {fixed.classes} surrogate classes"),
    ):
        sizes, accuracies = zip(*sorted(curve), strict=True)
        panel.plot(sizes, accuracies, marker="o", label="Exemplar-CNN")
        panel.axhline(untrained, linestyle="--", color="grey", label="untrained")
        panel.set_xscale("log")
        panel.set_xticks(sizes, [f"{size:,}" for size in sizes], rotation=45)
        panel.minorticks_off()
        panel.set_xlabel(label)
        panel.grid(alpha=0.3)
    panels[0].set_ylabel("accuracy of the SVM (%)")
    panels[0].legend()
    figure.suptitle(title)
    return figure


def _fixed(cfg: DictConfig) -> Point:
    return Point(int(cfg.fixed.classes), int(cfg.fixed.samples))


def _measured(cfg: DictConfig, point: Point, run: Run) -> results.Record:
    """The point's accuracy; trained first where its encoder is not there yet."""
    place = run.out / point.name
    if not (place / "encoder.safetensors").exists():
        _call(
            cfg,
            "pretrain",
            f"method={cfg.recipe}",
            f"views.classes={point.classes}",
            f"views.samples={point.samples}",
            f"steps={cfg.steps}",
            "knn.times=0",
            f"workers={cfg.workers}",
            "resume=auto",
            f"out={place}",
            *cfg.pretrain,
        )
    return _evaluated(cfg, point, run, init="pretrained")


def _evaluated(cfg: DictConfig, point: Point, run: Run, *, init: str) -> results.Record:
    place = run.out / point.name
    file = place / f"svm-{init}" / "results.jsonl"
    if not file.exists():
        _call(
            cfg,
            "svm",
            f"weights={place / 'encoder.safetensors'}",
            f"init={init}",
            "output=layers",
            f"workers={cfg.workers}",
            f"out={file.parent}",
            "overwrite=true",
            *cfg.svm,
        )
    return next(record for record in results.read(file) if record.metric == METRIC)


def _call(cfg: DictConfig, command: str, *overrides: str) -> None:
    """Run a command on the curve's data, seed and device."""
    shared = [f"seed={cfg.seed}", f"device={cfg.device}", f"threads={cfg.threads or 'null'}"]
    # A command asks for data by name; it gets the curve's own instead, settings and all.
    composed, _ = compose(command, [*overrides, *shared, "data=scenes"])
    OmegaConf.set_struct(composed, False)
    composed.data = cfg.data
    {"pretrain": train.main, "svm": svm.main}[command](composed)
