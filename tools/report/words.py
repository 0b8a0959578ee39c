"""Numbers and names as people read them; the templates have these functions as filters."""

from collections.abc import Iterable
from typing import Any

from visrep.tools.report.rows import Row

INITS = {"pretrained": "pretrained", "random": "random init", "raw_pixels": "raw pixels"}
TASKS = {
    "knn": "kNN",
    "svm": "SVM",
    "linear": "linear probe",
    "instance": "instance masks",
    "semantic": "classes of pixels",
    "distill": "distillation",
}


def signed(value: float) -> str:
    """+40.2, −0.9, with a true minus sign; 0.0 has none."""
    shown = f"{value:+.1f}".replace("-", "−")
    return shown[1:] if shown[1:] == "0.0" else shown


def share(value: float | str) -> str:
    """A share of labels as people say it: 1 %, 10 %; a list's name stays."""
    return f"{100 * value:g} %" if isinstance(value, int | float) else str(value)


def count(value: float) -> str:
    """A number of parameters: 0.70 M, 85 k."""
    if value >= 1e5:
        return f"{value / 1e6:.2f} M" if value < 1e8 else f"{value / 1e6:.0f} M"
    return f"{value / 1e3:.0f} k" if value >= 1e3 else f"{value:g}"


def size(value: float) -> str:
    """Bytes: 2.84 MB, 71 kB."""
    return f"{value / 1e6:.2f} MB" if value >= 1e5 else f"{value / 1e3:.0f} kB"


def milliseconds(value: float) -> str:
    """0.41 ms."""
    return f"{value:.2f} ms"


def task(name: str) -> str:
    """A task's name as people write it."""
    return TASKS.get(name, name.replace("_", " "))


def measure(row: Row) -> str:
    """What a row is called: "finetune, 10 % of labels", "detection"."""
    if row.task == "finetune" or row.labels is not None:
        return f"{task(row.task)}, {share(1.0 if row.labels is None else row.labels)} of labels"
    return task(row.task)


def metric(name: str) -> str:
    """A metric's name as people write it."""
    return name.replace("top1", "top-1").replace("top5", "top-5").replace("_", " ")


def init(name: str) -> str:
    """An initialisation's name as people write it."""
    return INITS.get(name, name)


def capital(words: str) -> str:
    """The first letter as a capital, but kNN."""
    return words if words.startswith("kNN") else words[:1].upper() + words[1:]


def listed(words: Iterable[Any]) -> str:
    """Each word once: "a", "a and b", "a, b and c"."""
    *most, last = list(dict.fromkeys(str(word) for word in words if word)) or [""]
    return f"{', '.join(most)} and {last}" if most else last


def joined(*facts: object) -> str:
    """What is known of `facts`, with dots between."""
    return " · ".join(str(fact) for fact in facts if fact)


def backbone(spec: Any) -> str:
    """A backbone's configuration in words: "ResNet-18, width × 0.25, small stem"."""
    if not isinstance(spec, dict) or "depth" not in spec:
        return ""
    words = f"ResNet-{spec['depth']}" + " with SK" * bool(spec.get("sk"))
    if spec.get("width", 1) != 1:
        words += f", width × {spec['width']:g}"
    return words if spec.get("stem", "imagenet") == "imagenet" else f"{words}, {spec['stem']} stem"


FILTERS = (signed, share, count, size, milliseconds, task, measure, metric, init, capital)
