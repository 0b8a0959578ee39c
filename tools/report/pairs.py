"""A teacher beside its student: accuracy, parameters, sizes, latency."""

from dataclasses import dataclass, field

from visrep.results import Record
from visrep.tools.report.nets import differing, nets, stated
from visrep.tools.report.rows import Spread
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
    """Teacher against student, one entry per kind of distillation run and teacher.

    Teachers are one where they are repetitions: finetuned from one net, with the same settings.
    """
    records, of = runs.records, nets(runs)
    finetuned = [record for record in records if record.extra.get("finetuned")]
    apart = differing(record.config for record in finetuned)
    taught_by = {
        str(record.extra["finetuned"]): (
            *(net.name for net in of(record)),
            record.init,
            str(record.extra.get("labels")),
            stated(record.config, apart),
        )
        for record in finetuned
    }
    distilled = [r for r in records if r.task == "distill" and "role" in r.extra]
    exported: dict[str, list[Record]] = {}
    for record in records:
        if record.task == "export":
            exported.setdefault(record.weights, []).append(record)
    keys = differing(record.config for record in distilled)
    groups: dict[tuple, dict[str, list[Record]]] = {}
    for record in distilled:
        sha256 = str(record.extra.get("teacher"))
        teacher = taught_by.get(sha256, (f"teacher {sha256[:12]}",))
        roles = groups.setdefault((record.dataset, stated(record.config, keys), teacher), {})
        roles.setdefault(str(record.extra["role"]), []).append(record)
    several = len({teacher for _, _, teacher in groups}) > 1
    return [
        Pair(
            dataset=dataset,
            setting=", ".join(filter(None, (setting, *(teacher if several else ())))),
            teacher=_net(roles.get("teacher", []), exported),
            student=_net(roles.get("student", []), exported),
        )
        for (dataset, setting, teacher), roles in groups.items()
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
