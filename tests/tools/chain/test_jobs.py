"""The runner of chains: order, needs, what is made again, and what a failed job ends."""

import os
import signal
import threading
import time
from pathlib import Path

import pytest

from visrep import signals
from visrep.errors import UserError
from visrep.tools.chain import jobs

Job, run_all = jobs.Job, jobs.run_all


@pytest.fixture
def commands(monkeypatch, tmp_path):
    """A `visrep` of two commands: one notes that it ran, the other fails."""
    package = tmp_path / "fake" / "visrep"
    package.mkdir(parents=True)
    (package / "__main__.py").write_text(
        "import sys\n"
        "place = dict(a.split('=', 1) for a in sys.argv[2:])['out']\n"
        "open(place + '/ran', 'a').write('x')\n"
        "if sys.argv[1] == 'train':\n"
        "    import os, signal, time\n"
        "    from pathlib import Path\n"
        "    def save(*_): Path(place + '/saved').write_text('x'); sys.exit(143)\n"
        "    signal.signal(signal.SIGTERM, save)\n"
        "    Path(place + '/parent').write_text(os.environ['VISREP_PARENT'])\n"
        "    time.sleep(60)\n"
        "sys.exit('broken: no such thing') if sys.argv[1] == 'fail' else None\n"
    )
    (package / "__init__.py").write_text("")
    monkeypatch.setenv("PYTHONPATH", str(package.parent))
    monkeypatch.chdir(package.parent)
    return tmp_path / "out"


def ran(out: Path, name: str) -> int:
    return len((out / name / "ran").read_text())


def test_a_second_call_makes_only_what_is_missing_and_its_users(commands, capsys):
    chain = [Job("a", ("ok",), (), 1), Job("b", ("ok",), ("a",), 1), Job("c", ("ok",), (), 1)]
    for _ in range(2):
        run_all(chain, commands, slots=2)
    assert [ran(commands, name) for name in "abc"] == [1, 1, 1]
    assert capsys.readouterr().out.count("there already") == 3
    os.unlink(commands / ".done" / "a")
    run_all(chain, commands, slots=1)
    assert [ran(commands, name) for name in "abc"] == [2, 2, 1]


def test_a_changed_recipe_makes_its_job_again(commands, monkeypatch, tmp_path):
    folder = tmp_path / "configs"
    (folder / "method").mkdir(parents=True)
    (folder / "ok.yaml").write_text("seed: 0\n")
    (folder / "method" / "a.yaml").write_text("lr: 1\n")
    (folder / "method" / "b.yaml").write_text("lr: 1\n")
    monkeypatch.setattr("visrep.groups.config_dir", lambda: folder)
    chain = [Job(name, ("ok", f"method={name}"), (), 1) for name in "ab"]
    run_all(chain, commands, slots=2)
    (folder / "method" / "a.yaml").write_text("lr: 2\n")
    run_all(chain, commands, slots=2)
    assert [ran(commands, name) for name in "ab"] == [2, 1]


def test_a_whole_pretraining_of_another_recipe_is_overwritten(monkeypatch, tmp_path):
    seen = []

    class Finished:
        def __init__(self, command, **_):
            seen.append(command[-1])

        def wait(self):
            return 0

    monkeypatch.setattr(jobs.subprocess, "Popen", Finished)
    for lr in (1, 1, 2):
        run_all([Job("a", ("pretrain", f"optim.lr={lr}"), (), 1)], tmp_path, slots=1)
    assert seen == ["resume=auto", "overwrite=true"]  # nothing for the second, which is done


def test_a_failed_job_ends_the_chain_with_its_last_line(commands):
    chain = [Job("a", ("fail",), (), 1), Job("b", ("ok",), ("a",), 1)]
    with pytest.raises(UserError, match="a failed with code 1: broken: no such thing"):
        run_all(chain, commands, slots=2)
    assert not (commands / "b").exists()


def test_a_tolerated_code_ends_a_job_and_its_users_only(commands, capsys):
    chain = [
        Job("a", ("fail",), (), 1, tolerated=(1,)),
        Job("b", ("ok",), ("a",), 1),
        Job("c", ("ok",), ("b",), 1),
        Job("d", ("ok",), (), 1),
    ]
    run_all(chain, commands, slots=1)
    assert ran(commands, "d") == 1
    assert not (commands / "b").exists() and not (commands / "c").exists()
    printed = capsys.readouterr().out
    assert "ended with code 1" in printed and "100 %" in printed.splitlines()[-1]
    chain[0] = Job("a", ("ok",), (), 1, tolerated=(1,))
    run_all(chain, commands, slots=1)  # a failure leaves no mark
    assert [ran(commands, name) for name in "abcd"] == [2, 1, 1, 1]


def train_two(out: Path, meanwhile) -> None:
    """A chain of two jobs that run until they are told to end; `meanwhile` is called then."""
    begun = [out / name / "parent" for name in "ab"]

    def wait_for_both() -> None:
        while not all(path.exists() and path.read_text() for path in begun):
            time.sleep(0.02)
        meanwhile()

    threading.Thread(target=wait_for_both, daemon=True).start()
    chain = [Job("a", ("train",), (), 1), Job("b", ("train",), (), 1), Job("c", ("ok",), (), 1)]
    run_all(chain, out, slots=2)


def test_a_signal_ends_the_jobs_and_waits_for_what_they_save(commands):
    with pytest.raises(signals.Interrupted) as caught, signals.raised():
        train_two(commands, lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert caught.value.code == 143 and "goes on" in caught.value.note
    assert all((commands / name / "saved").exists() for name in "ab")
    assert not (commands / "c").exists() and not jobs._processes


def test_a_failure_ends_the_other_jobs_too(commands):
    chain = [Job("a", ("train",), (), 1), Job("b", ("fail",), (), 1)]
    with pytest.raises(UserError, match="b failed"):
        run_all(chain, commands, slots=2)
    assert not jobs._processes


def test_jobs_know_whom_to_follow(commands):
    with pytest.raises(signals.Interrupted), signals.raised():
        train_two(commands, lambda: os.kill(os.getpid(), signal.SIGINT))
    assert (commands / "a" / "parent").read_text() == str(os.getpid())
