"""The encoder file of Exemplar-CNN's own networks, which are no ResNets.

It is visrep's encoder file (`visrep.weights.encoder_file`) with another description of the
backbone, {"net": "large"}. The commands that need a ResNet refuse it; those on frozen features read
it here.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.weights.containers.tree import AGAIN, OnDemand, Tree
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import (
    EncoderFile,
    differences,
    into_module,
    require_finite,
    shapes_of,
    stored_tensors,
    write_encoder,
)
from visrep.weights.formats import visrep_encoder


class LoadedExemplarNet(ExemplarNet):
    """A network read from a file."""

    preprocess: Preprocess
    sha256: str


def save_exemplar(
    path: str | Path, *, net: ExemplarNet, preprocess: Preprocess, source: Mapping[str, Any]
) -> str:
    """Write `net` as an encoder file, whole or not at all, and return its sha256.

    Raises:
        UserError: the file cannot be written, or the weights are not finite.
    """
    return write_encoder(
        path,
        EncoderFile(
            backbone=dict(net.spec),
            preprocess=preprocess.to_dict(),
            tensors=stored_tensors(net),
            source=dict(source),
        ),
    )


def read_exemplar(path: str | Path | Tree) -> LoadedExemplarNet | None:
    """The network of a file in eval mode, or None where the file is of another kind.

    Raises:
        UserError: there is no such file, or it is such a file but damaged or inconsistent.
    """
    tree = path if isinstance(path, Tree) else read_tree(path)
    backbone = _described(tree)
    if backbone is None:
        return None
    try:
        with torch.device("meta"):
            net = LoadedExemplarNet(**backbone)
    except ConfigError as error:
        raise UserError(f"{tree.path}: {error}") from error
    tensors = dict(OnDemand(tree, tree.value))
    problem = differences(shapes_of(net), {name: tuple(t.shape) for name, t in tensors.items()})
    if problem:
        raise UserError(f"{tree.path}: {problem}; {AGAIN}")
    try:
        preprocess = Preprocess.from_dict(json.loads(tree.metadata["preprocess"]))
    except (KeyError, TypeError, ValueError, UserError) as error:
        raise UserError(f"{tree.path}: its preprocessing is damaged ({error}); {AGAIN}") from error
    file = EncoderFile(backbone=backbone, preprocess=preprocess.to_dict(), tensors=tensors)
    require_finite(file, tree.path)
    if file.sha256 != tree.metadata.get("sha256"):
        raise UserError(
            f"{tree.path}: the weights do not agree with the sha256 stored beside them; {AGAIN}"
        )
    into_module(net, tensors)
    net.preprocess = preprocess
    net.sha256 = file.sha256
    return net.eval()


def _described(tree: Tree) -> dict[str, Any] | None:
    """The description of one of the three networks; None where the file has none."""
    if not visrep_encoder.recognise(tree):
        return None
    try:
        backbone = json.loads(tree.metadata.get("backbone", "null"))
    except ValueError:
        return None  # the reader of all other encoder files says what is wrong
    return backbone if isinstance(backbone, dict) and set(backbone) == {"net"} else None
