"""A run knows its data: what it was begun on, and whether it may go on with what is there now."""

import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from visrep import files
from visrep.data.identity import changes
from visrep.errors import ConfigError

log = logging.getLogger("visrep")

FILE = "data.json"


@dataclass(frozen=True)
class KnownData:
    """The data that a run trains on.

    Attributes:
        record: as `visrep.data.identity` makes it.
        word: `resume_data`; changed allows other images (not other classes, which are outputs).
        fixed: why not even that word helps; "" where it does.
        classes_matter: the net has an output for each class.
    """

    record: Mapping[str, Any]
    word: str = "same"
    fixed: str = ""
    classes_matter: bool = True

    def __post_init__(self) -> None:
        if self.word not in ("same", "changed"):
            raise ConfigError(f"resume_data={self.word}: choose same or changed")

    @property
    def digest(self) -> dict[str, Any]:
        """The record for a snapshot: without the list of images."""
        return {name: value for name, value in self.record.items() if name != "images"}

    def changed_since(self, before: Mapping[str, Any], where: object) -> bool:
        """Are they others than those of the record `before`, which is that of `where`?

        Raises:
            ConfigError: they are, and must not be; the message says in what.
        """
        found = changes(before, self.record)
        if not found:
            return False
        classes = [change for change in found if change.startswith("class")]
        said = "; ".join(found)
        if self.fixed or self.word == "same" or (classes and self.classes_matter):
            if self.fixed:
                advice = f" ({self.fixed})"
            elif classes and self.classes_matter:
                advice = " (the net has an output for each class)"
            else:
                advice = ", or go on with what is there now by resume_data=changed"
            raise ConfigError(
                f"the data have changed since {where} was begun: {said}; give it the data it was "
                f"begun with, choose another out={advice}"
            )
        log.warning("resume_data=changed: %s goes on with other data: %s", where, said)
        return True


def compare_and_keep(out: Path, data: KnownData, *, begun: bool) -> bool:
    """Compare `data` with `data.json` in the run folder `out`, and write it.

    Returns:
        whether they have changed since the run was begun.

    Raises:
        ConfigError: they have changed and must not.
    """
    path, changed = out / FILE, False
    before = read(path) if begun else None
    if before is not None:
        changed = data.changed_since(before, out)
    elif begun:
        log.warning(
            "%s has no readable %s (an earlier version began it): the data are taken to be those "
            "that it was begun with",
            out,
            FILE,
        )
    files.write_text(path, json.dumps(data.record, indent=0) + "\n")
    return changed


def read(path: Path) -> dict[str, Any] | None:
    """The record in `path`; None when there is none that can be read."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    kinds: dict[str, Any] = {"count": int, "classes": list | None, "kind": str}
    kinds |= {"fingerprint": str, "images": dict | None}
    whole = isinstance(record, dict) and all(
        name in record and isinstance(record[name], kind) for name, kind in kinds.items()
    )
    return record if whole else None
