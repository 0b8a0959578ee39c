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
from visrep.data.images import BrokenImages
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

FORMAT = "visrep-features/2"


def cached(
    encoder: nn.Module,
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    device: torch.device | str = "cpu",
    precision: str = "fp32",
    folder: Path | None = None,
    broken: BrokenImages | None = None,
    **loading: Any,
) -> tuple[Tensor, Tensor]:
    """`extract` through the cache in `folder` (`cache_dir()/features`).

    Images that could not be read are noted in `broken` again when features come from the cache.
    `loading` is `batch_size` and `workers`, which change no number.

    Returns:
        N x D float32 on the CPU, and which images they are of: N int64, indices into the data set.

    Raises:
        UserError: as `extract`.
    """
    if broken is None:
        broken = BrokenImages(0.0, len(dataset))
    key = {
        "format": FORMAT,
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
    entry = _read(path, text)
    if entry is not None:
        features, kept, skipped = entry
        for file, reason in skipped.items():
            broken.record(file, reason)
    else:
        features, kept = extract(
            encoder,
            dataset,
            preprocess,
            device=device,
            precision=precision,
            broken=broken,
            progress=True,
            **loading,
        )
        _keep(path, features, kept, json.dumps(broken.files), key=text)
    return features, kept


def _keep(path: Path, features: Tensor, kept: Tensor, broken: str, *, key: str) -> None:
    """Write an entry; where that cannot be, say so: the features are as good without it."""
    metadata = {"key": key, "broken": broken, "sha256": _digest(features, kept, broken)}
    try:
        with atomic_path(path) as temporary:
            save_file({"features": features, "kept": kept}, temporary, metadata=metadata)
    except (UserError, SafetensorError, OSError) as error:
        log.warning("the features are not kept for the next command: %s", error)


def _read(path: Path, key: str) -> tuple[Tensor, Tensor, dict[str, str]] | None:
    """Features, their images, and the broken ones with the reason; None, said, when damaged."""
    try:
        if not path.exists():
            return None
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            features, kept = file.get_tensor("features"), file.get_tensor("kept")
        broken = metadata.get("broken", "{}")
        if metadata.get("key") != key:
            raise ValueError("its description is another one's")
        if metadata.get("sha256") != _digest(features, kept, broken):
            raise ValueError("its numbers are not those that were written")
    except (SafetensorError, ValueError, OSError) as error:
        log.warning("the cached features %s are damaged (%s); computing them again", path, error)
        return None
    return features, kept, json.loads(broken)


def _digest(features: Tensor, kept: Tensor, broken: str) -> str:
    digest = hashlib.sha256(broken.encode())
    for part in (features, kept):
        digest.update(part.contiguous().numpy().data)
    return digest.hexdigest()


def raw_pixels(
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    broken: BrokenImages | None = None,
    workers: int = 0,
) -> tuple[Tensor, Tensor]:
    """The pixels that an encoder would see: N x (3 * size * size) float32, and of which images."""
    found = list(batches(dataset, preprocess, batch_size=1024, workers=workers, broken=broken))
    return torch.cat([x.flatten(1) for x, _ in found]), torch.cat([index for _, index in found])


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
