"""Records side by side: the same measure from random and from pretrained weights."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

from visrep.results import Record
from visrep.tools.report.runs import Runs

TASKS = ("knn", "linear", "finetune", "detection", "instance")
METRICS = ("top1", "top5", "AP50", "AP", "AP75", "mask_AP50", "mask_AP", "mask_AP75")

# Settings that may differ between two runs whose numbers are repetitions of one another.
REPEATED = (
    "out", "seed", "weights", "teacher", "init", "bn", "draw", "labels", "device", "threads",
    "workers", "overwrite", "resume", "log_every", "snapshot_every", "published",
)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class Spread:
    """Mean and range of repeated measurements."""

    mean: float
    low: float
    high: float
    n: int

    @staticmethod
    def of(records: Iterable[Record]) -> "Spread | None":
        """Of the records' values; None when there is none."""
        values = [record.value for record in records]
        if not values:
            return None
        return Spread(
            mean=sum(values) / len(values), low=min(values), high=max(values), n=len(values)
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
    chains_of = _chains(runs)
    for record in runs.records:
        if record.task not in TASKS:
            continue
        if record.init == "raw_pixels":
            raw_pixels.setdefault((record.task, record.metric, record.dataset), []).append(record)
            continue
        labels = record.extra.get("labels")
        for chain in chains_of(record):
            key = (record.task, record.metric, record.dataset, record.engine, str(labels), chain)
            if key not in found:
                found[key] = Row(
                    task=record.task,
                    metric=record.metric,
                    dataset=record.dataset,
                    engine=record.engine,
                    labels=labels,
                    chain=chain,
                )
            found[key].sides.setdefault(record.init, []).append(record)
    table = []
    for row in found.values():
        _choose_random(row)
        for part in _by_setting(row):
            pixels = raw_pixels.get((part.task, part.metric, part.dataset))
            if pixels:
                part.sides["raw_pixels"] = pixels
            table.append(part)
    return sorted(table, key=_place)


def _chains(runs: Runs) -> Callable[[Record], list[str]]:
    """A function that names the pretrainings a record is compared under; [""] when there is one.

    Pretrainings that differ in nothing but the seed are one. A record of random weights belongs to
    every pretraining of the architecture it had.
    """
    made = [f for f in runs.folders if f.pretraining and isinstance(f.config.get("backbone"), dict)]
    keys = differing(folder.config for folder in made)
    shown = ["name"] if "name" in keys else keys[:3]
    names = {folder.name: stated(folder.config, shown) for folder in made}
    titles = {folder.name: folder.title for folder in made}
    if len(set(titles.values())) == len(set(names.values())):
        names = titles

    def of(record: Record) -> list[str]:
        origin = runs.origin(record)
        if record.init == "random" and origin is not None:
            same = (f for f in made if f.config["backbone"] == origin.config["backbone"])
            if alike := list(dict.fromkeys(names[folder.name] for folder in same)):
                return alike
        weights = str(record.config.get("weights"))
        return [weights if origin is None else names.get(origin.name, weights)]

    compared = [r for r in runs.records if r.task in TASKS and r.init == "pretrained"]
    several = len({name for record in compared for name in of(record)}) > 1
    return of if several else lambda record: [""]


def _place(row: Row) -> tuple:
    labels = (0, row.labels, "") if isinstance(row.labels, int | float) else (1, 0, str(row.labels))
    metric = METRICS.index(row.metric) if row.metric in METRICS else len(METRICS)
    return TASKS.index(row.task), labels, row.engine, metric, row.metric, row.chain, row.setting


def _choose_random(row: Row) -> None:
    """Of the two batch-norm variants of an untrained net, keep the better, so that it is fair."""
    variants: dict[str, list[Record]] = {}
    for record in row.sides.get("random", []):
        variants.setdefault(str(record.extra.get("bn", "")), []).append(record)
    if len(variants) < 2:
        return
    means = {name: sum(r.value for r in side) / len(side) for name, side in variants.items()}
    best = max(means, key=lambda name: means[name])
    row.sides["random"] = variants[best]
    other = ", ".join(f"{means[name]:.1f} {name}" for name in means if name != best)
    row.notes.append(
        f"Random init counts the better of two batch-norm variants: statistics {best} "
        f"({means[best]:.1f}; {other})."
    )


def _by_setting(row: Row) -> Iterator[Row]:
    """Runs with unlike settings apart, where each part still compares random with pretrained.

    Where it would not, they stay in one row and a footnote names what differs.
    """
    compared = [side for side in ("random", "pretrained") if row.sides.get(side)]
    everything = [record for side in compared for record in row.sides[side]]
    keys = differing(record.config for record in everything)
    if not keys:
        yield row
        return
    parts: dict[str, Row] = {}
    for side, records in row.sides.items():
        for record in records:
            setting = stated(record.config, keys)
            part = parts.setdefault(
                setting,
                replace(row, setting=setting, sides={}, notes=list(row.notes)),
            )
            part.sides.setdefault(side, []).append(record)
    if all(set(compared) <= set(part.sides) for part in parts.values()):
        yield from parts.values()
        return
    for side in compared:
        own = differing(record.config for record in row.sides[side])
        if own:
            row.notes.append(f"The {side} runs of this row differ in {', '.join(own)}.")
    between = [key for key in keys if not any(key in note for note in row.notes)]
    if between:
        row.notes.append(f"Random and pretrained runs differ in {', '.join(between)}.")
    yield row


def differing(configs: Iterable[dict[str, Any]]) -> list[str]:
    """Dotted keys whose values are not the same in all, repetition's own left out."""
    all_settings = [dict(flat(config)) for config in configs]
    keys = sorted({key for settings in all_settings for key in settings})
    return [key for key in keys if len({str(settings.get(key)) for settings in all_settings}) > 1]


def stated(config: dict[str, Any], keys: Iterable[str]) -> str:
    """The values of dotted `keys` in `config`: "a.b=1, c=2"."""
    settings = dict(flat(config))
    return ", ".join(f"{key}={settings.get(key)}" for key in keys)


def flat(config: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values, without those that repetitions of a run may differ in."""
    for key, value in config.items():
        if not prefix and key in REPEATED:
            continue
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
