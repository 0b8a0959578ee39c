"""visrep's own encoder file."""

import json
from typing import Any

from visrep.data.preprocess import Preprocess
from visrep.errors import UserError
from visrep.weights.containers.tree import AGAIN, OnDemand, Tree
from visrep.weights.encoder_file import FORMAT, EncoderFile, mismatch
from visrep.weights.foreign import Choice

NAME = "visrep encoder"


def recognise(tree: Tree) -> bool:
    return tree.metadata.get("format", "").startswith("visrep-encoder/")


def read(tree: Tree, choice: Choice) -> EncoderFile:
    """Raises UserError when the file is of another version, damaged or inconsistent."""
    if choice.stem or choice.padding or choice.input:
        raise UserError(
            f"{tree.path} says itself what net it holds: leave out stem=, padding= and input="
        )
    if tree.metadata["format"] != FORMAT:
        raise UserError(
            f"{tree.path} has the format {tree.metadata['format'][:40]!r}, this visrep reads "
            f"{FORMAT}: upgrade visrep"
        )
    try:
        stored = {key: json.loads(tree.metadata[key]) for key in _KINDS}
        for key, kinds in _KINDS.items():
            if not isinstance(stored[key], kinds):
                raise UserError(f"{key} is not what it should be")
        tensors = OnDemand(tree, tree.value)
        file = EncoderFile(tensors=tensors if choice.on_demand else dict(tensors), **stored)
        _check_classes(file.classes)
        Preprocess.from_dict(file.preprocess)
        problem = mismatch(file)
    except KeyError as error:
        raise UserError(f"{tree.path}: its metadata lacks {error}; {AGAIN}") from error
    except (UserError, TypeError, ValueError, RuntimeError, RecursionError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise UserError(f"{tree.path}: {reason.removeprefix(f'{tree.path}: ')}") from error
    if problem:
        raise UserError(f"{tree.path}: {problem}; {AGAIN}")
    if file.sha256 != tree.metadata.get("sha256"):
        raise UserError(
            f"{tree.path}: the weights do not agree with the sha256 stored beside them; {AGAIN}"
        )
    return file


_KINDS: dict[str, Any] = {
    "backbone": dict,
    "preprocess": dict,
    "head": (dict, type(None)),
    "classes": (list, type(None)),
    "source": dict,
}


def _check_classes(classes: list[Any] | None) -> None:
    if classes is not None and not all(isinstance(name, str) for name in classes):
        raise UserError("a class name is no text")
