"""Two worker processes joined by gloo, started once per test session, for every distributed test.

    def work(x):                       # a module-level function of the test file
        return dist.sum(x * (dist.rank() + 1))

    def test_it(two_processes):
        a, b = two_processes(work, torch.ones(3))

The workers import the test file anew (by its path), so what a test changes in this process, they do
not see. They keep one thread, and the random seed is 0 at the start of every call.
"""

import atexit
import importlib.util
import multiprocessing
import os
import pickle
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from datetime import timedelta
from multiprocessing.connection import Connection, wait
from typing import Any

import pytest

LIMIT = 120.0  # seconds for one call
GRACE = 1.0  # seconds for the other process once one has failed: it may wait for the first for ever


class WorkerError(AssertionError):
    """A worker failed; the message holds its traceback."""


class _Pool:
    def __init__(self) -> None:
        self.usable = True
        self.folder = tempfile.TemporaryDirectory()
        context = multiprocessing.get_context("spawn")
        self.links, self.workers = [], []
        for rank in range(2):
            here, there = context.Pipe()
            worker = context.Process(
                target=_serve, args=(rank, self.folder.name, there, sys.path), daemon=True
            )
            worker.start()
            there.close()
            self.links.append(here)
            self.workers.append(worker)

    def run(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> tuple[Any, Any]:
        module = sys.modules[fn.__module__]
        call = (module.__name__, module.__file__, fn.__qualname__, pickle.dumps(args))
        for link in self.links:
            link.send(call)
        self.usable = False  # until both have answered
        answers: dict[int, tuple[Any, str | None]] = {}
        end = time.monotonic() + LIMIT
        while len(answers) < 2:
            waiting = {self.links[rank]: rank for rank in (0, 1) if rank not in answers}
            ready = wait(list(waiting), timeout=max(end - time.monotonic(), 0))
            if not ready:
                failed = [error for _, error in answers.values() if error]
                raise WorkerError(failed[0] if failed else f"no answer in {LIMIT:.0f} s")
            for link in ready:
                assert isinstance(link, Connection)
                rank = waiting[link]
                try:
                    data, error = link.recv()
                except EOFError:
                    raise WorkerError(f"process {rank} died") from None
                answers[rank] = (data, error)
                if error:
                    end = min(end, time.monotonic() + GRACE)
        errors = {rank: error for rank, (_, error) in answers.items() if error}
        self.usable = len(errors) != 1  # both failed alike, or none
        for rank, error in errors.items():
            raise WorkerError(f"process {rank} failed:\n{error}")
        return pickle.loads(answers[0][0]), pickle.loads(answers[1][0])

    def close(self) -> None:
        for worker in self.workers:
            worker.kill()
            worker.join()
        for link in self.links:
            link.close()
        self.folder.cleanup()


_pool: _Pool | None = None


def run_on_two(fn: Callable[..., Any], *args: Any) -> tuple[Any, Any]:
    """Call the module-level function `fn(*args)` in both workers; returns (result 0, result 1).

    An exception in a worker is raised here as WorkerError with its traceback. If only one of them
    failed, the other may hang in a collective: the next call then starts fresh workers.
    """
    global _pool
    if _pool is None:
        _pool = _Pool()
        atexit.register(close)
    try:
        return _pool.run(fn, args)
    finally:
        if not _pool.usable:
            close()


def close() -> None:
    """End the workers, if there are any."""
    global _pool
    if _pool is not None:
        _pool.close()
        _pool = None
    atexit.unregister(close)


@pytest.fixture(scope="session")
def two_processes() -> Iterator[Callable[..., tuple[Any, Any]]]:
    """`run_on_two`; the workers end with the session."""
    yield run_on_two
    close()


def _serve(rank: int, folder: str, link: Connection, path: list[str]) -> None:
    """Answer calls until the parent goes away."""
    os.environ["OMP_NUM_THREADS"] = "1"
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    sys.path[:] = path
    import torch
    import torch.distributed as td

    torch.set_num_threads(1)
    td.init_process_group(
        "gloo",
        init_method=f"file://{folder}/rendezvous",
        rank=rank,
        world_size=2,
        timeout=timedelta(seconds=LIMIT),
    )
    while True:
        try:
            module, file, name, data = link.recv()
        except EOFError:
            return
        try:
            torch.manual_seed(0)
            fn = _find(module, file, name)
            link.send((pickle.dumps(fn(*pickle.loads(data))), None))
        except Exception:
            link.send((None, traceback.format_exc()))


def _find(module: str, file: str, name: str) -> Callable[..., Any]:
    if module not in sys.modules:
        spec = importlib.util.spec_from_file_location(module, file)
        assert spec is not None and spec.loader is not None
        sys.modules[module] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(sys.modules[module])
    found: Any = sys.modules[module]
    for part in name.split("."):
        found = getattr(found, part)
    return found
