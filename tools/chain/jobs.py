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
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from visrep import __version__, config, files, groups, results
from visrep.errors import UserError


@dataclass(frozen=True)
class Job:
    """One command of the chain.

    Attributes:
        name: its folder below the chain's.
        arguments: after `visrep`; `out=` is added.
        needs: jobs that must be done first.
        seconds: what it takes on one core of the machine it was written on; only for the bar.
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

    What needs a job that ended with a code it tolerates is left out.

    Raises:
        UserError: a job failed; its last line is repeated and its log named.
    """
    names = {job.name for job in jobs}
    assert all(names.issuperset(job.needs) for job in jobs), "a need that is no job of the chain"
    waiting = list(jobs)
    done: set[str] = set()
    running: dict[Future[int | None], tuple[Job, float]] = {}
    total = sum(job.seconds for job in jobs)
    bar = tqdm(
        total=round(total),
        bar_format="{percentage:3.0f}% |{bar:30}| {elapsed}{postfix}",
        file=sys.stdout,
        disable=not sys.stdout.isatty(),  # in a file, the line of each finished step tells the rest
    )
    finished = 0.0
    with ThreadPoolExecutor(slots) as pool:
        try:
            while waiting or running:
                for job in [job for job in waiting if done.issuperset(job.needs)]:
                    if len(running) == slots:
                        break
                    waiting.remove(job)
                    running[pool.submit(_run, job, out)] = (job, time.monotonic())
                ready, _ = wait(running, timeout=1, return_when=FIRST_COMPLETED)
                for future in ready:
                    job, begun = running.pop(future)
                    code = future.result()
                    finished += job.seconds
                    if code is None:
                        took = "there already"
                    elif code:
                        took = f"ended with code {code}"
                    else:
                        took = f"{time.monotonic() - begun:.0f} s"
                    if code:
                        lost = _users(job, waiting)
                        waiting = [other for other in waiting if other not in lost]
                        finished += sum(other.seconds for other in lost)
                    else:
                        done.add(job.name)
                    left = f"{100 * finished / total:.0f} %, eta {_eta(total - finished, slots)}"
                    line = f"  {job.name:32} {_outcome(out, job):24} {took:>14}   {left}"
                    bar.write(line.rstrip(), file=sys.stdout)
                    sys.stdout.flush()
                partly = sum(
                    min(time.monotonic() - begun, 0.95 * job.seconds)
                    for job, begun in running.values()
                )
                bar.n = min(round(finished + partly), round(total))
                bar.set_postfix_str(f"eta {_eta(total - finished - partly, slots)}", refresh=False)
                bar.refresh()
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            for process in list(_processes):
                process.terminate()
            raise
        finally:
            bar.close()


def _users(job: Job, jobs: Sequence[Job]) -> list[Job]:
    """The jobs that need `job`, themselves or through others; each comes after its needs."""
    lost = {job.name}
    for other in jobs:
        if lost.intersection(other.needs):
            lost.add(other.name)
    return [other for other in jobs if other.name in lost]


def _eta(seconds: float, slots: int) -> str:
    return f"{max(seconds, 0) / slots / 60:.1f} min"


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
            env=os.environ | {"OMP_NUM_THREADS": "1"},
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
