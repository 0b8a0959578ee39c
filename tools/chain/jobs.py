"""Jobs of a chain: every one a command that a user could type, in a process of its own.

A job has one thread, so that two cores do two at a time. What a folder already holds is not made
again, unless its command, a yaml that the command reads or a job that it needs has changed.
"""

import hashlib
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Collection, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from visrep import __version__, config, files, groups, results, signals
from visrep.engine import lock
from visrep.errors import UserError
from visrep.tools.chain.pace import Pace, stated

GRACE = 60.0  # seconds that a job has to save what it is at


@dataclass(frozen=True)
class Job:
    """One command of the chain.

    Attributes:
        name: its folder below the chain's.
        arguments: after `visrep`; `out=` is added.
        needs: jobs that must be done first.
        seconds: what it takes on one core of the machine it was written on; only for the bar,
            which soon goes by what is measured.
        tolerated: exit codes that end the job and those that need it, but not the chain.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    seconds: float
    tolerated: tuple[int, ...] = ()


def slots_of(jobs: int) -> int:
    """How many jobs run at a time: as many as asked for, but no more than there are cores."""
    return max(1, min(jobs, os.cpu_count() or 1))


# Commands whose output is a file in the job's folder, not the folder itself.
OUTPUT = {"views": "views.png", "convert": "encoder.pkl", "export": "model.onnx"}


def command_of(job: Job, out: Path) -> list[str]:
    """The arguments of `job` with its place; a folder that is left half-done is begun again."""
    command = job.arguments[0]
    if command == "report":
        return [*job.arguments, *config.strangers(), f"out={out / 'report.html'}"]
    place = out / job.name / OUTPUT.get(command, "")
    arguments = [*job.arguments, *config.strangers(), f"out={place}", "threads=1", "overwrite=true"]
    if command in ("views", "convert"):
        arguments.remove("threads=1")
    if command == "pretrain":
        arguments[-1] = "resume=auto"  # the longest job goes on where it was cut
    return arguments


def run_all(jobs: Sequence[Job], out: Path, *, slots: int) -> None:
    """Run the jobs, `slots` at a time, each when its needs are met, under one progress bar.

    What needs a job that ended with a code it tolerates is left out. When the chain ends early,
    its jobs have ended before.

    Raises:
        UserError: a job failed; its last line is repeated and its log named.
        ConfigError: another command works in `out`.
        Interrupted: a signal came.
    """
    lock.hold(out)
    names = {job.name for job in jobs}
    assert all(names.issuperset(job.needs) for job in jobs), "a need that is no job of the chain"
    waiting = list(jobs)
    done: set[str] = set()
    running: dict[Future[int | None], tuple[Job, float]] = {}
    pace, started = Pace(), time.time()
    bar = tqdm(
        total=100,
        bar_format="{percentage:3.0f}% |{bar:30}| {elapsed}{postfix}",
        file=sys.stdout,
        disable=not sys.stdout.isatty(),  # in a file, the line of each finished step tells the rest
    )

    def left() -> float:
        now = time.time()
        rests = {
            job.name: pace.rest(job, now - begun, stated(out / job.name, since=begun))
            for job, begun in running.values()
        }
        return pace.left(waiting, rests, slots=slots)

    def share(left: float) -> float:
        spent = time.time() - started
        return 100 * spent / max(spent + left, 1e-9)

    with ThreadPoolExecutor(slots) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if done.issuperset(job.needs)]:
                    if len(running) == slots:
                        break
                    waiting.remove(job)
                    running[pool.submit(_run, job, out)] = (job, time.time())
                ready, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in ready:
                    job, begun = running.pop(future)
                    code = future.result()
                    seconds = time.time() - begun
                    took = f"ended with code {code}" if code else f"{seconds:.0f} s"
                    if code:
                        lost = _users(job, waiting)
                        waiting = [other for other in waiting if other not in lost]
                    else:
                        done.add(job.name)
                    if code == 0:
                        pace.finished(job, seconds)
                    elif code is None:
                        took = "there already"
                    rest = left()
                    told = f"{share(rest):.0f} %, eta {rest / 60:.1f} min"
                    line = f"  {job.name:32} {_outcome(out, job):24} {took:>14}   {told}"
                    bar.write(line.rstrip(), file=sys.stdout)
                    sys.stdout.flush()
                rest = left()
                bar.n = round(share(rest))
                bar.set_postfix_str(f"eta {rest / 60:.1f} min", refresh=False)
                bar.refresh()
        except BaseException as error:
            pool.shutdown(wait=False, cancel_futures=True)
            _end(running)
            if isinstance(error, signals.Interrupted):
                error.note = "its jobs have ended, the same command goes on"
            raise
        finally:
            bar.close()


def _end(running: Collection[Future[int | None]]) -> None:
    """End the jobs that run: those that train save a snapshot, and none outlives the chain."""
    told: dict[subprocess.Popen[bytes], float] = {}
    while not all(future.done() for future in running):
        for process in list(_processes):
            if process not in told:
                process.terminate()
                told[process] = time.monotonic()
            elif time.monotonic() - told[process] > GRACE:
                process.kill()
        wait(running, timeout=0.2)


def _users(job: Job, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that need `job`, themselves or through others; each comes after its needs."""
    lost = {job.name}
    for other in jobs:
        if lost.intersection(other.needs):
            lost.add(other.name)
    return [other for other in jobs if other.name in lost]


_processes: set[subprocess.Popen[bytes]] = set()


def _run(job: Job, out: Path) -> int | None:
    """Run `job` in a process of its own and return its exit code; None: its result is there."""
    arguments = command_of(job, out)
    folder = out / job.name if job.arguments[0] != "report" else out
    folder.mkdir(parents=True, exist_ok=True)
    mark = out / ".done" / job.name
    # What a job made is its command's and its inputs'; a remade input makes its users again.
    inputs = [mark.parent / need for need in job.needs]
    read = _digest(groups.sources(job.arguments[0], job.arguments[1:]))
    wanted = shlex.join([__version__, read, *arguments, *(_stamp(path) for path in inputs)])
    if mark.exists():
        if job.arguments[0] != "report" and mark.read_text() == wanted:
            return None
        # A whole run of another recipe is not gone on with.
        arguments = ["overwrite=true" if a == "resume=auto" else a for a in arguments]
    mark.unlink(missing_ok=True)
    mark.parent.mkdir(parents=True, exist_ok=True)
    log = mark.with_suffix(".log")
    with open(log, "wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "visrep", *arguments],
            stdout=stream,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=os.environ | {"OMP_NUM_THREADS": "1", signals.PARENT: str(os.getpid())},
        )
        _processes.add(process)
        code = process.wait()
        _processes.discard(process)
    if code in job.tolerated:
        return code
    if code:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise UserError(f"{job.name} failed with code {code}: {lines[-1]} (all of it: {log})")
    files.write_text(mark, wanted)
    return 0


def _digest(paths: Sequence[Path]) -> str:
    """A word that changes with the text of the files."""
    text = b"".join(path.read_bytes() for path in paths)
    return hashlib.sha256(text).hexdigest()[:12]


def _stamp(mark: Path) -> str:
    """When a job was done, as a word that changes when it is done again."""
    return str(mark.stat().st_mtime_ns) if mark.exists() else "absent"


def _outcome(out: Path, job: Job) -> str:
    """The number that a finished job is about, in words."""
    path = out / job.name / "results.jsonl"
    if not path.exists():
        return ""
    found = {record.metric: record.value for record in results.read(path)}
    shown = [f"{name} {found[name]:.1f}" for name in ("top1", "AP50", "AP") if name in found]
    return "  ".join(shown[:2])
