"""Configurations: composing a command's yaml with what the user typed, and building objects.

The entry files and the command line use this; below them there is no configuration. Hydra composes
the chosen files; values are set on the result, whose keys and constructors are the schema. Two keys
belong to every command: `plugins=` names modules of the user's, `config_dir=` a folder with yaml
files in groups like ours, whose names become choices beside ours.
"""

import importlib
import inspect
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from typing import Any, NoReturn

import hydra
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from visrep import groups, plugins, renamed, values
from visrep.errors import ConfigError, UserError
from visrep.overrides import (
    as_typed,
    escaped,
    first_of,
    for_hydra,
    holds_a_path,
    one_line,
    parse,
    quoted,
)
from visrep.paths import config_dir

# Hydra would call anything a yaml names; ours name only these, beside the modules of plugins=.
TRUSTED = ("visrep.", "torch.optim.")
STRANGERS = ("plugins", "config_dir")  # keys of every command


def instantiate(node: DictConfig | dict[str, Any] | None, **kwargs: Any) -> Any:
    """Build the object that `node._target_` names; None stays None.

    Raises:
        ConfigError: a target outside visrep's packages, torch.optim and the modules of plugins=, or
            an unknown argument.
    """
    if node is None:
        return None
    for target in _targets(node):
        if not _trusted(target):
            now = renamed.module(target)
            raise ConfigError(
                f"_target_={target} is not allowed: "
                + (f"it is {now} now" if now else "name its module in plugins= if it is yours")
            )
    try:
        return hydra.utils.instantiate(node, **kwargs, _convert_="all")
    except hydra.errors.InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, UserError):
            raise cause from None  # what the constructor itself had to say
        if isinstance(cause, Exception) and not isinstance(cause, TypeError | ValueError):
            raise cause from None  # a bug: it keeps its traceback
        said = f": {one_line(cause)}" if cause and str(cause) not in str(error) else ""
        raise ConfigError(f"{one_line(error)}{said}") from error


def _trusted(target: str) -> bool:
    return target.startswith(TRUSTED) or plugins.trusted(target)


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
    constructor's signature is the schema. `plugins=` are imported, and `config_dir=` is searched
    from then on.

    Raises:
        ConfigError: an unknown key or choice, with the nearest known one; a value that cannot be
            read; a required value that is not given.
    """
    parsed = use_strangers(parse(overrides))
    own = groups.groups_of(command)
    chosen = [o for o in parsed if _is_choice(o, own)]
    _check_renamed(command, parsed)
    _check_choices(chosen, own)
    choosing = [override.input_line or "" for override in chosen]
    GlobalHydra.instance().clear()
    with hydra.initialize_config_dir(str(config_dir()), version_base="1.3"):
        try:
            cfg = hydra.compose(command, [_search_path(), *choosing])
        except (HydraException, OmegaConfBaseException) as error:
            open_group = re.match("You must specify '(.+?)'", one_line(error))
            if open_group:  # neither the command, nor the user, nor another choice says it
                _check_keys(command, [o for o in parsed if not _is_choice(o, own)])
                group = open_group[1]
                names = ", ".join(groups.choices(group))
                raise ConfigError(f"give a value: {group}=..., one of {names}") from error
            raise ConfigError(one_line(error)) from error
    for override in chosen:
        groups.check_name(override.key_or_group.lstrip("/"), override.value(), cfg)
    known: dict[str, Any] = OmegaConf.to_container(cfg)  # type: ignore[assignment]
    open_groups = [group for group in own if known.get(group) is None]
    accepted = [
        line if _is_choice(override, own) else _set(cfg, override, known, open_groups)
        for override in parsed
        for line in [override.input_line or ""]
    ]
    try:
        missing = sorted(OmegaConf.missing_keys(cfg))
    except OmegaConfBaseException as error:  # an interpolation of a value that is not given
        raise ConfigError(one_line(error)) from error
    if missing:
        raise ConfigError(f"give a value: {' '.join(f'{key}=...' for key in missing)}")
    values.check(cfg)
    return cfg, accepted


def sweep(
    command: str, overrides: Sequence[str], main: Callable[[DictConfig, list[str]], None]
) -> None:
    """Call `main` for every combination of the values of `overrides` (a=1,2), by Hydra's sweeper.

    `main` is given the configuration and what one would type for it alone.
    Every one is run; the first error of the project's own is raised at the end.
    """
    ours = [override for override in overrides if override.split("=")[0] in STRANGERS]
    rest = [override for override in overrides if override not in ours]
    # Its values are Hydra's own syntax; the keys are checked with the first value of each.
    accepted = compose(command, [first_of(override) for override in rest])[1]
    lines = [
        ("+" if new.startswith("+") and not old.startswith("+") else "") + for_hydra(old)
        for new, old in zip(accepted, rest, strict=True)
    ]
    modules = plugins.names()
    errors: list[UserError] = []

    def task(cfg: DictConfig) -> None:
        plugins.load(modules)  # a launcher may have started another process
        try:
            values.check(cfg)
            main(cfg, [*ours, *map(as_typed, HydraConfig.get().overrides.task)])
        except UserError as error:
            errors.append(error)

    os.environ.setdefault("HYDRA_FULL_ERROR", "1")
    # Run folders, logs and exit codes are ours; Hydra composes, sweeps and launches.
    quiet = [
        *("hydra.run.dir=.", "hydra.sweep.dir=.", "hydra.sweep.subdir=."),
        *("hydra.output_subdir=null", "hydra/job_logging=none", "hydra/hydra_logging=none"),
    ]
    given = {line.split("=")[0] for line in lines}
    sys.argv = [
        "visrep",
        "--multirun",
        *lines,
        *(setting for setting in [*quiet, _search_path()] if setting.split("=")[0] not in given),
    ]
    hydra.main(config_path=str(config_dir()), config_name=command, version_base="1.3")(task)()
    if errors:
        raise errors[0]


def _search_path() -> str:
    return (
        f"hydra.searchpath=[{','.join(quoted(f'file://{path}') for path in groups.folders()[1:])}]"
    )


def use_strangers(overrides: Sequence[Override]) -> list[Override]:
    """Import the modules of `plugins=`, search `config_dir=` from now on; returns the rest.

    Raises:
        ConfigError: a module or the folder is not there, or a file in it has a name of ours.
    """
    for override in overrides:
        value = override.value()
        if override.key_or_group == "plugins":
            plugins.load([str(name) for name in (value if isinstance(value, list) else [value])])
        elif override.key_or_group == "config_dir":
            groups.use_folder(str(value))
    return [o for o in overrides if o.key_or_group not in STRANGERS]


def strangers() -> list[str]:
    """The `plugins=` and `config_dir=` in use, as settings for a command of a chain."""
    named = plugins.names()
    lines = [f"plugins=[{','.join(named)}]"] if named else []
    return lines + [f"config_dir={quoted(str(folder))}" for folder in groups.folders()[1:]]


def _is_choice(override: Override, own: Mapping[str, Any]) -> bool:
    """Whether `override` chooses a file of one of the command's `own` groups."""
    return override.key_or_group.lstrip("/") in own and isinstance(override.value(), str | list)


def _check_renamed(command: str, overrides: Sequence[Override]) -> None:
    for override in overrides:
        key, value = override.key_or_group.lstrip("/"), override.value()
        now = renamed.value(command, f"{key}={value}")
        if now:
            raise ConfigError(f"{key}={value}: {now}")
        now = renamed.key(command, key)
        if now:
            raise ConfigError(f"unknown key {key}: {now}")


def _check_choices(chosen: Sequence[Override], own: dict[str, list[str]]) -> None:
    given = {override.key_or_group.lstrip("/"): override.value() for override in chosen}
    for group, value in given.items():
        for name in value if isinstance(value, list) else [value]:
            if isinstance(name, str) and str(name) not in own[group]:
                raise ConfigError(f"{group}={name}: {groups.did_you_mean(name, own[group])}")
    if isinstance(given.get("paper"), str) and "method" in given:
        raise ConfigError(
            f"paper={given['paper']} brings its method, and method={given['method']} would leave "
            "half of the published run: give one of the two"
        )


def _check_keys(command: str, overrides: Sequence[Override]) -> None:
    """Refuse a key that `command` has with no choice of its groups, where some are not chosen."""
    known = {key for content in groups.contents(command) for key in _keys(content)}
    for override in overrides:
        key = override.key_or_group
        if key not in known and not key.startswith("hydra."):
            raise ConfigError(f"unknown key {key}: {groups.did_you_mean(key, sorted(known))}")


def _refuse_unknown(path: str, known: dict[str, Any], open_groups: Sequence[str]) -> NoReturn:
    """Raise for a key that is not in `known`, and say which open group it might be of."""
    theirs = {
        group: {key for content in groups.contents_of(group) for key in _keys(content)}
        for group in open_groups
    }
    for group, keys in theirs.items():
        if path in keys:
            names = ", ".join(groups.choices(group))
            raise ConfigError(f"{path}= is of a {group}: give {group}=..., one of {names}")
    every = {*_keys(known), *(key for keys in theirs.values() for key in keys)}
    raise ConfigError(f"unknown key {path}: {groups.did_you_mean(path, sorted(every))}")


def _set(
    cfg: DictConfig, override: Override, known: dict[str, Any], open_groups: Sequence[str]
) -> str:
    """Set what `override` says in `cfg`; returns the line as Hydra wants it.

    Raises:
        ConfigError: the configuration, whose plain content is `known`, has no such key; of the
            `open_groups` of its command no choice is made.
    """
    path, line = override.key_or_group, (override.input_line or "").lstrip("+")
    if path.startswith("hydra."):
        return line
    parent, _, name = path.rpartition(".")
    node = _at(known, parent)
    if not isinstance(node, dict):
        node = {}
    parameters = _parameters(node.get("_target_"))
    if name not in node and name not in parameters:
        _refuse_unknown(path, known, open_groups)
    values.check_part(path, None if override.is_delete() else override.value())
    try:
        if override.is_delete():
            with open_dict(cfg):
                del (OmegaConf.select(cfg, parent) if parent else cfg)[name]
        else:
            value = override.value()
            if name in parameters and not _is_interpolation(value):
                values.check_argument(path, value, parameters[name])
            if value is None and node.get(name) == "???" and holds_a_path(path):
                value = "null"  # it cannot do without, so that is the name of a file
            value = escaped(value) if isinstance(value, str) else value
            OmegaConf.update(cfg, path, value, force_add=name not in node)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{path}: {one_line(error)}") from error
    return line if name in node else f"+{line}"


def _at(known: dict[str, Any], path: str) -> Any:
    node: Any = known
    for name in filter(None, path.split(".")):
        node = node.get(name) if isinstance(node, dict) else None
    return node


def _keys(known: dict[str, Any], prefix: str = "") -> Iterator[str]:
    for name, value in known.items():
        yield f"{prefix}{name}"
        if isinstance(value, dict):
            yield from _keys(value, f"{prefix}{name}.")
            parameters = _parameters(value.get("_target_"))
            yield from (f"{prefix}{name}.{parameter}" for parameter in parameters)


def _is_interpolation(value: Any) -> bool:
    return isinstance(value, str) and "${" in value


def _parameters(target: str | None) -> dict[str, Any]:
    """The arguments of the constructor `target` with their types; none where there is none."""
    if target is None or not _trusted(target):
        return {}
    module, _, name = target.rpartition(".")
    try:
        constructor = getattr(importlib.import_module(module), name)
        made = inspect.signature(constructor)
    except (ImportError, AttributeError, TypeError, ValueError):
        return {}
    with suppress(Exception):  # types that exist for type checkers only: the names stay known
        made = inspect.signature(constructor, eval_str=True)
    return {argument: one.annotation for argument, one in made.parameters.items()}
