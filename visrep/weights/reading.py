"""Any checkpoint in, an `EncoderFile` or a module out."""

from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.heads import MLP
from visrep.weights import anywhere
from visrep.weights.containers.tree import Tree
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import (
    Encoder,
    EncoderFile,
    LoadedClassifier,
    build,
    into_module,
    require_finite,
)
from visrep.weights.foreign import Choice
from visrep.weights.formats import visrep_encoder
from visrep.weights.head_choice import CLASSIFIER
from visrep.weights.naming import bare_names
from visrep.weights.recognition import identify, matching

ASK_NOTHING = Choice()


def read_weights(path: str | Path | Tree, choice: Choice = ASK_NOTHING) -> EncoderFile:
    """Read an encoder file or another checkpoint, told by its content. Nothing in it is executed.

    Args:
        path: of the file, or the file opened by `read_tree`.
        choice: which network of a checkpoint that holds several, and what its content cannot say.

    Raises:
        UserError: there is no such file, it is damaged, of no known format, of an architecture
            that visrep does not hold, or its weights are not finite; or it has not what `choice`
            asks for.
        ConfigError: a plugin's format breaks the contract of `visrep.weights.formats`.
    """
    tree = path if isinstance(path, Tree) else read_tree(path)
    file = _read(tree, choice)
    if choice.encoder is not None and choice.encoder != file.encoder:
        others = ", ".join((file.encoder, *file.alternatives)) if file.encoder else "a single one"
        raise UserError(f"{tree.path}: it holds no encoder={choice.encoder}, but {others}")
    if choice.origin is not None and file.source.get("origin") != choice.origin:
        raise UserError(f"{tree.path}: origin= is for torchvision's names only")
    layers = len(file.head["layers"]) if file.head is not None else 0
    if choice.classifier is not None and (not file.part("fc") or layers != choice.classifier):
        where = f"one on layer {layers}" if file.part("fc") else "none"
        raise UserError(f"{tree.path}: classifier={choice.classifier}, but it holds {where}")
    require_finite(file, tree.path)
    return file


def _read(tree: Tree, choice: Choice) -> EncoderFile:
    """By the format that the file fits, with its names as they are or without wrappers' parts; else
    the ResNet that lies in it, which `choice.prefix` names where there are several."""
    if choice.prefix is None:
        if visrep_encoder.recognise(tree):
            return _by(visrep_encoder, tree, choice)
        for view in (tree, replace(tree, value=bare_names(tree.value))):
            if len(kinds := matching(view)) == 1:
                return _by(kinds[0], view, choice)
    nets = anywhere.nets_in(tree)
    if choice.prefix is None and (not nets or matching(tree)):
        identify(tree)  # says why not
    return _by(anywhere, tree, choice, nets)


def _by(kind: ModuleType, tree: Tree, choice: Choice, *nets: Any) -> EncoderFile:
    file = kind.read(tree, choice, *nets)
    if not isinstance(file, EncoderFile):
        given = type(file).__name__
        raise ConfigError(f"{kind.__name__}: read must return an EncoderFile, not {given}")
    file.kind = kind.NAME
    return file


def load_encoder(path: str | Path) -> Encoder:
    """The encoder of `path` in eval mode: N x 3 x H x W, normalised as its `.preprocess` says, to
    N x D. `.sha256` names the weights of the file.

    Raises:
        UserError: as `read_weights`.
    """
    return encoder_of(read_weights(path))


def load_classifier(path: str | Path, choice: Choice = ASK_NOTHING) -> LoadedClassifier:
    """Encoder, head and classifier of `path` in eval mode: N x 3 x H x W to N x classes logits.

    Raises:
        UserError: as `read_weights`; or the file holds no classifier.
    """
    file = read_weights(path, choice)
    if not file.part("fc") and any(CLASSIFIER in group for group in file.dropped):
        raise UserError(
            f"{path} holds a classifier and a projection head: say which layer of the head the "
            "classifier sits on, with visrep convert classifier=LAYER"
        )
    if not file.part("fc"):
        raise UserError(
            f"{path} holds an encoder without a classifier: make one with visrep finetune"
        )
    return classifier_of(file)


def encoder_of(file: EncoderFile) -> Encoder:
    """The encoder of `file` in eval mode; it shares the memory of the file's tensors."""
    encoder = build(file.backbone, Encoder)
    assert isinstance(encoder, Encoder)
    into_module(encoder, file.part(""))
    encoder.preprocess = Preprocess.from_dict(file.preprocess)
    encoder.sha256 = file.sha256
    return encoder.eval()


def classifier_of(file: EncoderFile) -> LoadedClassifier:
    """The classifier of `file` in eval mode; it shares the memory of the file's tensors."""
    with torch.device("meta"):
        module = LoadedClassifier(
            encoder=build(file.backbone),
            head=None if file.head is None else MLP(**file.head),
            classes=len(file.tensors["fc.weight"]),
            zero_init=False,
        )
    tensors = {f"encoder.{name}": tensor for name, tensor in file.part("").items()}
    for prefix in ("head", "fc"):
        tensors |= {f"{prefix}.{name}": tensor for name, tensor in file.part(prefix).items()}
    into_module(module, tensors)
    module.preprocess = Preprocess.from_dict(file.preprocess)
    module.classes = file.classes
    module.sha256 = file.sha256
    return module.eval()
