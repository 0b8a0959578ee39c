"""Which records may share a cell: repetitions of one net, data, labels and settings.

Only the seed, the draw of the labels and what changes no number may differ in a cell. A net is a
pretraining with all its settings, or a file of weights by its hash.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from visrep.results import Record
from visrep.tools.report.runs import Folder, Runs

# Settings that may differ between two runs whose numbers are repetitions of one another; weights
# and labels are told apart by other means.
REPEATED = (
    "out", "seed", "weights", "teacher", "init", "bn", "draw", "labels", "device", "threads",
    "workers", "overwrite", "resume", "log_every", "snapshot_every", "eval_every",
    "forecast", "seeds", "published", "about", "health", "knn",
)  # fmt: skip
MOST = 3  # settings in a name; more are the folder's


@dataclass(frozen=True)
class Net:
    """What was measured: `key` tells it from every other, `name` is for people."""

    key: str
    name: str


def nets(runs: Runs) -> Callable[[Record], list[Net]]:
    """A function that names the nets that a record is compared under.

    Pretrainings that differ in nothing but the seed are one net. A record of random weights belongs
    to every net of the architecture it had, and where there is none, to a net of its own.
    """
    made = [f for f in runs.folders if f.pretraining and isinstance(f.config.get("backbone"), dict)]
    known = _named(made)
    files: dict[str, dict[str, Net]] = {}
    for record in runs.records:
        if record.init == "pretrained" and runs.origin(record) is None:
            path = str(record.config.get("weights"))
            found = files.setdefault(path, {})
            name = path if not found else f"{path}, sha256 {record.weights[:12]}"
            found.setdefault(record.weights, Net(f"{path} {record.weights}", name))

    def of(record: Record) -> list[Net]:
        origin, path = runs.origin(record), str(record.config.get("weights"))
        if record.init == "random":
            if origin is None:
                return list(files.get(path, {}).values()) or [Net(path, path)]
            spec = origin.config["backbone"]
            same = (known[folder.name] for folder in made if folder.config["backbone"] == spec)
            return list(dict.fromkeys(same)) or [Net(str(spec), origin.name)]
        if origin is None:
            return [files.get(path, {}).get(record.weights, Net(path, path))]
        return [known.get(origin.name, Net(origin.name, origin.name))]

    return of


def _named(made: Sequence[Folder]) -> dict[str, Net]:
    """The net of each pretraining: its title, and where two have one title, what differs."""
    keys = differing(folder.config for folder in made)
    named: dict[str, Net] = {}
    for folder in made:
        alike = [other for other in made if other.title == folder.title]
        own = differing(other.config for other in alike)
        key = stated(folder.config, keys)
        # Of repetitions the first folder gives the name.
        first = next(other for other in alike if stated(other.config, keys) == key)
        parts = [folder.title]
        if own:
            parts.append(stated(folder.config, own) if len(own) <= MOST else first.name)
        named[folder.name] = Net(key, ", ".join(parts))
    return named


def cells(records: Iterable[Record]) -> list[list[Record]]:
    """Records of one net and one share of labels, apart by their settings."""
    records = list(records)
    keys = differing(record.config for record in records)
    found: dict[str, list[Record]] = {}
    for record in records:
        found.setdefault(stated(record.config, keys), []).append(record)
    return list(found.values())


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
