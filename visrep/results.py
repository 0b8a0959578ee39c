"""Measured numbers, one JSON line each; the report reads them and computes nothing."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from visrep.errors import UserError


@dataclass(kw_only=True)
class Record:
    """One measured number.

    Attributes:
        task: pretrain, knn, linear, finetune, detection, instance, distill or export.
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


def append(path: str | Path, record: Record) -> None:
    """Append `record` to the JSON-lines file `path`, in one write."""
    path = Path(path)
    line = json.dumps(asdict(record), allow_nan=False) + "\n"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "a", encoding="utf-8") as stream:
            stream.write(line)
    except OSError as error:
        raise UserError(f"cannot write {path}: {error.strerror}; free some space") from error


def read(path: str | Path) -> list[Record]:
    """All records of the JSON-lines file `path`.

    Raises:
        UserError: a line is not a record; the message names file and line.
    """
    records = []
    for number, line in enumerate(Path(path).read_text(encoding="utf-8").splitlines(), start=1):
        try:
            records.append(Record(**json.loads(line)))
        except (ValueError, TypeError) as error:
            raise UserError(f"{path}:{number}: not a results record ({error})") from error
    return records
