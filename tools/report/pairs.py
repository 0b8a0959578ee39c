"""A teacher beside its student: accuracy, parameters, sizes, latency."""

from dataclasses import dataclass, field

from visrep.results import Record
from visrep.tools.report.rows import Spread, differing, stated
from visrep.tools.report.runs import Runs


@dataclass(kw_only=True)
class Net:
    """A classifier as it would be deployed.

    Attributes:
        top1: accuracy in percent.
        parameters: their number.
        bytes: size of the encoder file.
        onnx_bytes: size of the ONNX file.
        latency_ms: median of one image, by engine.
    """

    top1: Spread | None = None
    parameters: int | None = None
    bytes: int | None = None
    onnx_bytes: int | None = None
    latency_ms: dict[str, float] = field(default_factory=dict)


@dataclass(kw_only=True)
class Pair:
    """A teacher and its student, measured on the same data."""

    dataset: str
    setting: str
    teacher: Net
    student: Net


def pairs(runs: Runs) -> list[Pair]:
    """Teacher against student, one entry per kind of distillation run."""
    records = runs.records
    distilled = [r for r in records if r.task == "distill" and "role" in r.extra]
    exported: dict[str, list[Record]] = {}
    for record in records:
        if record.task == "export":
            exported.setdefault(record.weights, []).append(record)
    keys = differing(record.config for record in distilled)
    groups: dict[tuple[str, str], dict[str, list[Record]]] = {}
    for record in distilled:
        roles = groups.setdefault((record.dataset, stated(record.config, keys)), {})
        roles.setdefault(str(record.extra["role"]), []).append(record)
    return [
        Pair(
            dataset=dataset,
            setting=setting,
            teacher=_net(roles.get("teacher", []), exported),
            student=_net(roles.get("student", []), exported),
        )
        for (dataset, setting), roles in groups.items()
    ]


def _net(records: list[Record], exported: dict[str, list[Record]]) -> Net:
    net = Net(top1=Spread.of(record for record in records if record.metric == "top1"))
    for record in records:
        net.parameters = record.extra.get("parameters", net.parameters)
        net.bytes = record.extra.get("bytes", net.bytes)
        for export in exported.get(record.weights, []):
            net.onnx_bytes = export.extra.get("bytes", net.onnx_bytes)
            if export.metric == "latency_ms":
                net.latency_ms[export.engine] = export.value
    return net
