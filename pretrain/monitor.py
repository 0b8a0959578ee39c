"""The kNN monitor of a pretraining: top-1 on the labelled test part, now and then.

Every process takes its share of the images. The nets of all are that of the first: under batch norm
of their own, their running statistics differ.
"""

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from visrep import dist
from visrep.data.dataset import ImageDataset
from visrep.data.images import BrokenImages
from visrep.data.preprocess import Preprocess
from visrep.engine.evaluation import shared_classes
from visrep.engine.extraction import extract
from visrep.engine.hooks import Evaluate
from visrep.errors import UserError
from visrep.nn.knn import knn_predict

log = logging.getLogger("visrep")


class Share:
    """This process' part of some samples of a data set.

    Args:
        indices: the samples, of all processes together.
        max_broken: share of unreadable ones that is left out before it fails.
    """

    def __init__(self, dataset: ImageDataset, indices: Tensor, max_broken: float) -> None:
        assert dataset.labels is not None
        self.dataset, self.labels = dataset, dataset.labels
        self.indices = indices.tensor_split(dist.world_size())[dist.rank()]
        self.broken = BrokenImages(max_broken, len(indices))
        self._any = indices[:1]

    def features(self, encoder: nn.Module, **loading: Any) -> tuple[Tensor, Tensor]:
        """Features and labels of those that can be read: n x D and n, on the device."""
        # With more processes than samples some have none, and still need to know the width.
        indices = self.indices if len(self.indices) else self._any
        device = loading["device"]
        found, kept = extract(
            encoder, self.dataset, indices=indices, broken=self.broken, home=device, **loading
        )
        count = min(len(self.indices), len(kept))
        return found[:count], self.labels[kept[:count]].to(device)


class KnnReading:
    """Measures top-1 in percent, each process its share; a function of the encoder alone."""

    def __init__(
        self,
        encoder: nn.Module,
        bank: Share,
        queries: Share,
        *,
        k: int,
        temperature: float,
        loading: dict[str, Any],
    ) -> None:
        """`loading`: `preprocess`, `device` and `workers`, as in `extract`."""
        self.encoder, self.bank, self.queries = encoder, bank, queries
        self.k, self.temperature, self.loading = k, temperature, loading

    def __call__(self) -> dict[str, float]:
        device = self.loading["device"]
        with of_the_first(self.encoder):
            bank, queries = together(
                lambda: [
                    part.features(self.encoder, **self.loading)
                    for part in (self.bank, self.queries)
                ],
                device,
            )
        features, labels = (dist.gather(part, equal=False) for part in bank)
        wanted = queries[1]
        predicted = together(
            lambda: knn_predict(
                features,
                labels,
                queries[0],
                k=self.k,
                temperature=self.temperature,
                classes=len(self.bank.dataset.classes or []),
            ),
            device,
        )
        hits = torch.tensor([int((predicted == wanted).sum()), len(wanted)], device=device)
        right, count = dist.sum(hits).tolist()
        return {"knn": 100 * right / count}


def together(work: Callable[[], Any], device: torch.device | str) -> Any:
    """What `work` returns, once all processes have done theirs; where one fails, all raise.

    Else the others would wait for the one that has failed.
    """
    result, failure = None, None
    try:
        result = work()
    except Exception as error:
        failure = error
    failed = int(dist.sum(torch.tensor(failure is not None, device=device).long()))
    if failure is not None:
        raise failure
    if failed:
        raise UserError(f"{failed} other processes could not do their share; see log.rank*.txt")
    return result


@contextmanager
def of_the_first(net: nn.Module) -> Iterator[None]:
    """Inside, the buffers of `net` (running statistics) are those of the first process."""
    own = [buffer.clone() for buffer in net.buffers()] if dist.world_size() > 1 else []
    for buffer in net.buffers() if own else ():
        buffer.copy_(dist.broadcast(buffer))
    try:
        yield
    finally:
        for buffer, value in zip(net.buffers(), own, strict=False):
            buffer.copy_(value)


def even(count: int, most: int) -> Tensor:
    """At most `most` of the numbers below `count`, evenly spread: int64, rising."""
    return torch.linspace(0, count - 1, min(most, count)).long().unique()


def knn_monitor(
    open_test: Callable[[], ImageDataset | None],
    *,
    encoder: nn.Module,
    train: ImageDataset,
    preprocess: Preprocess,
    times: int,
    bank: int,
    k: int,
    temperature: float,
    max_broken: float,
    device: torch.device | str = "cpu",
    workers: int = 0,
) -> Evaluate | None:
    """A hook that measures `encoder`; None, with one line that says why, where it cannot.

    Args:
        open_test: the labelled test part, or None.
        train: training images; labelled ones are the bank.
        times: measurements in all.
        bank: training images at most, drawn evenly.
        k, temperature: of the vote, see `knn_scores`.
        max_broken: share of unreadable images that is left out; of more, it fails.
        device, workers: where features are made and searched, and processes that decode.
    """
    try:
        test = together(open_test, device)
        if train.labels is None or test is None or test.labels is None:
            log.info("kNN monitor: off, there are no labels")
            return None
        _, test = shared_classes(train, test)
        reading = KnnReading(
            encoder,
            Share(train, even(len(train), bank), max_broken),
            Share(test, torch.arange(len(test)), max_broken),
            k=k,
            temperature=temperature,
            loading={"preprocess": preprocess, "device": device, "workers": workers},
        )
    except UserError as error:
        log.warning("warning: kNN monitor: off: %s", error)
        return None
    return Evaluate(reading, times=times, name="the kNN monitor")
