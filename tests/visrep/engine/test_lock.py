"""One command at a time in a run folder; a killed one bars nothing and leaves no rests."""

import errno
import fcntl
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from visrep.engine import lock
from visrep.errors import ConfigError, UserError

HOLD = """
import sys
from pathlib import Path
from visrep.engine import lock
lock.hold(Path(sys.argv[1]))
import os, time
if os.fork() == 0:  # a worker, which may live on for a while after its parent
    print("held", os.getpid(), flush=True)
time.sleep(60)
"""


@pytest.fixture(autouse=True)
def _released():
    yield
    lock.release()


def test_a_second_process_is_refused_until_the_first_is_gone(tmp_path: Path) -> None:
    first = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert first.stdout is not None
    worker = int(first.stdout.readline().split()[1])
    try:
        with pytest.raises(ConfigError, match=rf"in use .*process {first.pid} on "):
            lock.hold(tmp_path)
        first.send_signal(signal.SIGKILL)
        first.wait()
        lock.hold(tmp_path)
        assert str(os.getpid()) in (tmp_path / lock.NAME).read_text()
    finally:
        first.kill()
        os.kill(worker, signal.SIGKILL)
        first.wait()
        first.stdout.close()


def test_this_process_may_come_again_and_a_new_folder_is_locked_anew(tmp_path: Path) -> None:
    place = tmp_path / "run"
    lock.hold(place)
    lock.hold(tmp_path / "." / "run")
    (place / lock.NAME).unlink()
    place.rmdir()
    lock.hold(place)
    with open(place / lock.NAME) as stream, pytest.raises(BlockingIOError):
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
    lock.release()
    with open(place / lock.NAME) as stream:
        fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)


def test_a_file_system_without_locks_is_said(tmp_path: Path, monkeypatch, caplog) -> None:
    def no_locks(*_: object) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(lock.fcntl, "flock", no_locks)
    monkeypatch.setattr(lock.log, "propagate", True)
    lock.hold(tmp_path)
    assert "cannot be locked (No locks available)" in caplog.text


def test_what_a_killed_run_left_half_written_is_removed(tmp_path: Path) -> None:
    (tmp_path / "snapshots").mkdir()
    rests = [".encoder.ab3_xy9z.safetensors", "snapshots/.step-000000004.0123abcd.pt"]
    kept = [".lock", ".hidden", "snapshots/step-000000002.pt", ".done", "metrics.jsonl"]
    for name in (*rests, *kept):
        (tmp_path / name).write_text("x")
    lock.hold(tmp_path)
    assert not any((tmp_path / name).exists() for name in rests)
    assert all((tmp_path / name).exists() for name in kept)


def test_a_place_that_is_no_folder_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for place in (tmp_path / "file", tmp_path / "file" / "run"):
        with pytest.raises(UserError, match="choose a folder"):
            lock.hold(place)
