"""What the linter of Detectron2 configs says."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

FATAL, WARNING, NOTE = "fatal", "warning", "note"
SEVERITIES = (FATAL, WARNING, NOTE)


@dataclass(frozen=True)
class Finding:
    """A mistake, or what may be one.

    Attributes:
        severity: fatal (Detectron2 refuses it, or the result is worthless), warning (it costs
            accuracy, or is right for other weights), note (worth knowing).
        check: its name.
        what: how it is.
        consequence: what follows.
        fix: yaml lines to write, or a sentence.
    """

    severity: str
    check: str
    what: str
    consequence: str
    fix: str = ""


def lines(values: Mapping[str, Any]) -> str:
    """`MODEL.RESNETS.DEPTH` -> value, as the lines of a yaml."""
    tree: dict[str, Any] = {}
    for key, value in values.items():
        *sections, last = key.split(".")
        place = tree
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = value
    return yaml.dump(tree, Dumper=_Lines, sort_keys=False, width=90).rstrip()


class _Lines(yaml.SafeDumper):
    """Sections over several lines, lists on one."""


_Lines.add_representer(
    list,
    lambda dumper, values: dumper.represent_sequence(
        "tag:yaml.org,2002:seq", values, flow_style=True
    ),
)
