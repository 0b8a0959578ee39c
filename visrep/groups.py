"""The yaml files: groups of choices, ours in `configs/` and the user's in `config_dir=`."""

import difflib
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from visrep.errors import ConfigError
from visrep.paths import config_dir

_own_folder: Path | None = None  # the user's config_dir=


def use_folder(given: str) -> None:
    """Search `given`, a `config_dir=`, beside ours from now on.

    Raises:
        ConfigError: there is no such folder, or a file in it has a name of ours.
    """
    global _own_folder
    folder = Path(given).absolute()
    if not os.path.isdir(folder):  # False for a name that is too long, too
        raise ConfigError(f"config_dir={given}: there is no such folder")
    for path in folder.glob("*/*.yaml"):
        if (config_dir() / path.relative_to(folder)).exists():
            raise ConfigError(
                f"config_dir={given}: {path.parent.name}={path.stem} is a choice of visrep's own; "
                "give the file another name"
            )
    _own_folder = folder


def folders() -> list[Path]:
    """Where the files of groups lie, ours first."""
    return [config_dir(), *([_own_folder] if _own_folder else [])]


def groups_of(command: str) -> dict[str, list[str]]:
    """The groups of choices that `command` uses: name -> choices."""
    return {group: choices(group) for group, _ in chosen_in(config_dir() / f"{command}.yaml")}


def sources(command: str, overrides: Sequence[str]) -> list[Path]:
    """The yaml files that make the configuration of `command` under `overrides`, sorted.

    Those of every choice that is made, by an override, by the command's own defaults or by a chosen
    file; also of one that a later choice displaces. None for a command without a yaml.
    """
    chosen = [line.partition("=")[::2] for line in overrides]
    waiting = [config_dir() / f"{command}.yaml"]
    waiting += [path for group, name in chosen for path in _files(group, name)]
    found: set[Path] = set()
    while waiting:
        path = waiting.pop()
        if path not in found and path.is_file():
            found.add(path)
            waiting += [file for group, name in chosen_in(path) for file in _files(group, name)]
    return sorted(found)


def contents(command: str) -> Iterator[dict[str, Any]]:
    """What the yaml of `command` and every choice of its groups hold, each in its place."""
    yield from _content(config_dir() / f"{command}.yaml", "")
    for group in groups_of(command):
        yield from contents_of(group)


def contents_of(group: str) -> Iterator[dict[str, Any]]:
    """What every choice of `group` holds, in its place."""
    for name in choices(group):
        for path in _files(group, name):
            yield from _content(path, group)


def _content(path: Path, group: str) -> Iterator[dict[str, Any]]:
    import yaml

    if path.is_file():
        text = path.read_text(encoding="utf-8")
        content = yaml.safe_load(text) or {}
        yield content if not group or "@package _global_" in text else {group: content}


def _files(group: str, name: Any) -> list[Path]:
    return [folder / group / f"{name}.yaml" for folder in folders()]


def chosen_in(path: Path) -> list[tuple[str, Any]]:
    """Group and choice of each line of a defaults list; "override /optim@where" is optim."""
    import yaml

    content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    # A plain name is a file of the same group.
    lines = [line for line in content.get("defaults", []) if line != "_self_"]
    chosen = [line if isinstance(line, dict) else {path.parent.name: line} for line in lines]
    pairs = [pair for line in chosen for pair in line.items()]
    return [(re.sub(r"^(override |optional )*/?|@.*$", "", key), name) for key, name in pairs]


def choices(group: str) -> list[str]:
    """The names of the yaml files of `group`, the user's among them."""
    return sorted({path.stem for folder in folders() for path in (folder / group).glob("*.yaml")})


def named(group: str, name: str) -> DictConfig:
    """The yaml `group/name` alone, for keys whose value names a file of a group.

    Raises:
        ConfigError: there is no such file; the message names the nearest.
    """
    if name not in choices(group):
        raise ConfigError(f"{group}={name}: {did_you_mean(name, choices(group))}")
    loaded = OmegaConf.load(next(path for path in _files(group, name) if path.is_file()))
    assert isinstance(loaded, DictConfig)
    return loaded


def check_name(group: str, name: object, content: DictConfig) -> None:
    """Raise ConfigError where `group/name` calls itself otherwise, as a copied file does."""
    said = content.get(group)
    if isinstance(said, str) and isinstance(name, str) and said != name:
        raise ConfigError(
            f"{group}={name} calls itself {said}: write {group}: {name} into {group}/{name}.yaml"
        )


def did_you_mean(word: str, known: Sequence[str]) -> str:
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.4)
    if not near:  # the last part may be right under another parent
        last = word.rpartition(".")[2]
        near = [key for key in known if key.rpartition(".")[2] == last][:1]
    listed = ", ".join(known) if len(known) <= 40 else "what --help lists"
    return f"did you mean {near[0]}?" if near else f"choose from {listed}"
