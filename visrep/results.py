"""Measured numbers, one JSON line each; the report reads them and computes nothing."""

import json
import logging
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visrep import files
from visrep.errors import UserError

log = logging.getLogger("visrep")


@dataclass(kw_only=True)
class Record:
    """One measured number.

    Attributes:
        task: pretrain, knn, linear, finetune, detection, instance, keypoints, distill or export.
        dataset: name of the data, with its split.
        metric: top1, AP, AP50, AP75, AP50_area, mask_AP50, ... ; percent where it is a share.
        value: the number.
        weights: sha256 of the evaluated encoder, as in its file.
        init: pretrained, random or raw_pixels.
        command: the command line that made it.
        config: the resolved configuration.
        engine: what computed it: visrep, torchvision, detectron2, onnxruntime.
        seed: the run's seed.
        extra: whatever else the number means nothing without (fraction of labels, draw, form of
            the metric, parameters, bytes, latency_ms).
        time: when, ISO 8601 in UTC.
    """

    task: str
    dataset: str
    metric: str
    value: float
    weights: str
    init: str
    command: str
    config: dict[str, Any]
    engine: str
    seed: int
    extra: dict[str, Any] = field(default_factory=dict)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="seconds"))


# What makes two records the same measurement, whatever command and hour they come from.
_IDENTITY = ("task", "dataset", "metric", "value", "weights", "init", "engine", "seed", "extra")


def append(path: str | Path, record: Record) -> None:
    """Append `record` to the JSON-lines file `path`, in one write.

    Raises:
        UserError: the file cannot be written.
    """
    path = Path(path)
    line = json.dumps(asdict(record), allow_nan=False)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space") from error
    files.append_line(path, line)


def holds(path: str | Path, record: Record) -> bool:
    """Is this measurement in the file `path` already, from an earlier try of the same run?"""

    def identity(of: Record) -> str:
        values = asdict(of)
        return json.dumps([values[name] for name in _IDENTITY], sort_keys=True)

    if not Path(path).exists():
        return False
    return identity(record) in {identity(known) for known in read(path)}


def read(path: str | Path) -> list[Record]:
    """All records of the JSON-lines file `path`; a last line that was cut short is passed over.

    Raises:
        UserError: the file cannot be read, or a line is not a record; the message names the line.
    """
    try:
        text = Path(path).read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror}") from error
    records = []
    lines = text.splitlines(keepends=True)
    for number, line in enumerate(lines, start=1):
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            if number == len(lines) and not line.endswith("\n"):
                log.warning("%s:%d: cut short, so it is passed over", path, number)
                continue
            raise UserError(
                f"{path}:{number}: not a results record ({error}); repair or remove the line"
            ) from error
    return records
