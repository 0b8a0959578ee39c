"""Names of classes: a choice among those of a file, and two spellings of one name."""

import difflib
import logging
from collections import Counter
from collections.abc import Sequence

from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


def choose(found: Sequence[str], asked: Sequence[str] | str | None, where: str) -> list[str]:
    """`asked` in its order, or all that were `found`; warns of spellings of one name among these.

    Raises:
        ConfigError: `asked` is empty or has a name twice.
        UserError: none of `asked` is among `found`.
    """
    for names in spellings(found):
        log.warning(
            "%s: %s are probably one class; give them one name, or choose with detection.classes",
            where,
            " and ".join(names),
        )
    if asked is None:
        return list(found)
    chosen = [str(name) for name in ([asked] if isinstance(asked, str) else asked)]
    if not chosen:
        raise ConfigError("detection.classes is empty; name some, or null for all")
    twice = [name for name, count in Counter(chosen).items() if count > 1]
    if twice:
        raise ConfigError(f"detection.classes has {twice[0]} twice; name each class once")
    if not set(chosen) & set(found):
        raise UserError(
            f"{where} has none of the classes {', '.join(chosen)}; it has {', '.join(found)}"
        )
    return chosen


def say_ignored(ignored: Counter[str], where: str) -> None:
    """Log how many boxes of classes that were not chosen are left aside."""
    if ignored:
        counts = ", ".join(f"{name} {count}" for name, count in sorted(ignored.items()))
        log.info("%s: boxes of other classes, ignored: %s", where, counts)


def spellings(names: Sequence[str]) -> list[list[str]]:
    """Names that differ only in case, spaces, hyphens and underscores, in groups."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        groups.setdefault("".join(c for c in name.casefold() if c not in " -_"), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def nearest(name: str, names: Sequence[str]) -> str:
    """A hint at the name that was perhaps meant, or an empty text."""
    alike = {other.casefold(): other for other in names}
    close = difflib.get_close_matches(name.casefold(), alike, n=1)
    return f" (perhaps {alike[close[0]]})" if close else ""
