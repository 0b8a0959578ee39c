"""The report's page: title, sections in order, credits; no network, no script."""

from collections.abc import Iterable, Sequence
from typing import Any

from visrep import __version__
from visrep.data.builtin.digits import CREDITS
from visrep.tools.report import pictures, tables
from visrep.tools.report.figures import text
from visrep.tools.report.rows import pairs, rows
from visrep.tools.report.runs import Folder, Runs
from visrep.tools.report.style import CSS

MARK = '<meta name="generator" content="visrep report">'


def page(runs: Runs, *, title: str | None, images: int, min_score: float) -> str:
    """The whole page as HTML.

    Args:
        runs: what to show; `notes` grows by what turns out to be unreadable.
        title: the heading; None = which method on which data.
        images: test images and neighbour queries shown at most.
        min_score: lowest score of a box that is drawn, 0 to 1.
    """
    table, distilled = rows(runs), pairs(runs)
    sections = [
        _section("Random init against pretrained", tables.chain_table(table)),
        _section("Teacher against student", tables.pair_tables(distilled)),
        _section("Training", pictures.curves(runs, table)),
        _section("Augmented views", pictures.views(runs)),
        _section(
            "Boxes on test images",
            pictures.detections(runs, most=images, min_score=min_score),
        ),
        _section("Nearest neighbours", pictures.neighbours(runs, most=images)),
        _section(
            "How each number was made",
            '<p class="hint">Each number with the command that made it, its seed, the engine that '
            "computed it and the first twelve digits of the weights' SHA-256. The run folder holds "
            "the full configuration. All numbers were measured by these commands; none is quoted "
            f"from a publication.</p>{tables.provenance(runs)}",
        ),
    ]
    heading = title or _title(runs)
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">{MARK}'
        f"<title>{text(heading)}</title><style>{CSS}</style></head><body>"
        f'<header><h1>{text(heading)}</h1><p class="about">{text(_about(runs))}</p></header>'
        f"<main>{tables.strip(table, distilled)}{''.join(sections)}</main>"
        f"<footer>{_footer(runs)}</footer></body></html>\n"
    )


def _section(title: str, body: str) -> str:
    if not body:
        body = f'<p class="missing">{text(MISSING[title])}</p>'
    return f"<section><h2>{text(title)}</h2>{body}</section>"


MISSING = {
    "Teacher against student": "No distillation run here.",
    "Augmented views": "No picture of views (views.png) here.",
    "Boxes on test images": "No detections (predictions.json) here.",
    "Nearest neighbours": "No neighbours (neighbours.json) here.",
}


def _pretraining(runs: Runs) -> list[Folder]:
    return [folder for folder in runs.folders if folder.pretraining and folder.records]


def _title(runs: Runs) -> str:
    found = _pretraining(runs)
    if not found:
        return f"Results in {runs.root.resolve().name}"
    methods = _listed(method(f.records[0].extra.get("method", f.config.get("name"))) for f in found)
    return f"{methods} on {_listed(f.records[0].dataset.partition('/')[0] for f in found)}"


def method(name: object) -> str:
    """A method as its paper writes it: "SimCLR v2"; what the recipe is for is left out."""
    words = str(name or "pretraining").split("_")
    known = [NAMES.get(word, word) for word in words if word in NAMES or word in ("v1", "v2")]
    return " ".join(known) or " ".join(words)


NAMES = {
    "barlow": "Barlow Twins",
    "byol": "BYOL",
    "exemplar": "Exemplar-CNN",
    "moco": "MoCo",
    "npid": "NPID",
    "simclr": "SimCLR",
    "simsiam": "SimSiam",
    "swav": "SwAV",
}


def _about(runs: Runs) -> str:
    """What was run, where it is and when it was."""
    found = _pretraining(runs)
    backbones = _listed(backbone(f.config.get("backbone")) for f in found)
    times = sorted(record.time for record in runs.records)
    days = [time[:16].replace("T", " ") for time in (times[0], times[-1])]
    end = days[1][11:] if days[0][:10] == days[1][:10] else days[1]
    when = days[0] if days[0] == days[1] else f"{days[0]} to {end}"
    folders = sum(bool(folder.records) for folder in runs.folders)
    facts = [backbones, f"{folders} runs in {runs.root}", f"{when} UTC"]
    return " · ".join(fact for fact in facts if fact)


def backbone(spec: Any) -> str:
    """A backbone's configuration in words: "ResNet-18, width × 0.25, small stem"."""
    if not isinstance(spec, dict) or "depth" not in spec:
        return ""
    words = f"ResNet-{spec['depth']}"
    if spec.get("sk"):
        words += " with SK"
    if spec.get("width", 1) != 1:
        words += f", width × {spec['width']:g}"
    if spec.get("stem", "imagenet") != "imagenet":
        words += f", {spec['stem']} stem"
    return words


def _listed(words: Iterable[Any]) -> str:
    unique: Sequence[str] = list(dict.fromkeys(str(word) for word in words if word))
    return " and ".join(unique) if len(unique) < 3 else f"{', '.join(unique[:-1])} and {unique[-1]}"


def _footer(runs: Runs) -> str:
    lines = []
    if any(record.dataset.split("/")[0] == "scenes" for record in runs.records):
        lines.append(CREDITS)
    for folder in runs.folders:
        environment = folder.path / "env.txt"
        if environment.exists():
            lines.append(" · ".join(environment.read_text(errors="replace").splitlines()))
            break
    if runs.notes:
        lines.append("Left out: " + " ".join(dict.fromkeys(runs.notes)))
    lines.append(f"Written by visrep {__version__}.")
    return "".join(f"<p>{text(line)}</p>" for line in lines)
