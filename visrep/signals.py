"""Being asked to stop: SIGINT, SIGTERM, or the end of the process that started this one.

A command ends with `Interrupted` wherever it is. Training holds a signal back until its update is
done and a snapshot is saved.
"""

import os
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

ASKING = (signal.SIGINT, signal.SIGTERM)
SAVED = "the snapshot is saved, go on with resume=auto"
PARENT = "VISREP_PARENT"  # in the environment of a command that must not outlive this process


class Interrupted(BaseException):
    """A signal asked the command to stop. `code` is the exit code, `note` what was done about it.

    It is no `Exception`, so nothing that handles errors takes it for one. Once there is one,
    further signals change nothing: torchrun and a scheduler may both send one.
    """

    under_way = False

    def __init__(self, signum: int, note: str = "") -> None:
        super().__init__(signum)
        Interrupted.under_way = True
        self.code = 128 + signum
        self.note = note


@contextmanager
def raised() -> Iterator[None]:
    """The first signal raises `Interrupted`; later ones do not disturb what it sets off."""
    Interrupted.under_way = False

    def end(signum: int, _frame: object) -> None:
        if not Interrupted.under_way:
            raise Interrupted(signum)

    with _handled_by(end):
        yield


class Held:
    """Whether a signal has come: `.signum` is the first one, 0 until then."""

    signum = 0


@contextmanager
def held() -> Iterator[Held]:
    """Signals are noted only, for the body to look at; one that it let pass is raised at its end.

    Raises:
        Interrupted: a signal came and the body ended without an exception.
    """
    held = Held()

    def note(signum: int, _frame: object) -> None:
        held.signum = held.signum or signum

    with _handled_by(note):
        yield held
    if held.signum:
        raise Interrupted(held.signum)


@contextmanager
def _handled_by(handler: Any) -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield  # whoever started this thread handles signals
        return
    before = {signum: signal.signal(signum, handler) for signum in ASKING}
    try:
        yield
    finally:
        for signum, old in before.items():
            signal.signal(signum, old)


@contextmanager
def blocked() -> Iterator[None]:
    """A process that is forked in the body does not meet a signal before it is prepared.

    This thread's signals wait until the body is done; the system may hand one that is sent to the
    process to another thread, whose word Python's handler takes as well.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ASKING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def serve_parent() -> None:
    """For a process that works for its parent: signals are the parent's business, its end is ours.

    A scheduler signals all processes of a job at once. The parent still needs this one then, for
    the update that it finishes, and ends it itself.
    """
    for signum in ASKING:
        signal.signal(signum, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, ASKING)
    follow_parent(signal.SIGKILL)


def follow_parent(signum: int = signal.SIGTERM, *, parent: int | None = None) -> None:
    """Send `signum` to this process, within a second, once its parent is gone.

    parent: the process that it must be; None: whichever it is now. A parent cannot leave word when
    it is killed, so a thread looks.
    """
    parent = os.getppid() if parent is None else parent

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signum)

    threading.Thread(target=watch, name="follow parent", daemon=True).start()


def follow_who_started() -> None:
    """End with the chain of jobs (`PARENT`) or torchrun that started this command, if one did."""
    named = os.environ.pop(PARENT, "")
    if named.isdigit():
        follow_parent(parent=int(named))
    elif "TORCHELASTIC_RUN_ID" in os.environ:
        follow_parent()
