"""Records side by side: the same measure from random and from pretrained weights."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace

from visrep.results import Record
from visrep.tools.report.nets import cells, differing, nets, stated
from visrep.tools.report.runs import Runs

TASKS = ("knn", "linear", "finetune", "detection", "instance", "keypoints", "semantic")
METRICS = (
    *("top1", "top5", "mIoU", "keypoint_AP50", "keypoint_AP", "keypoint_AP75"),
    *("AP50", "AP", "AP75", "mask_AP50", "mask_AP", "mask_AP75"),
)


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean, sample deviation (0 for one) and range of repeated measurements."""

    mean: float
    deviation: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(records: Iterable[Record]) -> "Spread | None":
        """Of the records' values; None when there is none."""
        values = [record.value for record in records]
        if not values:
            return None
        mean = sum(values) / len(values)
        squares = sum((value - mean) ** 2 for value in values)
        deviation = math.sqrt(squares / max(1, len(values) - 1))
        return Spread(
            mean=mean, deviation=deviation, low=min(values), high=max(values), n=len(values)
        )


@dataclass(kw_only=True)
class Row:
    """One measure of the chain's table: the same metric from random and from pretrained weights.

    Attributes:
        task, metric, dataset, engine: as in the records.
        labels: share (or list) of labels of a finetune, else None.
        chain: which pretraining, when the folder holds several; else empty.
        setting: what tells this row from another of the same name; else empty.
        sides: records by init.
        notes: footnotes.
    """

    task: str
    metric: str
    dataset: str
    engine: str
    labels: float | str | None
    chain: str = ""
    setting: str = ""
    sides: dict[str, list[Record]] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)

    def spread(self, init: str) -> Spread | None:
        """Mean and range of one side."""
        return Spread.of(self.sides.get(init, []))

    @property
    def gain(self) -> float | None:
        """Pretrained less random, in points; None when one is missing."""
        pretrained, random = self.spread("pretrained"), self.spread("random")
        return pretrained.mean - random.mean if pretrained and random else None

    @property
    def overlap(self) -> bool:
        """Both sides were repeated, and some random run is as good as some pretrained one."""
        pretrained, random = self.spread("pretrained"), self.spread("random")
        if not pretrained or not random or min(pretrained.n, random.n) < 2:
            return False
        return pretrained.low <= random.high and random.low <= pretrained.high


def rows(runs: Runs) -> list[Row]:
    """The chain's table: tasks in the order of the chain, main metrics first."""
    found: dict[tuple, Row] = {}
    raw_pixels: dict[tuple, list[Record]] = {}
    of = nets(runs)
    for record in runs.records:
        if record.task not in TASKS:
            continue
        if record.init == "raw_pixels":
            raw_pixels.setdefault((record.task, record.metric, record.dataset), []).append(record)
            continue
        labels = record.extra.get("labels")
        for net in of(record):
            key = (record.task, record.metric, record.dataset, record.engine, str(labels), net.key)
            if key not in found:
                found[key] = Row(
                    task=record.task,
                    metric=record.metric,
                    dataset=record.dataset,
                    engine=record.engine,
                    labels=labels,
                    chain=net.name,
                )
            found[key].sides.setdefault(record.init, []).append(record)
    table: list[Row] = []
    for row in found.values():
        pixels = cells(raw_pixels.get((row.task, row.metric, row.dataset), []))
        table += _of_one_setting(row, pixels)
    if len({row.chain for row in table}) == 1:
        table = [replace(row, chain="") for row in table]
    return sorted(table, key=_place)


def _place(row: Row) -> tuple:
    labels = (0, row.labels, "") if isinstance(row.labels, int | float) else (1, 0, str(row.labels))
    metric = METRICS.index(row.metric) if row.metric in METRICS else len(METRICS)
    return TASKS.index(row.task), labels, row.engine, metric, row.metric, row.chain, row.setting


def _of_one_setting(row: Row, pixels: list[list[Record]]) -> Iterator[Row]:
    """The row taken apart, so that all records of a side were made with the same settings.

    A side of random weights stands beside every pretrained one that it fits, see `_partner`; one
    that fits none has a row of its own.
    """
    pretrained = cells(row.sides.get("pretrained", []))
    random = cells(row.sides.get("random", []))
    used: list[int] = []
    for main in pretrained:
        part = _part(row, main, pretrained)
        partner = _partner(main, random)
        if partner is not None:
            used.append(id(partner))
            part.sides["random"] = _better(partner, part.notes)
            between = differing(side[0].config for side in (main, partner))
            if between:
                part.notes.append(f"Random and pretrained runs differ in {', '.join(between)}.")
        if (beside := _partner(main, pixels)) is not None:
            part.sides["raw_pixels"] = beside
        yield part
    for main in random:
        if id(main) not in used:
            part = _part(row, main, random)
            part.sides["random"] = _better(main, part.notes)
            yield part


def _part(row: Row, main: list[Record], others: list[list[Record]]) -> Row:
    """The row of the records `main` alone, one of the cells `others`."""
    setting = stated(main[0].config, differing(cell[0].config for cell in others))
    return replace(row, setting=setting, sides={main[0].init: main}, notes=[])


def _partner(main: list[Record], candidates: list[list[Record]]) -> list[Record] | None:
    """The cell that `main` is compared with: the only one, or the one with its settings.

    What all candidates have alike need not be as in `main`: a net from scratch has no selector.
    """
    keys = differing(cell[0].config for cell in candidates)
    wanted = stated(main[0].config, keys)
    fitting = [cell for cell in candidates if stated(cell[0].config, keys) == wanted]
    return fitting[0] if len(fitting) == 1 else None


def _better(random: list[Record], notes: list[str]) -> list[Record]:
    """Of the two batch-norm variants of an untrained net the better, so that it is fair."""
    variants: dict[str, list[Record]] = {}
    for record in random:
        variants.setdefault(str(record.extra.get("bn", "")), []).append(record)
    if len(variants) < 2:
        return random
    means = {name: sum(r.value for r in side) / len(side) for name, side in variants.items()}
    best = max(means, key=lambda name: means[name])
    other = ", ".join(f"{means[name]:.1f} {name}" for name in means if name != best)
    notes.append(
        f"Random init counts the better of two batch-norm variants: statistics {best} "
        f"({means[best]:.1f}; {other})."
    )
    return variants[best]
