"""Which run may go on in a run folder: one with the same settings, on the same data."""

import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from visrep import renamed
from visrep.engine import snapshot
from visrep.errors import ConfigError, UserError

# What may differ between a run and its continuation: what a step computes does not depend on it.
VOLATILE = (
    *("out", "resume", "resume_data", "extend", "overwrite", "device", "threads"),
    *("log_every", "snapshot_every", "eval_every", "forecast", "health", "knn"),
    "published",  # what a paper says is no setting
    "seeds",  # more runs of the same settings
)
VOLATILE_ANYWHERE = ("workers", "max_broken")
# Settings of detect that came later, and what a run that does not name them did: nothing, where
# they are of a head or of outputs that there were not.
LATER: dict[str, Any] = {
    "labels": 1.0,
    "draw": 0,
    "scale": "none",
    "accumulate": 1,
    "score": 0.5,
    "box_beta": 0.0,
    "repeat_threshold": 0.0,
    "keypoint_width": 512,
    "semantic_width": 128,
    "crop": 0,
    "fcn": {"width": 256, "convs": 2, "dilation": 6},
    "dc5": {
        "anchor_sizes": [2, 4, 8, 16, 32],
        "box_pool": 7,
        "rpn_pre_nms": [12000, 6000],
        "rpn_post_nms": [2000, 1000],
        "box_width": 1024,
    },
}
# How long a run is: `extend=true` lets them grow.
LENGTH = ("epochs", "steps", "iterations")
# Where the data lie; what lies there is known by its content.
PLACES = ("root", "image_root", "annotations")


def begun(out: Path) -> dict[str, Any] | None:
    """The configuration of the run in the folder `out`; None: there is none.

    Raises:
        UserError: `config.yaml` cannot be read.
    """
    path = out / "config.yaml"
    if not path.exists():
        return None
    try:
        text = path.read_text(encoding="utf-8")
        config = yaml.safe_load(
            re.sub(r"(?<=_target_: )\S+", lambda m: renamed.module(m[0]) or m[0], text)
        )
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise _broken(path, str(error).splitlines()[0]) from error
    if not isinstance(config, dict):
        raise _broken(path, "it holds no settings")
    return config


def require_settings(out: Path) -> None:
    """Raise UserError where snapshots lie in `out` without the settings that they belong to."""
    path = out / "config.yaml"
    if not path.exists() and snapshot.newest(out / "snapshots") is not None:
        raise _broken(path, "it is not there, and snapshots are")


def _broken(path: Path, why: str) -> UserError:
    return UserError(
        f"cannot read {path}: {why}; without it nobody knows what run this is: restore it, or "
        "choose another out="
    )


def require_same(
    out: Path,
    begun: Mapping[str, Any],
    *configs: Mapping[str, Any],
    but: Iterable[str] = (),
    data_known: bool = False,
) -> None:
    """Raise ConfigError unless every setting of `begun` is that of one of `configs`.

    There are two where nulls became values: the run may have been begun before they did.

    Args:
        but: dotted names that may differ.
        data_known: the content of the data is compared, so they may lie elsewhere.
    """
    differing = [set(_differences(begun, config)) for config in configs]
    changed = set.intersection(*differing).difference(but)
    if data_known:
        changed = {key for key in changed if not _is_place(key)}
    lengths = {key for key in changed if key in LENGTH}
    now = configs[-1]
    grown = {key for key in lengths if _grows(begun.get(key), now.get(key))}
    if now.get("extend"):
        changed -= grown
    if not changed:
        if grown and snapshot.newest(out / "snapshots") is None:
            raise ConfigError(
                f"extend=true: {out} has no snapshot to go on from; choose another out="
            )
        return
    if changed == grown:
        advice = "extend=true makes the run longer"
    elif changed <= lengths and now.get("extend"):
        advice = "extend=true makes a run longer, not shorter"
    else:
        advice = "give the same values"
    raise ConfigError(
        f"{out} was begun with another configuration ({', '.join(sorted(changed))}): {advice}, or "
        "choose another out="
    )


def _is_place(key: str) -> bool:
    names = key.split(".")
    return names[0] in ("data", "detection") and names[-1] in PLACES


def _grows(before: object, now: object) -> bool:
    return isinstance(before, int | float) and isinstance(now, int | float) and now > before


def _differences(before: object, now: object, prefix: str = "") -> Iterator[str]:
    """The dotted names of the settings that differ; one that is not there is null or empty."""
    if isinstance(before, dict) and isinstance(now, dict):
        for key in {*before, *now}:
            if key not in (VOLATILE_ANYWHERE if prefix else (*VOLATILE, *VOLATILE_ANYWHERE)):
                then = before.get(key, None if prefix else LATER.get(key))
                yield from _differences(then, now.get(key), f"{prefix}{key}.")
    elif (
        before != now
        and any(value not in (None, [], {}) for value in (before, now))
        and not _same_file(before, now)
    ):
        yield prefix.rstrip(".")


def _same_file(one: object, other: object) -> bool:
    """Two spellings of one path, absolute or not."""
    if not (isinstance(one, str) and isinstance(other, str)):
        return False
    return os.path.exists(one) and os.path.realpath(one) == os.path.realpath(other)
