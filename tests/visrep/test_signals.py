"""A command ends where a signal finds it; what must not be cut is not; nobody outlives a parent."""

import os
import signal
import subprocess
import sys
import threading
import time

import pytest

from tests.small_data import write_folder
from visrep import cli, signals
from visrep.signals import Interrupted, held, raised


def send(signum: int = signal.SIGTERM) -> None:
    signal.raise_signal(signum)


@pytest.mark.parametrize("signum", signals.ASKING)
def test_a_signal_ends_a_command_with_one_line_and_its_code(signum, monkeypatch, capsys):
    monkeypatch.setattr(cli, "_run", lambda arguments: send(signum))
    before = signal.getsignal(signum)
    with pytest.raises(SystemExit) as caught:
        cli.main(["knn"])
    assert caught.value.code == 128 + signum
    assert capsys.readouterr().err == "visrep: interrupted\n"
    assert signal.getsignal(signum) is before


def test_later_signals_do_not_disturb_what_the_first_one_sets_off():
    done = []
    with pytest.raises(Interrupted), raised():
        try:
            send()
        finally:
            send()
            send(signal.SIGINT)
            done.append("tidied")
    assert done == ["tidied"]


def test_a_held_signal_waits_for_the_body():
    done = []
    with pytest.raises(Interrupted) as caught, raised(), held() as asked:
        send()
        done.append(asked.signum)
        send(signal.SIGINT)
        done.append(asked.signum)
    assert done == [signal.SIGTERM, signal.SIGTERM] and caught.value.code == 143
    with held() as asked:
        pass
    assert asked.signum == 0


def test_what_the_body_raises_comes_before_a_held_signal():
    with pytest.raises(Interrupted) as caught, held():
        send()
        raise Interrupted(signal.SIGTERM, "saved")
    assert caught.value.note == "saved"
    with pytest.raises(ZeroDivisionError), held():
        send()
        raise ZeroDivisionError


def test_signals_wait_for_what_blocks_them():
    done = []
    with pytest.raises(Interrupted), raised():
        with signals.blocked():
            signal.pthread_kill(threading.get_ident(), signal.SIGTERM)
            done.append("begun")
        time.sleep(0.1)
        done.append("not reached")
    assert done == ["begun"]


CHILD = """
import os, sys, time
from visrep import signals
if sys.argv[1] == "serve":
    signals.serve_parent()
    os.kill(os.getpid(), 15); os.kill(os.getpid(), 2)
else:
    os.environ[signals.PARENT] = sys.argv[2]
    signals.follow_who_started()
    assert signals.PARENT not in os.environ  # it is not that of its own children
print(os.getpid(), flush=True)
time.sleep(60)
"""
PARENT = f"""
import os, subprocess, sys
subprocess.Popen([sys.executable, "-c", {CHILD!r}, sys.argv[1], str(os.getpid())]).wait()
"""


@pytest.mark.parametrize("how", ["serve", "follow"])
def test_a_process_ends_with_the_one_it_works_for(how):
    parent = subprocess.Popen([sys.executable, "-c", PARENT, how], stdout=subprocess.PIPE)
    child = int(parent.stdout.readline())
    assert os.path.exists(f"/proc/{child}") or not os.path.exists("/proc")
    parent.kill()  # it cannot leave word
    parent.wait()
    assert parent.stdout.read() == b""  # closed when the child has ended, too


@pytest.mark.slow
@pytest.mark.parametrize("whole_group", [False, True])
def test_a_training_with_workers_saves_and_leaves_nobody(whole_group, tmp_path):
    """A scheduler signals all processes of a job at once."""
    root, out = write_folder(tmp_path / "data"), tmp_path / "out"
    training = subprocess.Popen(
        [
            *(sys.executable, "-m", "visrep", "pretrain", "data=imagefolder", f"data.root={root}"),
            *("method=simclr_small", "backbone=resnet18_small", "backbone.width=0.0625"),
            *("batch_size=8", "steps=100000", "snapshot_every=100000", "log_every=1"),
            *("workers=2", "knn.times=0", "threads=1", f"out={out}"),
        ],
        env=os.environ | {"OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )
    while not (out / "metrics.jsonl").exists():
        assert training.poll() is None, training.stdout.read()
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(training.pid, signal.SIGTERM)
    said = training.stdout.read().decode()  # until nobody holds the other end
    assert training.wait() == 143 and "Traceback" not in said
    assert said.endswith("visrep: interrupted; the snapshot is saved, go on with resume=auto\n")
    assert len(list((out / "snapshots").glob("step-*.pt"))) == 1
