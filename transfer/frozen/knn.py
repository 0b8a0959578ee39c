"""`visrep knn weights=encoder.safetensors data=scenes out=DIR`: k nearest neighbours.

The weighted vote of NPID (arXiv 1805.01978) on L2-normalised features, with data.train as the bank
and data.test as the queries; exact, and for several k at the price of one search. `output=head` is
NPID's own protocol, the 128-d output of its head. Two baselines come by the same command:
`init=random` (the same architecture, fresh weights; BN statistics as initialised or re-estimated)
and `init=raw_pixels`.
"""

import base64
import io
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from PIL import Image
from torch import Tensor, nn

from visrep.data.dataset import ImageDataset
from visrep.data.images import BrokenImages
from visrep.engine.evaluation import accuracies, shared_classes
from visrep.engine.extraction import batches
from visrep.engine.precise_bn import reestimate
from visrep.errors import ConfigError
from visrep.files import write_text
from visrep.nn.knn import nearest, votes
from visrep.transfer.frozen.opening import Opening, open_frozen
from visrep.weights.encoder_file import fingerprint


def main(cfg: DictConfig) -> None:
    """Extract features, vote, record."""
    neighbours = _check(cfg)
    opening = open_frozen(cfg, raw_pixels=cfg.init == "raw_pixels")
    run = opening.run
    classes, opening.test = shared_classes(opening.train, opening.test)
    about: dict[str, Any] = {"temperature": float(cfg.temperature)}
    if opening.net is not None:
        about["output"] = cfg.output
        if cfg.init == "random":
            about["bn"] = cfg.bn
        if cfg.bn == "reestimated":
            _reestimate(opening.net, opening)
    bank, queries = opening.features()
    train, test = opening.train, opening.test
    if neighbours[-1] > len(train):
        run.log.info("k=%d: all %d images of %s vote", neighbours[-1], len(train), train.name)
    cosine, index = nearest(bank.to(run.device), queries, k=neighbours[-1])
    label = train.labels.to(run.device)[index]
    for k in neighbours:
        scores = votes(
            cosine[:, :k],
            label[:, :k],
            temperature=float(cfg.temperature),
            classes=len(classes),
        )
        # The configuration of a record is its own, so that one k is no repetition of another.
        replace(run, config=run.config | {"k": k}).record_all(
            accuracies(scores, test.labels),
            task="knn",
            dataset=test.name,
            of=cfg.init,
            note=f", k={k}",
            weights=opening.sha256,
            init=cfg.init,
            k=k,
            **about,
        )
    if opening.net is not None:
        write_neighbours(run.out / "neighbours.json", train, test, bank, queries, classes)


def _reestimate(net: nn.Module, opening: Opening) -> None:
    """Give a fresh net the BN statistics of the training images: it is another net then."""
    train, broken = opening.train, BrokenImages(opening.max_broken, len(opening.train))

    def images() -> Iterator[Tensor]:
        # Again from the start where a batch of broken images is missing at the end.
        while True:
            for x, _ in batches(train, opening.preprocess, broken=broken, **opening.loading):
                yield x

    reestimate(
        net,
        images(),
        count=math.ceil(len(train) / opening.loading["batch_size"]),
        forward=net,
        between=False,
    )
    opening.sha256 = fingerprint(net.eval().state_dict())


def write_neighbours(
    path: Path,
    train: ImageDataset,
    test: ImageDataset,
    bank: Tensor,
    queries: Tensor,
    classes: list[str],
    *,
    count: int = 6,
) -> None:
    """Write `count` test images, one per class in turn, with their `count` nearest training images.

    Pictures are PNG in base64, at most 64 px, so that the report needs no other file.
    """

    def entry(dataset: ImageDataset, index: int) -> dict[str, Any]:
        assert dataset.labels is not None
        picture = Image.fromarray(dataset[index].permute(1, 2, 0).numpy())
        picture.thumbnail((64, 64))
        stream = io.BytesIO()
        picture.save(stream, "PNG")
        label = classes[int(dataset.labels[index])]
        return {"image": base64.b64encode(stream.getvalue()).decode(), "label": label}

    assert test.labels is not None
    firsts = [int((test.labels == c).nonzero()[0]) for c in test.labels.unique().tolist()]
    chosen = firsts[:count]
    similarity, index = nearest(bank, queries[torch.tensor(chosen)], k=count)
    found = []
    for query, row, near in zip(chosen, similarity.tolist(), index.tolist(), strict=True):
        neighbours = [
            entry(train, i) | {"similarity": round(s, 4)} for s, i in zip(row, near, strict=True)
        ]
        found.append(entry(test, query) | {"neighbours": neighbours})
    write_text(path, json.dumps({"dataset": test.name, "bank": train.name, "queries": found}))


def _check(cfg: DictConfig) -> list[int]:
    """Refuse settings that do not fit; returns all k, rising."""
    if cfg.init not in ("pretrained", "random", "raw_pixels"):
        raise ConfigError(f"init={cfg.init}: choose pretrained, random or raw_pixels")
    if cfg.bn not in ("initial", "reestimated"):
        raise ConfigError(f"bn={cfg.bn}: choose initial or reestimated")
    if cfg.bn == "reestimated" and cfg.init != "random":
        raise ConfigError("bn=reestimated is for init=random: trained statistics stay as they are")
    if cfg.weights is None and cfg.init != "raw_pixels":
        raise ConfigError("give a value: weights=...")
    neighbours = sorted({int(k) for k in ([cfg.k] if isinstance(cfg.k, int) else cfg.k)})
    if not neighbours or neighbours[0] < 1 or cfg.temperature <= 0:
        raise ConfigError(f"k={cfg.k} temperature={cfg.temperature}: both must be above 0")
    return neighbours
