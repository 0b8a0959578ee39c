"""The known mistakes in a Detectron2 config: all checks, and the page of what they find.

Nothing is imported from Detectron2, and nothing in the files is executed. A finding is fatal where
it is wrong whatever the weights are, or wrong for the weights that are given; without a weights
file, what would suit other weights is a warning.
"""

import textwrap
from collections import Counter
from collections.abc import Iterator

from visrep.d2.lint import training
from visrep.d2.lint.backbone import check_net
from visrep.d2.lint.config import Config
from visrep.d2.lint.finding import FATAL, SEVERITIES, WARNING, Finding
from visrep.d2.lint.input import check_input
from visrep.d2.lint.loading import check_weights
from visrep.d2.lint.weights import Weights

WIDTH = 100


def lint(config: Config, weights: Weights | None) -> list[Finding]:
    """All findings, the gravest first."""
    found = list(_check_files(config))
    if config.missing_base is None:
        found += [
            *check_input(config, weights),
            *check_net(config),
            *check_weights(config, weights),
            *training.check_data(config),
            *training.check_rate(config),
            *training.check_schedule(config),
            *training.check_statistics(config),
        ]
    return sorted(found, key=lambda finding: SEVERITIES.index(finding.severity))


def text(config: Config, weights: Weights | None, findings: list[Finding]) -> str:
    """What is printed."""
    chain = " <- ".join(path.name for path in reversed(config.files))
    beside = f", with {weights.path} ({weights.kind})" if weights else ""
    parts = [f"{chain}{beside}", ""]
    for finding in findings:
        parts += [_wrapped(f"{finding.severity:8}{finding.check}: {finding.what}", 8)]
        parts += [_wrapped(f"        {finding.consequence}", 8)]
        if finding.fix:
            parts += ["    fix", textwrap.indent(finding.fix, " " * 8)]
        parts += [""]
    counts = Counter(finding.severity for finding in findings)
    for severity in SEVERITIES:
        names = dict.fromkeys(f.check for f in findings if f.severity == severity)
        parts += [f"{severity:8}{counts[severity]:3}   {', '.join(names)}".rstrip()]
    return "".join(c if c.isprintable() or c == "\n" else "?" for c in "\n".join(parts))


def _check_files(config: Config) -> Iterator[Finding]:
    if config.missing_base:
        yield Finding(
            FATAL,
            "base",
            config.missing_base,
            "Detectron2 cannot load it; nothing but the files that are there was looked at",
        )
    for file in dict.fromkeys(repeated.file for repeated in config.repeated):
        here = [r for r in config.repeated if r.file == file and r.lost]
        if here:
            places = ", ".join(f"{r.key} (line {r.line})" for r in here)
            lost = ", ".join(f"{key} {value}" for r in here for key, value in r.lost.items())
            yield Finding(
                WARNING,
                "repeated-key",
                f"{file.name} repeats {places}",
                f"the last one counts; what stands before it is lost: {lost}",
                "join the sections, and keep one of each key",
            )
    for tag in config.code:
        yield Finding(
            WARNING,
            "code",
            f"{config.path.name} asks for Python to be run, at {tag}",
            "Detectron2 runs it when it loads the file; visrep does not, so this value is unknown",
            "write the value itself",
        )
    for key, (value, kind) in config.misfits.items():
        yield Finding(
            FATAL,
            "type",
            f"{key} is {value!r}, which is no {kind}",
            "Detectron2 refuses it"
            + (
                ": one name in brackets is a text in Python; a comma makes it a tuple"
                if kind == "list" and isinstance(value, str)
                else ""
            ),
        )


def _wrapped(line: str, indent: int) -> str:
    return textwrap.fill(
        line, WIDTH, subsequent_indent=" " * indent, break_long_words=False, break_on_hyphens=False
    )
