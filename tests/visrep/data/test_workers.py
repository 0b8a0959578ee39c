"""What comes out of decoding processes, and what becomes of one that fails, dies or is silent."""

import os
import shutil
import signal
import time
from collections import namedtuple

import pytest
import torch
from torch.utils.data import Dataset, IterableDataset

from visrep.data import workers
from visrep.data.images import BrokenImage
from visrep.data.workers import Fetched, explained, require_shared_memory
from visrep.errors import ConfigError, UserError

Usage = namedtuple("Usage", "total used free")


class Numbers(Dataset):
    def __init__(self, act=None) -> None:
        self.act = act

    def __len__(self) -> int:
        return 12

    def __getitem__(self, i: int) -> torch.Tensor:
        if i == 7 and self.act:
            self.act()
        return torch.tensor([i])


class Stream(IterableDataset):
    def __iter__(self):
        yield from ([i] for i in range(3))
        broken()


def broken() -> None:
    raise BrokenImage("folder/im007.jpg", "cut short")


def killed() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def signalled() -> None:
    for signum in (signal.SIGTERM, signal.SIGINT):
        os.kill(os.getpid(), signum)


def silent() -> None:
    time.sleep(60)


def fetched(act=None, count: int = 2, **settings) -> Fetched:
    return Fetched(Numbers(act), workers=count, item_bytes=8, **{"batch_size": 3} | settings)


@pytest.mark.parametrize("settings", [{}, {"batch_size": None}, {"collate_fn": list}], ids=str)
def test_workers_change_nothing(settings):
    for loader in (fetched(count=2, **settings), fetched(signalled, count=1, **settings)):
        want = list(fetched(count=0, **settings))
        assert str(list(loader)) == str(want)
        assert str(list(loader)) == str(want)  # again, from the start


@pytest.mark.parametrize("settings", [{}, {"batch_size": None}, {"collate_fn": list}], ids=str)
@pytest.mark.parametrize("count", [0, 1])
def test_an_error_keeps_its_line(settings, count):
    with pytest.raises(BrokenImage) as caught:
        list(fetched(broken, count, **settings))
    want = "cannot read image folder/im007.jpg: cut short; repair or remove the file"
    assert str(caught.value) == want and caught.value.file == "folder/im007.jpg"


def test_an_error_in_a_stream_keeps_its_line():
    items = iter(Fetched(Stream(), workers=1, item_bytes=8, collate_fn=lambda samples: samples[0]))
    assert [next(items) for _ in range(3)] == [[0], [1], [2]]
    with pytest.raises(BrokenImage, match="^cannot read image folder/im007.jpg: cut short;"):
        next(items)


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError, match="Traceback"):
        list(fetched(lambda: 1 / 0, 1))


def test_a_worker_that_dies_is_one_line():
    with pytest.raises(
        UserError, match=r"decoding process .* (was killed|ended unexpectedly).*lower work"
    ):
        list(fetched(killed))


def test_workers_that_are_silent_are_one_line(monkeypatch):
    monkeypatch.setenv("VISREP_TIMEOUT", "2")
    with pytest.raises(UserError, match="delivered nothing for 1 s: .*--shm-size"):
        list(fetched(silent, 1))


def test_other_errors_are_not_explained():
    assert explained(RuntimeError("shapes differ")) is None
    bus = "DataLoader worker (pid 7) is killed by signal: Bus error. It is possible that ..."
    assert "--shm-size" in str(explained(RuntimeError(bus)))


def test_shared_memory_is_looked_at_before_the_first_item(monkeypatch, tmp_path):
    monkeypatch.setattr(workers, "SHARED", tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(0, 0, 64 * 2**20))
    large = Fetched(Numbers(killed), workers=4, item_bytes=9 * 2**20)
    with pytest.raises(ConfigError, match=r"workers=4 .* 72 MiB .* 64 MiB free: .*--shm-size=1g"):
        next(iter(large))
    require_shared_memory(8 * 2**20, 4)
    require_shared_memory(2**40, 0)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    with pytest.raises(ConfigError, match="workers=4 in each of 2 processes"):
        require_shared_memory(8 * 2**20, 4)
    monkeypatch.setattr(workers, "SHARED", tmp_path / "absent")  # not on every system
    require_shared_memory(2**40, 4)
