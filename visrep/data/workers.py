"""Processes that decode: one way to start them, to wait for them and to tell what became of them.

They leave signals to the process that they serve and end with it. What a user can mend comes out of
them as out of a loop without them, as one line; so do their death and their silence.
"""

import atexit
import multiprocessing
import os
import re
import shutil
import signal
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset, IterableDataset, default_collate, default_convert

from visrep import dist, signals
from visrep.errors import ConfigError, UserError

SHARED = Path("/dev/shm")  # where batches cross from process to process, on Linux
PREFETCH = 2  # items that a process makes in advance


class Fetched:
    """The items of a `DataLoader`; can be iterated again, from the start.

    Torch's generator is left alone: a loader would draw a number from it at its first item, and a
    run that is gone on with has its first item at another step.

    Args:
        dataset: map-style or iterable.
        workers: processes, 0 for none.
        item_bytes: size of what one step of the loader hands over, in bytes.
        collate_fn: as the loader's; None: its default.
        begin: called in each process with its number, before the first item.
        settings: other arguments of the loader.

    Raises (when it is iterated):
        ConfigError: the items that are under way at a time do not fit into shared memory.
        UserError: what the data set raises; a process has died, or none has delivered in time.
    """

    def __init__(
        self,
        dataset: Dataset,
        *,
        workers: int,
        item_bytes: int,
        collate_fn: Callable[[Any], Any] | None = None,
        begin: Callable[[int], None] | None = None,
        **settings: Any,
    ) -> None:
        self.dataset = dataset
        self.workers = workers
        self.item_bytes = item_bytes
        batched = settings.get("batch_size", 1) is not None or "batch_sampler" in settings
        default = default_collate if batched else default_convert
        self.collate = collate_fn or default
        self.begin = begin
        self.settings = settings

    def __iter__(self) -> Iterator[Any]:
        if not self.workers:
            yield from DataLoader(
                self.dataset, collate_fn=self.collate, generator=torch.Generator(), **self.settings
            )
            return
        require_shared_memory(self.item_bytes, self.workers)
        stream = isinstance(self.dataset, IterableDataset)
        loader = DataLoader(
            _GuardedStream(self.dataset) if stream else _Guarded(self.dataset),
            num_workers=self.workers,
            prefetch_factor=PREFETCH,
            collate_fn=_Collate(self.collate),
            worker_init_fn=_Begin(self.begin),
            timeout=_patience(),
            generator=torch.Generator(),
            **self.settings,
        )
        others = set(multiprocessing.active_children())
        with signals.blocked():
            items = iter(loader)
        _PROCESSES.update(set(multiprocessing.active_children()) - others)
        while True:
            try:
                item = next(items)
            except StopIteration:
                return
            except RuntimeError as error:
                line = explained(error)
                if line is None:
                    raise
                raise line from error
            if isinstance(item, _Failure):
                raise item.error
            yield item


def require_shared_memory(item_bytes: int, workers: int) -> None:
    """Raise ConfigError when shared memory does not hold what `workers` make in advance.

    Without room a worker's batch is lost and training waits for it.
    """
    if not workers or not SHARED.is_dir():
        return
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    needed = item_bytes * PREFETCH * workers * processes
    free = shutil.disk_usage(SHARED).free
    if needed > free:
        each = f" in each of {processes} processes" if processes > 1 else ""
        raise ConfigError(
            f"workers={workers}{each} hold up to {_size(needed)} of batches in {SHARED}, which has "
            f"{_size(free)} free: lower workers= (0 needs none) or batch_size=, or give the "
            f"container more, as with docker run --shm-size={-(-2 * needed // 2**30)}g"
        )


def explained(error: RuntimeError) -> UserError | None:
    """What torch says of processes that died or are silent, as one line; None: it is not that."""
    text = str(error)
    if "DataLoader timed out" in text:
        room = f"; {SHARED} has {_size(shutil.disk_usage(SHARED).free)} free" * SHARED.is_dir()
        return UserError(
            f"the decoding processes (workers=) delivered nothing for {_patience():.0f} s: is the "
            f"disk of the data reachable{room}? A full one needs docker run --shm-size=, or fewer "
            "workers= (0 needs none); VISREP_TIMEOUT=SECONDS waits longer"
        )
    if not re.search("DataLoader worker .*(exited unexpectedly|is killed by signal)", text):
        return None
    how = re.search(r"killed by signal: ([\w ]+)", text)
    if how and how[1].startswith("Bus error"):
        cure = f"{SHARED} is full: docker run --shm-size=, fewer workers=, or workers=0"
    else:
        cure = "when memory is short the system ends processes so: lower workers= or batch_size="
    said = f"was killed ({how[1]})" if how else "ended unexpectedly"
    return UserError(f"a decoding process (workers=) {said}; {cure}")


def _patience() -> float:
    """Seconds to wait for workers: this process speaks before others wait for it in vain."""
    return dist.patience() / 2


def _size(count: int) -> str:
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"


_PROCESSES: weakref.WeakSet[Any] = weakref.WeakSet()


@atexit.register
def end() -> None:
    """End the processes that are left, whatever they are at.

    At its exit Python would ask them to end, which they ignore, and wait for ever.
    """
    if not _PROCESSES:
        return
    told = signal.signal(signal.SIGCHLD, signal.SIG_DFL)  # torch would call their death an error
    for process in _PROCESSES:
        process.kill()
    for process in _PROCESSES:
        process.join()
    _PROCESSES.clear()
    signal.signal(signal.SIGCHLD, told)


class _Failure:
    """An error on its way from a worker, which torch would dress in a traceback."""

    def __init__(self, error: UserError) -> None:
        self.error = error


class _Guarded(Dataset):
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, item: Any) -> Any:
        try:
            return self.dataset[item]
        except UserError as error:
            return _Failure(error)


class _GuardedStream(IterableDataset):
    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __iter__(self) -> Iterator[Any]:
        try:
            yield from self.dataset
        except UserError as error:
            yield _Failure(error)


class _Collate:
    """`inner`, but a failure among the samples is the batch."""

    def __init__(self, inner: Callable[[Any], Any]) -> None:
        self.inner = inner

    def __call__(self, samples: Any) -> Any:
        for sample in samples if isinstance(samples, list) else [samples]:
            if isinstance(sample, _Failure):
                return sample
        return self.inner(samples)


class _Begin:
    def __init__(self, then: Callable[[int], None] | None) -> None:
        self.then = then

    def __call__(self, worker: int) -> None:
        signals.serve_parent()
        if self.then is not None:
            self.then(worker)
