"""How each number was made: every record under the command that made it."""

import re
from collections.abc import Sequence

from markupsafe import Markup

from visrep.results import Record
from visrep.tools.report.rows import TASKS
from visrep.tools.report.runs import MEASURED, Folder
from visrep.tools.report.section import Context
from visrep.tools.report.words import init, joined, share

TITLE = "How each number was made"
ORDER = 80
TASK_ORDER = ("pretrain", *TASKS, "distill", "export")


def render(context: Context) -> Markup | None:
    """The commands by task, folded away."""
    counted = {id(record) for record in context.runs.records}
    tasks: dict[str, list[tuple[Folder, list[Record], str]]] = {}
    for folder in context.runs.folders:
        made: dict[tuple, list[Record]] = {}
        for record in folder.records:
            if id(record) in counted:
                key = (record.task, record.command, record.seed, record.engine, record.weights)
                made.setdefault(key, []).append(record)
        for (task, *_), records in made.items():
            tasks.setdefault(task, []).append((folder, records, _facts(records)))
    order = {task: place for place, task in enumerate(TASK_ORDER)}
    return context.fill(
        "origins.html", tasks=sorted(tasks.items(), key=lambda item: order.get(item[0], 99))
    )


def _facts(records: Sequence[Record]) -> str:
    first, last = records[0], max(records, key=lambda record: record.time)
    extra = {key: value for key, value in first.extra.items() if key not in ("form", *MEASURED)}
    # Of a hash its first twelve digits.
    shown = {key: re.sub("^([0-9a-f]{12})[0-9a-f]{52}$", r"\1", str(extra[key])) for key in extra}
    labels = extra.pop("labels", None)
    return joined(
        first.task,
        init(first.init),
        first.dataset,
        f"{share(labels)} of labels" if labels is not None else "",
        *(f"{key} {shown[key]}" for key in extra if extra[key] not in (None, [])),
        f"seed {first.seed}",
        f"engine {first.engine}",
        f"weights {first.weights[:12]}" if first.weights != "none" else "",
        last.time.replace("T", " ").replace("+00:00", " UTC"),
    )
