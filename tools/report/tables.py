"""The report's numbers as HTML: headline strip, chain's table, teacher and student, provenance."""

import re
from collections.abc import Callable, Sequence

from visrep.results import Record
from visrep.tools.report.figures import bars, text
from visrep.tools.report.rows import TASKS, Pair, Row, Spread
from visrep.tools.report.runs import MEASURED, Folder, Runs

MAIN_METRICS = ("top1", "AP50", "AP", "AP75", "mask_AP50", "mask_AP")
STRIP_METRICS = ("top1", "AP50", "mask_AP50")
NAMES = {
    "knn": "kNN",
    "linear": "linear probe",
    "instance": "instance masks",
    "distill": "distillation",
}
ORDER = ("pretrain", *TASKS, "distill", "export")
INITS = {"random": "random init", "raw_pixels": "raw pixels", "pretrained": "pretrained"}


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


def measure(row: Row) -> str:
    """What a row is called: "10 % of labels", "detection"."""
    if row.task == "finetune":
        return f"finetune, {share(row.labels if row.labels is not None else 1.0)} of labels"
    return NAMES.get(row.task, row.task)


def metric(name: str) -> str:
    """A metric's name as people write it."""
    return name.replace("top1", "top-1").replace("top5", "top-5").replace("_", " ")


def strip(rows: Sequence[Row], pairs: Sequence[Pair]) -> str:
    """One card per key result: the gain in large, what it comes from as bars."""
    cards, shown = [], set()
    for row in rows:
        place = (row.task, row.labels)
        if row.metric not in STRIP_METRICS or "pretrained" not in row.sides or place in shown:
            continue
        shown.add(place)
        cards.append(_card(row))
    cards += [_pair_card(pair) for pair in pairs[:1] if pair.student.top1 and pair.teacher.top1]
    if not cards:
        return ""
    return (
        f'<section class="strip" aria-label="Key results">{"".join(cards)}</section>'
        '<p class="hint">Bars run from 0 to 100 %; the thin line on a bar is the range over seeds '
        "or draws of the labels.</p>"
    )


def _card(row: Row) -> str:
    values = [(INITS[init], init, row.spread(init)) for init in INITS if row.spread(init)]
    pretrained = row.spread("pretrained")
    assert pretrained is not None
    if row.gain is None:
        large = f"{pretrained.mean:.1f}<small> %</small>"
    else:
        large = f"{signed(row.gain)}<small> points<span> over random init</span></small>"
    name = measure(row).removeprefix("finetune, ")
    return (
        f'<article class="card"><h3>{text(_capital(name))} '
        f"<small>{text(metric(row.metric))}</small></h3>"
        f'<p class="large">{large}</p>{bars(values)}</article>'
    )


def _pair_card(pair: Pair) -> str:
    teacher, student = pair.teacher, pair.student
    assert teacher.top1 and student.top1
    facts = []
    if teacher.parameters and student.parameters:
        facts.append(f"{count(teacher.parameters)} → {count(student.parameters)} parameters")
    if teacher.bytes and student.bytes:
        facts.append(f"{size(teacher.bytes)} → {size(student.bytes)}")
    for engine in teacher.latency_ms:
        if engine in student.latency_ms:
            slow, fast = teacher.latency_ms[engine], student.latency_ms[engine]
            facts.append(f"{slow:.2f} → {fast:.2f} ms per image")
            break
    sides = [("teacher", "random", teacher.top1), ("student", "pretrained", student.top1)]
    return (
        '<article class="card"><h3>Student <small>top-1</small></h3>'
        f'<p class="large">{signed(student.top1.mean - teacher.top1.mean)}'
        f"<small> points<span> from its teacher</span></small></p>{bars(sides)}"
        f'<p class="facts">{"".join(f"<span>{text(fact)}</span>" for fact in facts)}</p></article>'
    )


def _capital(words: str) -> str:
    return words if words.startswith("kNN") else words[:1].upper() + words[1:]


def chain_table(rows: Sequence[Row]) -> str:
    """Random init against pretrained, every measure; the rarer metrics folded away."""
    main = [row for row in rows if row.metric in MAIN_METRICS]
    rest = [row for row in rows if row.metric not in MAIN_METRICS]
    if not rows:
        return '<p class="missing">No evaluation of an encoder in this folder.</p>'
    notes: list[str] = []
    body = _chain(main or rest, notes)
    if main and rest:
        body += f"<details><summary>Other metrics</summary>{_chain(rest, notes)}</details>"
    marks = "".join(f"<li>{text(note)}</li>" for note in notes)
    return body + (f'<ol class="notes">{marks}</ol>' if marks else "")


def _chain(rows: Sequence[Row], notes: list[str]) -> str:
    lines = []
    for row in rows:
        marks = ""
        for note in row.notes:
            if note not in notes:
                notes.append(note)
            marks += f"<sup>{notes.index(note) + 1}</sup>"
        gain = "–"
        if row.gain is not None:
            note = '<span class="range">ranges overlap</span>' if row.overlap else ""
            sign = {"+": "up", "−": "down"}.get(signed(row.gain)[0], "")
            gain = f'<b class="{sign}">{signed(row.gain)}</b>{note}'
        lines.append(
            f'<tr><th scope="row">{text(_capital(measure(row)))} '
            f"<b>{text(metric(row.metric))}</b>{marks}"
            f' <span class="range">{text(_context(row))}</span></th>'
            f"<td>{_spread(row.spread('random'))}</td>"
            f"<td>{_spread(row.spread('pretrained'))}</td><td>{gain}</td></tr>"
        )
    return (
        '<div class="scroll"><table class="chain"><thead><tr><th scope="col">Measure, %</th>'
        '<th scope="col">Random init</th><th scope="col">Pretrained</th>'
        f'<th scope="col">Gain</th></tr></thead><tbody>{"".join(lines)}</tbody></table></div>'
    )


def _context(row: Row) -> str:
    """Where a row was measured and how: data, engine, form of the metric, what tells it apart."""
    first = next(iter(row.sides.values()))[0]
    engine = "" if row.engine == "visrep" else row.engine
    pixels = row.spread("raw_pixels")
    reference = f"raw pixels, no net: {pixels.mean:.1f}" if pixels else ""
    form = "" if "area" in row.metric else first.extra.get("form")
    facts = (row.dataset, engine, form, row.chain, row.setting, reference)
    return " · ".join(str(fact) for fact in facts if fact)


def _spread(spread: Spread | None, form: str = ".1f") -> str:
    if spread is None:
        return "–"
    if spread.n == 1:
        return f'{spread.mean:{form}} <span class="range">(n=1)</span>'
    return (
        f'{spread.mean:{form}} <span class="range">({spread.low:{form}}–{spread.high:{form}}, '
        f"n={spread.n})</span>"
    )


def pair_tables(pairs: Sequence[Pair]) -> str:
    """Teacher against student: accuracy, parameters, sizes, latency."""
    return "".join(_pair_table(pair) for pair in pairs)


def _pair_table(pair: Pair) -> str:
    teacher, student = pair.teacher, pair.student
    lines = [
        _line("Parameters", teacher.parameters, student.parameters, count),
        _line("Encoder file", teacher.bytes, student.bytes, size),
        _line("ONNX file", teacher.onnx_bytes, student.onnx_bytes, size),
    ]
    for engine in sorted({*teacher.latency_ms, *student.latency_ms}):
        slow, fast = teacher.latency_ms.get(engine), student.latency_ms.get(engine)
        lines.append(_line(f"Latency of one image, {engine}", slow, fast, milliseconds))
    if teacher.top1 and student.top1:
        points = f"{signed(student.top1.mean - teacher.top1.mean)} points"
        cells = f"<td>{_spread(teacher.top1)}</td><td>{_spread(student.top1)}</td><td>{points}</td>"
        lines.insert(0, f'<tr><th scope="row">Top-1, %</th>{cells}</tr>')
    where = " · ".join(part for part in (pair.dataset, pair.setting) if part)
    return (
        f'<p class="hint">Measured on {text(where)}.</p>'
        '<div class="scroll"><table><thead><tr><th></th><th scope="col">Teacher</th>'
        '<th scope="col">Student</th><th scope="col">Student / teacher</th></tr></thead>'
        f"<tbody>{''.join(lines)}</tbody></table></div>"
    )


def _line(
    name: str, teacher: float | None, student: float | None, shown: Callable[[float], str]
) -> str:
    """One line of the pair's table, with the ratio; empty when neither side is known."""
    if teacher is None and student is None:
        return ""
    ratio = f"{100 * student / teacher:.0f} %" if teacher and student is not None else ""
    cells = ["–" if value is None else shown(value) for value in (teacher, student)]
    inside = "".join(f"<td>{text(cell)}</td>" for cell in (*cells, ratio))
    return f'<tr><th scope="row">{text(name)}</th>{inside}</tr>'


def provenance(runs: Runs) -> str:
    """Every record under the command that made it."""
    counted = {id(record) for record in runs.records}
    tasks: dict[str, list[str]] = {}
    for folder in runs.folders:
        groups: dict[tuple, list[Record]] = {}
        for record in folder.records:
            if id(record) in counted:
                key = (record.task, record.command, record.seed, record.engine, record.weights)
                groups.setdefault(key, []).append(record)
        for (task, *_), records in groups.items():
            tasks.setdefault(task, []).append(_block(folder, records))
    return "".join(
        f"<details><summary>{text(_capital(NAMES.get(task, task)))} "
        f"<small>{len(tasks[task])}</small></summary>{''.join(tasks[task])}</details>"
        for task in sorted(tasks, key=lambda task: ORDER.index(task) if task in ORDER else 99)
    )


def _short(value: object) -> str:
    """A setting's value; of a hash the first twelve digits."""
    return str(value)[:12] if re.fullmatch("[0-9a-f]{64}", str(value)) else str(value)


def _block(folder: Folder, records: Sequence[Record]) -> str:
    first, last = records[0], max(records, key=lambda record: record.time)
    extra = {key: value for key, value in first.extra.items() if key not in ("form", *MEASURED)}
    labels = extra.pop("labels", None)
    facts = [
        first.task,
        INITS.get(first.init, first.init),
        first.dataset,
        *([f"{share(labels)} of labels"] if labels is not None else []),
        *(f"{key} {_short(value)}" for key, value in extra.items() if value not in (None, [])),
        f"seed {first.seed}",
        f"engine {first.engine}",
        *([f"weights {first.weights[:12]}"] if first.weights != "none" else []),
        last.time.replace("T", " ").replace("+00:00", " UTC"),
    ]
    values = "".join(
        f"<li><b>{record.value:.4g}</b> {text(metric(record.metric))}"
        + (f" ({text(record.extra['form'])})" if record.extra.get("form") else "")
        + "</li>"
        for record in records
    )
    return (
        f'<article class="made"><h3>{text(folder.name)}</h3><ul class="values">{values}</ul>'
        f"<code>{text(first.command)}</code>"
        f'<p class="facts">{text(" · ".join(facts))}</p></article>'
    )
