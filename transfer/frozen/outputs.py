"""What of a frozen net is the feature: the encoder's output, its head's, or all of its layers.

pooled   the encoder's output, as every protocol but two has it
head     the output of the projection head, of unit length: NPID's own 128-d (arXiv 1805.01978)
layers   maxima of every layer's maps over the quadrants of the image: Exemplar-CNN's
         (arXiv 1406.6909)
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.embeddings import unit
from visrep.nn.exemplar_nets import ExemplarNet, LayerFeatures
from visrep.nn.heads import MLP
from visrep.seeds import seeded
from visrep.transfer.frozen import features
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import EncoderFile, fingerprint, into_module
from visrep.weights.exemplar_file import LoadedExemplarNet, read_exemplar
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights

OUTPUTS = ("pooled", "head", "layers")


class HeadFeatures(nn.Module):
    """Encoder and projection head, L2-normalised: N x 3 x H x W -> N x (the head's width)."""

    def __init__(self, encoder: nn.Module, head: MLP) -> None:
        super().__init__()
        self.encoder = encoder
        self.head = head

    def forward(self, x: Tensor) -> Tensor:
        return unit(self.head(self.encoder(x)))


def frozen_output(
    weights: str | Path,
    *,
    prefix: str | None = None,
    output: str = "pooled",
    init: str = "pretrained",
    seed: int = 0,
    grids: Sequence[int] = (2,),
    size: int | None = None,
) -> tuple[nn.Module, Preprocess, str]:
    """A frozen net N x 3 x H x W -> N x D, what its input must go through, and its sha256.

    Args:
        weights: an encoder file, also one of Exemplar-CNN's own networks, or a checkpoint.
        prefix: where the net is in a checkpoint of no known format.
        output: pooled, head or layers.
        init: pretrained, or random: the same architecture with fresh weights.
        seed: of the fresh weights.
        grids: of `layers`: cells on a side, for each grid; 2 is quadrants, 1 2 4 a pyramid.
        size: pixels that images are resized to (short side, then a central square); None: as the
            file has it.

    Raises:
        UserError: the file holds no encoder, or no head where `output` asks for it.
        ConfigError: an unknown `output` or `init`; or a prefix for one of Exemplar-CNN's networks.
    """
    if output not in OUTPUTS:
        raise ConfigError(f"output={output}: choose {', '.join(OUTPUTS)}")
    features.require_init(init)
    tree = read_tree(weights)
    own = read_exemplar(tree)
    head = None
    if own is not None:
        if prefix is not None:
            raise ConfigError(f"prefix={prefix}: {weights} holds a single net; leave it out")
        encoder, preprocess, sha256 = _exemplar_net(own, init=init, seed=seed)
    else:
        file = read_weights(tree, Choice(prefix=prefix))
        encoder, preprocess, sha256 = features.frozen_encoder(file, init=init, seed=seed)
        head = _head(file, init=init, seed=seed) if output == "head" else None
    if size is not None:
        preprocess = dataclasses.replace(preprocess, size=int(size), resize=int(size))
    if output == "layers":
        net: nn.Module = LayerFeatures(encoder, grids=grids)
    elif output == "head":
        if head is None:
            raise UserError(f"{weights} holds no projection head: use output=pooled")
        net = HeadFeatures(encoder, head)
    else:
        net = encoder
    return net.eval().requires_grad_(False), preprocess, sha256


def _exemplar_net(
    own: LoadedExemplarNet, *, init: str, seed: int
) -> tuple[nn.Module, Preprocess, str]:
    """`features.frozen_encoder` of one of Exemplar-CNN's networks."""
    if init == "pretrained":
        return own, own.preprocess, own.sha256
    with seeded(seed, "encoder"):
        fresh = ExemplarNet(**own.spec)
    return fresh, own.preprocess, fingerprint(fresh.state_dict())


def _head(file: EncoderFile, *, init: str, seed: int) -> MLP | None:
    """The projection head of the file, or a fresh one like it."""
    if file.head is None:
        return None
    if init == "random":
        with seeded(seed, "head"):
            return MLP(**file.head)
    with torch.device("meta"):
        head = MLP(**file.head)
    into_module(head, file.part("head"))
    return head
