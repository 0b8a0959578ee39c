"""Configurations: composing a command's yaml with what the user typed, and building objects.

The entry files and the command line use this; below them there is no configuration.
"""

import difflib
import importlib
import inspect
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from visrep.errors import ConfigError
from visrep.paths import config_dir

# Hydra would call anything a yaml names; ours name only these.
TRUSTED = ("visrep.", "torch.optim.")


def instantiate(node: DictConfig | dict[str, Any] | None, **kwargs: Any) -> Any:
    """Build the object that `node._target_` names; None stays None.

    Raises:
        ConfigError: a target outside visrep's packages and torch.optim, or an unknown argument.
    """
    if node is None:
        return None
    for target in _targets(node):
        if not target.startswith(TRUSTED):
            raise ConfigError(
                f"_target_={target} is not allowed: a target is in {', '.join(TRUSTED)}"
            )
    try:
        return hydra.utils.instantiate(node, **kwargs, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, Exception) and not isinstance(cause, TypeError):
            raise cause from None  # what the constructor itself had to say
        raise ConfigError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0]


def _targets(node: Any) -> Iterator[str]:
    if OmegaConf.is_config(node):
        node = OmegaConf.to_container(node, resolve=False)
    if isinstance(node, dict):
        for key, value in node.items():
            if key == "_target_":
                yield str(value)
            else:
                yield from _targets(value)
    elif isinstance(node, list):
        for value in node:
            yield from _targets(value)


def compose(command: str, overrides: Sequence[str] = ()) -> tuple[DictConfig, list[str]]:
    """The configuration of `command` under `overrides`, and the overrides as Hydra wants them.

    A key of an object whose yaml does not state it, but whose constructor has it, is accepted: the
    constructor's signature is the schema.

    Raises:
        ConfigError: an unknown key or choice, with the nearest known one; a value that cannot be
            read; a required value that is not given.
    """
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            parsed = OverridesParser.create().parse_overrides(list(overrides))
        except HydraException as error:
            raise ConfigError(f"cannot read the override: {_first_line(error)}") from error
        groups = [o for o in parsed if _is_group(o)]
        _check_choices(groups)
        try:
            base = hydra.compose(command, [o.input_line or "" for o in groups])
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_first_line(error)) from error
        accepted = [_accept(override, base) for override in parsed]
        try:
            cfg = hydra.compose(command, accepted)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(_first_line(error)) from error
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
    except OmegaConfBaseException as error:  # an interpolation of a value that is not given
        raise ConfigError(_first_line(error)) from error
    if missing:
        raise ConfigError(f"give a value: {' '.join(f'{key}=...' for key in missing)}")
    return cfg, accepted


def groups_of(command: str) -> dict[str, list[str]]:
    """The groups of choices that `command` uses: name -> choices."""
    return {group: choices(group) for group, _ in _chosen_in(config_dir() / f"{command}.yaml")}


def sources(command: str, overrides: Sequence[str]) -> list[Path]:
    """The yaml files that make the configuration of `command` under `overrides`, sorted.

    Those of every choice that is made, by an override, by the command's own defaults or by a chosen
    file; also of one that a later choice displaces. None for a command without a yaml.
    """
    chosen = [line.partition("=")[::2] for line in overrides]
    waiting = [config_dir() / f"{command}.yaml"]
    waiting += [config_dir() / group / f"{name}.yaml" for group, name in chosen]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += [config_dir() / group / f"{name}.yaml" for group, name in _chosen_in(path)]
    return sorted(found)


def _chosen_in(path: Path) -> list[tuple[str, Any]]:
    """Group and choice of each line of a defaults list; "override /optim@where" is optim."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    lines = [line for line in content.get("defaults", []) if isinstance(line, dict)]
    pairs = [pair for line in lines for pair in line.items()]
    return [(re.sub(r"^(override |optional )*/?|@.*$", "", key), name) for key, name in pairs]


def choices(group: str) -> list[str]:
    """The names of the yaml files of `group`."""
    return sorted(path.stem for path in (config_dir() / group).glob("*.yaml"))


def named(group: str, name: str) -> DictConfig:
    """The yaml `group/name` alone, for keys whose value names a file of a group.

    Raises:
        ConfigError: there is no such file; the message names the nearest.
    """
    if name not in choices(group):
        raise ConfigError(f"{group}={name}: {_did_you_mean(name, choices(group))}")
    loaded = OmegaConf.load(config_dir() / group / f"{name}.yaml")
    assert isinstance(loaded, DictConfig)
    return loaded


def _is_group(override: Override) -> bool:
    key = override.key_or_group.lstrip("/")
    return (config_dir() / key).is_dir() and isinstance(override.value(), str | list)


def _check_choices(overrides: Sequence[Override]) -> None:
    for override in overrides:
        group = override.key_or_group.lstrip("/")
        value = override.value()
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and str(name) not in choices(group):
                raise ConfigError(f"{group}={name}: {_did_you_mean(name, choices(group))}")
    chosen = {override.key_or_group.lstrip("/"): override.value() for override in overrides}
    if isinstance(chosen.get("paper"), str) and "method" in chosen:
        raise ConfigError(
            f"paper={chosen['paper']} brings its method, and method={chosen['method']} would leave "
            "half of the published run: give one of the two"
        )


def _accept(override: Override, base: DictConfig) -> str:
    """`override` as Hydra wants it; refuses what the configuration does not know."""
    line = override.input_line or ""
    if _is_group(override) or override.is_delete():
        return line
    path = override.key_or_group
    if override.is_add() or override.is_force_add():
        path, line = path, line.lstrip("+")
    if path.startswith("hydra."):
        return line
    if _holds(base, path):
        return line
    parent, _, name = path.rpartition(".")
    node = OmegaConf.select(base, parent, throw_on_resolution_failure=False) if parent else base
    if isinstance(node, DictConfig) and "_target_" in node and name in _parameters(node._target_):
        return f"+{line}"
    raise ConfigError(f"unknown key {path}: {_did_you_mean(path, sorted(_keys(base)))}")


def _holds(cfg: DictConfig, path: str) -> bool:
    node: Any = cfg
    for name in path.split("."):
        if not isinstance(node, DictConfig) or name not in node._content:  # type: ignore[operator]
            return False
        node = node._get_node(name)
    return True


def _keys(cfg: DictConfig, prefix: str = "") -> Iterator[str]:
    for name in map(str, cfg):
        path = f"{prefix}{name!s}"
        yield path
        node = cfg._get_node(name)
        if isinstance(node, DictConfig) and not node._is_none() and not node._is_missing():
            yield from _keys(node, f"{path}.")
            if "_target_" in node:
                yield from (f"{path}.{parameter}" for parameter in _parameters(node._target_))


def _parameters(target: str) -> list[str]:
    if not target.startswith(TRUSTED):
        return []
    module, _, name = target.rpartition(".")
    try:
        return list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
    except (ImportError, AttributeError, TypeError, ValueError):
        return []


def _did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not near:  # the last part may be right under another parent
        last = word.rpartition(".")[2]
        near = [key for key in known if key.rpartition(".")[2] == last][:1]
    listed = ", ".join(known) if len(known) <= 40 else "what --help lists"
    return f"did you mean {near[0]}?" if near else f"choose from {listed}"
