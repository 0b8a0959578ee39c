"""A Detectron2 config as Detectron2 would see it, read without Detectron2 and without running it.

The chain of `_BASE_` files is merged as Detectron2's loader merges it; what no file states has
Detectron2's default. Where its loader would run Python that a yaml asks for, nothing is run here.
"""

import ast
import difflib
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from visrep.d2.recipe import flat
from visrep.errors import ConfigError, UserError

BASE = "_BASE_"
DEPTH, FILES, NODES = 40, 20, 20_000  # no config comes near
LONGEST = 10_000  # of a text that is read as Python's tuple or list, as yacs does

# Detectron2's defaults of the keys that the checks look at.
DEFAULTS: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.WEIGHTS": "",
    "MODEL.MASK_ON": False,
    "MODEL.KEYPOINT_ON": False,
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.FPN.NORM": "",
    "MODEL.RESNETS.DEPTH": 50,
    "MODEL.RESNETS.OUT_FEATURES": ["res4"],
    "MODEL.RESNETS.NUM_GROUPS": 1,
    "MODEL.RESNETS.NORM": "FrozenBN",
    "MODEL.RESNETS.WIDTH_PER_GROUP": 64,
    "MODEL.RESNETS.STRIDE_IN_1X1": True,
    "MODEL.RESNETS.RES5_DILATION": 1,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 256,
    "MODEL.RESNETS.STEM_OUT_CHANNELS": 64,
    "MODEL.ROI_HEADS.NAME": "Res5ROIHeads",
    "MODEL.ROI_HEADS.NUM_CLASSES": 80,
    "MODEL.RETINANET.NUM_CLASSES": 80,
    "MODEL.SEM_SEG_HEAD.NAME": "SemSegFPNHead",
    "INPUT.FORMAT": "BGR",
    "DATASETS.TRAIN": [],
    "DATASETS.TEST": [],
    "SOLVER.IMS_PER_BATCH": 16,
    "SOLVER.BASE_LR": 0.001,
    "SOLVER.MAX_ITER": 40000,
    "SOLVER.STEPS": [30000],
    "SOLVER.WARMUP_ITERS": 1000,
    "SOLVER.LR_SCHEDULER_NAME": "WarmupMultiStepLR",
    "SOLVER.REFERENCE_WORLD_SIZE": 0,
    "TEST.PRECISE_BN.ENABLED": False,
}


@dataclass
class Config:
    """The keys that the files of a config state, `MODEL.RESNETS.DEPTH` -> value.

    Attributes:
        path: the file that was asked for.
        files: all that were read, bases first.
        stated: the merged values.
        repeated: what stands twice in one file; the last one counts.
        code: tags that ask for Python to be run.
        misfits: key -> value and wanted type, where the type is none that Detectron2 takes.
        missing_base: what could not be read, with what is known about it.
    """

    path: Path
    files: list[Path] = field(default_factory=list)
    stated: dict[str, Any] = field(default_factory=dict)
    repeated: list["Repeated"] = field(default_factory=list)
    code: list[str] = field(default_factory=list)
    misfits: dict[str, tuple[Any, str]] = field(default_factory=dict)
    missing_base: str | None = None

    def __getitem__(self, key: str) -> Any:
        return self.stated.get(key, DEFAULTS[key])

    def states(self, key: str) -> bool:
        """Whether a file says it; else it is Detectron2's default."""
        return key in self.stated

    def shown(self, key: str) -> str:
        """`KEY is VALUE`, and whether that is a default."""
        default = "" if self.states(key) else ", Detectron2's default"
        value = self[key]
        return f"{key} is {repr(value) if isinstance(value, str) else value}{default}"

    def node(self, prefix: str) -> dict[str, Any]:
        """What is stated under `prefix`, without it."""
        start = f"{prefix}."
        return {k.removeprefix(start): v for k, v in self.stated.items() if k.startswith(start)}


@dataclass(frozen=True)
class Repeated:
    """A key that stands twice in one file, and the values under it that are lost by it."""

    file: Path
    line: int
    key: str
    lost: dict[str, Any]


def read_config(path: str | Path, *, opts: Sequence[Any] = ()) -> Config:
    """Read `path` and its chain of bases; `opts` are the command line's, [KEY, value, ...].

    Raises:
        UserError: a file cannot be read or is no yaml of a config.
        ConfigError: `opts` are no pairs.
    """
    config = Config(Path(path))
    config.stated = flat(_load(config.path, config, []))
    if len(opts) % 2:
        raise ConfigError(f"opts={list(opts)}: give [KEY, value, ...] as Detectron2 takes them")
    for key, value in zip(opts[::2], opts[1::2], strict=True):
        plain = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        config.stated[str(key)] = _decoded(plain)
    return _checked(config)


def from_text(text: str) -> Config:
    """A whole config that Detectron2 has written, with `cfg.dump()`."""
    config = Config(Path("detectron2.yaml"))
    config.stated = flat(yaml.safe_load(text))
    return _checked(config)


def _checked(config: Config) -> Config:
    """`config`, in which the values of other types than Detectron2 takes are told apart."""
    for key, default in DEFAULTS.items():
        value = config.stated.get(key, default)
        fits = type(value) is type(default) or (type(default), type(value)) == (float, int)
        if not fits or not _same_kind(key, value):
            config.misfits[key] = (config.stated.pop(key), _KINDS[type(default)])
    return config


_KINDS = {bool: "truth value", int: "whole number", float: "number", str: "text", list: "list"}
# What the lists of these sections hold; the others hold texts.
_NUMBERS = ("MODEL.PIXEL_MEAN", "MODEL.PIXEL_STD", "SOLVER.STEPS")


def _same_kind(key: str, value: Any) -> bool:
    """Whether a list holds what its key wants."""
    kind: Any = (int, float) if key in _NUMBERS else str
    return not isinstance(value, list) or all(isinstance(item, kind) for item in value)


def _load(path: Path, config: Config, chain: list[Path]) -> dict[str, Any]:
    if path in chain or len(chain) == FILES:
        raise UserError(f"{config.path}: its {BASE} files go round in a circle at {path}")
    own = _parse(path, config)
    bases = own.pop(BASE, [])
    merged: dict[str, Any] = {}
    for base in bases if isinstance(bases, list) else [bases]:
        found = _find(str(base), path)
        if isinstance(found, str):
            config.missing_base = config.missing_base or found
        else:
            _merge(_load(found, config, [*chain, path]), merged, path)
    config.files.append(path)
    _merge(own, merged, path)
    return merged


def _find(base: str, path: Path) -> Path | str:
    """The file that `base` names in `path`, or why there is none."""
    shown = f"{path.name} has {BASE}: {base!r}"
    if base.startswith(("http://", "https://")):
        return f"{shown}, which is on the network; visrep does not fetch it: copy it beside yours"
    if "://" in base:
        return f"{shown}, but Detectron2 takes a base for a path: copy that file beside yours"
    found = path.parent / Path(base).expanduser()
    if found.is_file():
        return found
    near = difflib.get_close_matches(found.name, [p.name for p in found.parent.glob("*.yaml")], n=1)
    hint = f"; that folder has {near[0]}" if near else ""
    return f"{shown}, and there is no such file{hint}"


def _merge(new: dict[str, Any], into: dict[str, Any], path: Path) -> None:
    for key, value in new.items():
        if isinstance(value, dict) and key in into:
            if not isinstance(into[key], dict):
                raise UserError(f"{path}: {key} is a section here and a value in its {BASE}")
            _merge(value, into[key], path)
        else:
            into[key] = value


# One file


def _parse(path: Path, config: Config) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except OSError as error:
        raise UserError(f"cannot read {path}: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark else ""
        raise UserError(f"{path} is no yaml{where}: give a Detectron2 config") from error
    if not isinstance(node, yaml.MappingNode):
        raise UserError(f"{path} is no Detectron2 config: it has no keys")
    tree = _Walk(path, config).mapping(node, "")
    sections = {"MODEL", "INPUT", "SOLVER", "DATASETS", "TEST", "DATALOADER", BASE}
    if not sections & set(tree):
        raise UserError(f"{path} is no Detectron2 config: it has none of MODEL, SOLVER, {BASE}")
    return tree


class _Walk:
    """A yaml's nodes as plain values. Nothing is constructed but those; repeated keys are noted."""

    def __init__(self, path: Path, config: Config) -> None:
        self.path, self.config = path, config
        self.plain = yaml.constructor.SafeConstructor()
        self.left = NODES

    def mapping(self, node: yaml.MappingNode, prefix: str, depth: int = 0) -> dict[str, Any]:
        tree: dict[str, Any] = {}
        merged: dict[str, Any] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                raise UserError(
                    f"{self.path}: {prefix.rstrip('.') or 'it'} has a key that is no word"
                )
            key = "".join(c if c.isprintable() else "?" for c in key_node.value)
            value = self.value(value_node, f"{prefix}{key}.", depth + 1)
            if key_node.tag == "tag:yaml.org,2002:merge":  # <<: *other
                for other in value if isinstance(value, list) else [value]:
                    merged = {**(other if isinstance(other, dict) else {}), **merged}
                continue
            if key in tree:
                old, new = (flat({key: v}, prefix) for v in (tree[key], value))
                lost = {k: v for k, v in old.items() if k not in new or new[k] != v}
                line = key_node.start_mark.line + 1
                self.config.repeated.append(Repeated(self.path, line, f"{prefix}{key}", lost))
            tree[key] = value
        return {**merged, **tree}

    def value(self, node: yaml.Node, prefix: str, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > DEPTH:
            raise UserError(f"{self.path} is no Detectron2 config: it holds too much, or too deep")
        if not node.tag.startswith("tag:yaml.org,2002:") or "python" in node.tag:
            self.config.code.append(f"{prefix.rstrip('.')}: {node.tag.rpartition(':')[2]}")
            return f"<{node.tag}>"
        if isinstance(node, yaml.MappingNode):
            return self.mapping(node, prefix, depth)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(item, prefix, depth + 1) for item in node.value]
        try:
            return _decoded(self.plain.construct_object(node))
        except Exception as error:  # a value that its tag forbids raises many kinds
            raise UserError(f"{self.path}: {prefix.rstrip('.')} has no readable value") from error


def _decoded(value: Any) -> Any:
    """`value`; a text that is a tuple, a list or a number in Python is that, as yacs has it."""
    if not isinstance(value, str) or len(value) > LONGEST:
        return value
    try:
        read = ast.literal_eval(value)
    except (ValueError, SyntaxError, RecursionError, MemoryError):
        return value
    return list(read) if isinstance(read, tuple) else read
