"""Which values the settings of the commands may have, checked before anything is built.

A setting of one name has one meaning in every command, so its name says the kind of its values.
What depends on the data or on other settings is checked where that is known.
"""

import math
from collections.abc import Iterator
from types import NoneType, UnionType
from typing import Any, NamedTuple, Union, get_args, get_origin

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visrep.errors import ConfigError


class Kind(NamedTuple):
    """Numbers, or lists of them, between two bounds."""

    whole: bool = False
    low: float = -math.inf
    high: float = math.inf
    above: bool = False  # low itself is refused
    below: bool = False  # high itself is refused
    listed: bool = False  # a list of such numbers
    either: bool = False  # a list, or one of them
    none: bool = False  # the list may be empty

    def __str__(self) -> str:
        noun = "whole number" if self.whole else "number"
        ends = []
        if self.low > -math.inf:
            ends.append(f"above {self.low:g}" if self.above else f"{self.low:g} or more")
        if self.high < math.inf:
            ends.append(f"below {self.high:.0f}" if self.below else f"at most {self.high:g}")
        bounds = "".join(f", {end}" for end in ends)
        if self.listed:
            return f"a list of {noun}s{bounds}, such as [1,2]"
        return f"a {noun}{bounds}" + (", or a list of them" if self.either else "")


COUNT = Kind(whole=True, low=1)
NATURAL = Kind(whole=True, low=0)
POSITIVE = Kind(low=0, above=True)
NOT_NEGATIVE = Kind(low=0)
SHARE = Kind(low=0, high=1)
PROPER = Kind(low=0, high=1, above=True, below=True)
SEED = Kind(whole=True, low=0, high=2**32, below=True)

# By whole keys: one of the same name inside data=, views= or method= is another setting.
NUMBERS = {
    **dict.fromkeys(("seed", "draw"), SEED),
    **dict.fromkeys(("workers", "snapshot_every", "eval_every", "steps", "selector"), NATURAL),
    **dict.fromkeys(("batch_size", "accumulate", "bn_splits", "log_every", "threads"), COUNT),
    **dict.fromkeys(("iterations", "draws", "max_iter", "repeats", "rows", "columns"), COUNT),
    **dict.fromkeys(("folds", "jobs", "seeds", "size", "knn.k", "knn.bank"), COUNT),
    **dict.fromkeys(("max_size", "rpn_batch", "roi_batch", "mask_width"), COUNT),
    **dict.fromkeys(("detections_per_image", "stem_stride"), COUNT),
    **dict.fromkeys(("knn.times", "warmup", "freeze_at", "precise_bn", "test_size"), NATURAL),
    **dict.fromkeys(("crop", "fcn.convs"), NATURAL),
    **dict.fromkeys(("fcn.width", "fcn.dilation", "semantic_width"), COUNT),
    "k": COUNT._replace(either=True),
    **dict.fromkeys(("epochs", "weight_decay", "optim.weight_decay"), NOT_NEGATIVE),
    **dict.fromkeys(("optim.warmup_epochs",), NOT_NEGATIVE),
    **dict.fromkeys(("temperature", "knn.temperature", "optim.lr", "lr", "cost"), POSITIVE),
    **dict.fromkeys(("positive_weight", "tolerance", "box_tolerance", "minutes"), POSITIVE),
    **dict.fromkeys(("momentum", "optim.momentum", "alpha", "min_score", "score"), SHARE),
    **dict.fromkeys(("score_threshold", "nms_threshold", "warmup_factor"), SHARE),
    "max_broken": SHARE._replace(below=True),
    "held_out": PROPER,
    "decay_at": PROPER._replace(listed=True, none=True),
    "fraction": SHARE._replace(above=True),
    **dict.fromkeys(("lrs", "costs", "anchor_ratios"), POSITIVE._replace(listed=True)),
    **dict.fromkeys(("shots", "grids", "batches"), COUNT._replace(listed=True)),
    "train_sizes": COUNT._replace(listed=True, none=True),
    "scales": POSITIVE._replace(listed=True, none=True),
}
YES_OR_NO = (
    *("overwrite", "extend", "forecast", "deterministic", "continuous", "augment", "train_head"),
    *("tau_squared", "flip", "data.train.recursive", "data.test.recursive", "channels_last"),
)

# For these null means a default that the command computes or does without.
NULLABLE = (
    *("threads", "steps", "snapshot_every", "selector", "epochs", "size"),
    *("stem_stride", "optim.lr", "repeats"),
)
# Without these there is no run: null is refused.
PARTS = (
    *("data", "data.train", "knn", "optim", "views", "method", "backbone"),
    *("detection", "detection.train", "c4", "dc5", "fpn", "fcn", "by_share", "fixed"),
)


# A word, or a number beside one: null says nothing.
WORDS = (
    *("device", "precision", "resume", "resume_data", "health", "batchnorm", "init", "engine"),
    *("outputs", "output", "head", "norm", "labels", "bn"),
)

# Names in a list; null means all of them.
NAMES = ("detection.classes",)


def check(cfg: DictConfig) -> None:
    """Refuse a setting whose value is not of its kind; a number in quotes becomes the number.

    Raises:
        ConfigError: with the key, the value and what it should be.
    """
    for key, kind in NUMBERS.items():
        for value in _value(cfg, key):
            number = _number(value)
            if value is None and key in NULLABLE:
                continue
            if not _fits(number, kind):
                raise ConfigError(f"{key}={_shown(value)}: give {kind}")
            if isinstance(value, str):
                OmegaConf.update(cfg, key, number)
    for key in WORDS:
        if None in _value(cfg, key):
            raise ConfigError(f"{key}=null: give a value, or leave it as it is")
    for key in NAMES:
        for value in _value(cfg, key):
            if value is not None and not isinstance(value, list):
                raise ConfigError(f"{key}={_shown(value)}: give a list of names, such as [a,b]")
    for key in YES_OR_NO:
        for value in _value(cfg, key):
            if not isinstance(value, bool):
                raise ConfigError(f"{key}={_shown(value)}: give true or false")


def check_argument(key: str, value: Any, annotation: Any) -> None:
    """Refuse a value, as typed, that is none of the numbers or truth values of an argument's type.

    Args:
        annotation: of the constructor's argument: float, int | None, bool; others say nothing here.

    Raises:
        ConfigError: with the key, the value and what it should be.
    """
    either = get_origin(annotation) in (Union, UnionType)
    types = get_args(annotation) if either else (annotation,)
    asked = [one for one in types if one is not NoneType]
    known = all(one in (int, float, bool) for one in asked)  # not a set: types may be unhashable
    if not known or (value is None and NoneType in types):
        return
    numeric = int in asked or float in asked
    if isinstance(value, bool):
        fits = bool in asked
    else:
        fits = (numeric and isinstance(value, int)) or (float in asked and isinstance(value, float))
    if not fits:
        words = "a whole number" if asked == [int] else "a number" if numeric else "true or false"
        raise ConfigError(f"{key}={_shown(value)}: give {words}")


def check_part(key: str, value: Any) -> None:
    """Refuse null or a single value, as typed, for a part that holds settings.

    Raises:
        ConfigError: no run could do without it.
    """
    if key in PARTS and not isinstance(value, dict):
        raise ConfigError(
            f"{key}={_shown(value)}: it holds settings of its own and cannot do without; "
            "leave it as it is, or choose one by its name"
        )


def _value(cfg: DictConfig, key: str) -> Iterator[Any]:
    """The value of `key`, if it is there."""
    try:
        value = OmegaConf.select(cfg, key)
        parent, _, name = key.rpartition(".")
        holder = OmegaConf.select(cfg, parent) if parent else cfg
    except OmegaConfBaseException:  # an interpolation that cannot be followed is told elsewhere
        return
    if isinstance(holder, DictConfig) and name in holder:
        yield OmegaConf.to_container(value) if OmegaConf.is_config(value) else value


def _number(value: Any) -> Any:
    """What an interpolation of the environment gives is text: if it reads as a number, that."""
    if isinstance(value, str):
        for read in (int, float):
            try:
                return read(value)
            except ValueError:
                continue
    return value


def _fits(value: Any, kind: Kind) -> bool:
    if isinstance(value, list):
        one = kind._replace(listed=False, either=False)
        listed = (bool(value) or kind.none) and (kind.listed or kind.either)
        return listed and all(_fits(item, one) for item in value)
    if kind.listed or isinstance(value, bool) or not isinstance(value, int | float):
        return False
    if not math.isfinite(value) or (kind.whole and not isinstance(value, int)):
        return False
    low = value > kind.low if kind.above else value >= kind.low
    return low and (value < kind.high if kind.below else value <= kind.high)


def _shown(value: Any) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value).replace(" ", "").replace("'", "") if isinstance(value, list) else str(value)
