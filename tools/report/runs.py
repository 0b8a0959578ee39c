"""What a folder of runs holds, gathered for the report: records, curves, pictures.

Nothing here is measured; the report shows what the commands have written beside their runs:
`results.jsonl`, `metrics.jsonl`, `config.yaml`, and for the sections that show them `views.png`,
`neighbours.json`, `predictions.json`, `errors.json`.
"""

import json
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import yaml
from jinja2 import UndefinedError

from visrep import results
from visrep.errors import UserError
from visrep.results import Record

T = TypeVar("T")

SIGNS = ("results.jsonl", "metrics.jsonl", "config.yaml", "views.png")

INITS = ("pretrained", "random")

# What is measured beside the value; everything else in `extra` says what the number is.
MEASURED = ("bytes", "parameters", "latency_ms", "max_difference", "held_out_top1", "lr")


@dataclass(kw_only=True)
class Folder:
    """One run folder.

    Attributes:
        path: where it is.
        name: its path below the report's folder, as shown.
        records: its measured numbers.
        config: its resolved configuration, empty when there is none.
        metrics: its training log, one mapping with `step` per reading.
    """

    path: Path
    name: str
    records: list[Record] = field(default_factory=list)
    config: dict[str, Any] = field(default_factory=dict)
    metrics: list[dict[str, float]] = field(default_factory=list)

    @property
    def task(self) -> str:
        """The task of its records; where it has none yet, the first part of its name."""
        return self.records[0].task if self.records else self.name.split("/")[-1].split("-")[0]

    @property
    def again(self) -> bool:
        """It has trained nothing, and measured a detector that another run kept."""
        return bool(self.config.get("detector"))

    @property
    def pretraining(self) -> bool:
        """It has pretrained an encoder; with steps=0 it only saved a fresh one."""
        return self.task == "pretrain" and self.config.get("steps") != 0

    @property
    def title(self) -> str:
        """What it pretrained with: the method's title, or the name of its yaml before 0.2."""
        extra = self.records[0].extra if self.records else {}
        named = (extra.get("title"), extra.get("method"), self.config.get("name"))
        return str(next(filter(None, named), self.name))

    @property
    def init(self) -> str:
        """The initialisation it measured."""
        return self.records[0].init if self.records else str(self.config.get("init", "pretrained"))

    def points(self, metric: str) -> list[tuple[float, float]]:
        """(step, value) of `metric`.

        A command that trains twice (the linear probe: to choose, then for good) starts again at a
        low step; only the last training is shown.
        """
        points: list[tuple[float, float]] = []
        for line in self.metrics:
            if metric in line:
                if points and line["step"] < points[-1][0]:
                    points = []
                points.append((line["step"], line[metric]))
        return points


@dataclass(kw_only=True)
class Runs:
    """All run folders below one folder, and what could not be read, a line each."""

    root: Path
    folders: list[Folder]
    notes: list[str]

    @cached_property
    def records(self) -> list[Record]:
        """All records, a repeated measurement only in its last form.

        What the run that trained a detector has measured itself is not counted again.
        """
        made, again = (
            latest(r for folder in self.folders if folder.again == kind for r in folder.records)
            for kind in (False, True)
        )
        known = {_identity(record) for record in made}
        more = [record for record in again if _identity(record) not in known]
        return sorted(made + more, key=lambda record: record.time)

    def origin(self, record: Record) -> Folder | None:
        """The run that made the encoder which `record` measured.

        Known by the hash of the encoder, else by the folder that `weights=` is in, also when the
        whole was moved since.
        """
        place = "/" + Path(str(record.config.get("weights"))).parent.as_posix()
        made = [
            folder for folder in self.folders if isinstance(folder.config.get("backbone"), dict)
        ]
        by_hash = [f for f in made if any(own.weights == record.weights for own in f.records)]
        by_place = [folder for folder in made if place.endswith(f"/{folder.name}")]
        found = by_hash[-1:] or by_place
        return max(found, key=lambda folder: len(folder.name), default=None)

    def read_each(
        self, name: str, read: Callable[[dict[str, Any]], T]
    ) -> Iterator[tuple[Folder, T]]:
        """Of pretrained and of random weights the first run with a JSON file `name`, as `read`."""
        for init in INITS:
            yield from islice(self.read_all(name, read, inits=[init]), 1)

    def read_all(
        self, name: str, read: Callable[[dict[str, Any]], T], *, inits: Sequence[str] = INITS
    ) -> Iterator[tuple[Folder, T]]:
        """Every measured run with a JSON file `name`, as `read`; pretrained weights come first.

        A file that cannot be read, or not by `read`, is left out with a note.
        """
        for folder in (f for init in inits for f in self.folders if f.init == init and f.records):
            path = folder.path / name
            if not path.exists():
                continue
            try:
                content = read(json.loads(path.read_text(encoding="utf-8")))
            except (OSError, ValueError, TypeError, LookupError, UndefinedError) as error:
                reason = f"no {error}" if isinstance(error, KeyError) else error
                self.notes.append(f"{folder.name}/{name} was left out: {reason}.")
            else:
                yield folder, content


def collect(root: str | Path) -> Runs:
    """Everything the report can show of the runs in `root`.

    Raises:
        UserError: `root` is no folder, holds no results, or a results file is damaged.
    """
    root = Path(root)
    if not root.is_dir():
        raise UserError(f"runs={root}: there is no such folder; name one that holds runs")
    notes: list[str] = []
    folders = []
    for path, below, names in os.walk(root):
        below.sort()
        if any(sign in names for sign in SIGNS):
            folders.append(_folder(Path(path), root, notes))
    _as_trained(folders)
    if not any(folder.records for folder in folders):
        raise UserError(
            f"runs={root}: no results.jsonl with a record in it or below; run an evaluation "
            "(visrep knn, linear, detect, finetune) with out= in this folder first"
        )
    return Runs(root=root, folders=folders, notes=notes)


def _folder(path: Path, root: Path, notes: list[str]) -> Folder:
    name = path.relative_to(root).as_posix()
    folder = Folder(path=path, name=root.resolve().name if name == "." else name)
    if (path / "results.jsonl").exists():
        # A mean over several runs, which `detect seeds=` records: its runs are counted themselves.
        records = results.read(path / "results.jsonl")
        folder.records = [record for record in records if "runs" not in record.extra]
    if (path / "config.yaml").exists():
        try:
            config = yaml.safe_load((path / "config.yaml").read_text(encoding="utf-8"))
            folder.config = config if isinstance(config, dict) else {}
        except (OSError, ValueError, yaml.YAMLError):
            notes.append(f"{name}/config.yaml cannot be read and was left out.")
    if (path / "metrics.jsonl").exists():
        folder.metrics, skipped = _metrics(path / "metrics.jsonl")
        if skipped:
            notes.append(f"{name}/metrics.jsonl: {skipped} unreadable lines were left out.")
    return folder


def _metrics(path: Path) -> tuple[list[dict[str, float]], int]:
    """The readable lines, and how many were not (a running or killed run leaves half a line)."""
    lines, skipped = [], 0
    for text in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            line = json.loads(text)
            lines.append({str(key): float(value) for key, value in line.items()})
            lines[-1]["step"]
        except (ValueError, TypeError, AttributeError):
            skipped += 1
        except KeyError:
            lines.pop()
            skipped += 1
    return lines, skipped


def _as_trained(folders: Sequence[Folder]) -> None:
    """Give measurements of a kept detector the seed and the settings that it was trained with.

    The test data stay those that it was measured on. A detector is known by its hash; one that no
    run here has trained keeps the settings of its measuring.
    """
    trained = {
        record.extra["detector"]: record
        for folder in folders
        if not folder.again
        for record in folder.records
        if "detector" in record.extra
    }
    for folder in filter(lambda folder: folder.again, folders):
        for place, record in enumerate(folder.records):
            made = trained.get(record.extra.get("detector"))
            if made is not None:
                own = record.config.get("detection") or {}
                test = {key: value for key, value in own.items() if key != "train"}
                detection = {**(made.config.get("detection") or {}), **test}
                folder.records[place] = replace(
                    record, seed=made.seed, config={**made.config, "detection": detection}
                )


def latest(records: Iterable[Record]) -> list[Record]:
    """Of measurements that are one and the same, the last; in the order of their times."""
    in_order = sorted(records, key=lambda record: record.time)
    return list({_identity(record): record for record in in_order}.values())


def _identity(record: Record) -> str:
    """What two records of one measurement have alike."""
    same = {key: value for key, value in record.config.items() if key not in ("out", "device")}
    extra = {key: value for key, value in record.extra.items() if key not in MEASURED}
    return json.dumps(
        [record.task, record.dataset, record.metric, record.init, record.engine, record.seed,
         record.weights, extra, same],
        sort_keys=True, default=str,
    )  # fmt: skip
