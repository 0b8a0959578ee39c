"""Frozen features of a data set, kept in the cache folder; the encoders they are taken from.

A cache entry is named by what it depends on: the net (its tensors, and how its modules are put
together), the data's fingerprint, the preprocessing and the precision. It holds a hash of its own
numbers, so a damaged entry is noticed and computed again.
"""

import hashlib
import json
import logging
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from visrep.data.dataset import ImageDataset
from visrep.data.preprocess import Preprocess
from visrep.engine.extraction import batches, extract
from visrep.engine.precision import autocast_dtype
from visrep.errors import ConfigError, UserError
from visrep.files import atomic_path
from visrep.nn.resnet import ResNet
from visrep.paths import cache_dir
from visrep.seeds import seeded
from visrep.weights.encoder_file import EncoderFile, fingerprint
from visrep.weights.reading import encoder_of, read_weights

log = logging.getLogger("visrep")

FORMAT = "visrep-features/1"


def cached(
    encoder: nn.Module,
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    folder: Path | None = None,
    **loading: Any,
) -> Tensor:
    """`extract` through the cache in `folder` (`cache_dir()/features`): N x D float32, CPU.

    `loading` is `batch_size` and `workers`, which change no number.
    """
    key = {
        "weights": fingerprint(encoder.state_dict()),
        # Strides and padding have no tensors: the same weights can be two nets.
        "net": hashlib.sha256(repr(encoder).encode()).hexdigest(),
        "data": dataset.fingerprint,
        "images": len(dataset),
        "preprocess": preprocess.to_dict(),
        "precision": str(autocast_dtype(precision, torch.device(device))),
    }
    text = json.dumps(key, sort_keys=True)
    name = hashlib.sha256(text.encode()).hexdigest()
    path = (folder or cache_dir() / "features") / f"{name}.safetensors"
    features = _read(path, text)
    if features is None:
        features = extract(
            encoder,
            dataset,
            preprocess,
            device=device,
            precision=precision,
            progress=True,
            **loading,
        )
        _keep(path, features, key=text)
    return features


def _keep(path: Path, features: Tensor, *, key: str) -> None:
    """Write an entry; where that cannot be, say so: the features are as good without it."""
    metadata = {"format": FORMAT, "key": key, "sha256": _digest(features)}
    try:
        with atomic_path(path) as temporary:
            save_file({"features": features}, temporary, metadata=metadata)
    except (UserError, SafetensorError, OSError) as error:
        log.warning("the features are not kept for the next command: %s", error)


def _read(path: Path, key: str) -> Tensor | None:
    """The features in `path`; None, with a line in the log, when the entry is damaged."""
    try:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            metadata, features = file.metadata() or {}, file.get_tensor("features")
        if metadata.get("format") != FORMAT or metadata.get("key") != key:
            raise ValueError("its description is another one's")
        if metadata.get("sha256") != _digest(features):
            raise ValueError("its numbers are not those that were written")
    except (SafetensorError, ValueError, OSError) as error:
        log.warning("the cached features %s are damaged (%s); computing them again", path, error)
        return None
    return features


def _digest(features: Tensor) -> str:
    return hashlib.sha256(features.contiguous().numpy().tobytes()).hexdigest()


def raw_pixels(dataset: ImageDataset, preprocess: Preprocess) -> Tensor:
    """The pixels that an encoder would see: N x (3 * size * size) float32, CPU."""
    return torch.cat([block.flatten(1) for block in batches(dataset, preprocess, batch_size=1024)])


def frozen_encoder(
    weights: str | Path | EncoderFile, *, init: str, seed: int
) -> tuple[ResNet, Preprocess, str]:
    """The encoder of the file `weights` (init=pretrained), or a fresh one like it (init=random).

    Returns the net in eval mode, without gradients; what its input must go through; its sha256: of
    the whole file, or of the fresh tensors, which are a function of `seed`.

    Raises:
        UserError: the file holds no encoder.
        ConfigError: `init` is neither.
    """
    require_init(init)
    file = weights if isinstance(weights, EncoderFile) else read_weights(weights)
    if init == "pretrained":
        encoder: ResNet = encoder_of(file)
    else:
        with seeded(seed, "encoder"):
            # A block whose last gamma is zero passes nothing on, and an untrained net of such
            # blocks would be a weaker baseline than the same random weights can be.
            encoder = ResNet(**file.backbone, zero_init_residual=False)
    sha256 = file.sha256 if init == "pretrained" else fingerprint(encoder.state_dict())
    return encoder.eval().requires_grad_(False), Preprocess.from_dict(file.preprocess), sha256


def require_init(init: str) -> None:
    """Raise ConfigError unless `init` is pretrained or random."""
    if init not in ("pretrained", "random"):
        raise ConfigError(f"init={init}: choose pretrained or random")
