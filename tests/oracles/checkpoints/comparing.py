"""What the tests of all formats do with their cases: save them, read them, compare the features."""

import functools
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch

from visrep.weights.containers.weights_files import read_tree
from visrep.weights.recognition import known_formats

TOLERANCE = 1e-5


def saved(
    cases: Mapping[str, Callable[[], Any]], folder: Path
) -> Callable[[str], tuple[Path, Any]]:
    """A function from the name of a case to its file in `folder` and the case, made once each."""

    @functools.cache
    def case(name: str) -> tuple[Path, Any]:
        made, path = cases[name](), folder / str(list(cases).index(name))
        made.save(path)
        return path, made

    return case


def agrees(given: torch.Tensor, expected: torch.Tensor) -> bool:
    """Whether two sets of features differ by less than TOLERANCE of the largest."""
    return float((given - expected).abs().max() / expected.abs().max()) <= TOLERANCE


def formats_of(path: Path) -> list[str]:
    """The names of all formats that recognise the file."""
    tree = read_tree(path)
    return [kind.NAME for kind in known_formats() if kind.recognise(tree)]
