"""`visrep demo`: the whole chain on built-in data, two jobs at a time, and its report.

Every job is a command that a user could type; it runs in a process of its own, with one thread, so
that two cores do two jobs. What a folder already holds is not made again.
"""

import os
import shlex
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path

from omegaconf import DictConfig
from tqdm import tqdm

from visrep import __version__, files, results
from visrep.errors import UserError
from visrep.tools import report_rows, report_runs
from visrep.tools.report_tables import count, measure, metric, signed, size


@dataclass(frozen=True)
class Job:
    """One command of the chain.

    Attributes:
        name: its folder below the demo's.
        arguments: after `visrep`; `out=` is added.
        needs: jobs that must be done first.
        seconds: what it takes on one core of the machine it was written on; only for the bar.
    """

    name: str
    arguments: tuple[str, ...]
    needs: tuple[str, ...]
    seconds: float


def main(cfg: DictConfig) -> None:
    """Run the chain into `cfg.out`, print its table and the path of the report."""
    out = Path(cfg.out)
    jobs = chain(out, cfg)
    slots = max(1, min(int(cfg.jobs), os.cpu_count() or 1))
    print(f"visrep demo: {len(jobs)} steps, {slots} at a time; the log of each is in {out}/STEP/")
    started = time.monotonic()
    run_all(jobs, out, slots=slots)
    print_table(out)
    print(f"{time.monotonic() - started:.0f} s. The report: {(out / 'report.html').resolve()}")


def chain(out: Path, cfg: DictConfig) -> list[Job]:
    """The jobs of the demo, in an order that respects their needs."""
    pretraining = ("pretrain", "data=scenes", f"method={cfg.method}", f"backbone={cfg.backbone}")
    epochs = () if cfg.epochs is None else (f"epochs={cfg.epochs}",)
    jobs = [
        Job("pretrain", (*pretraining, *epochs), (), 200),
        # The baselines need the architecture only, so they need not wait for the pretraining.
        Job("untrained", (*pretraining, "steps=0"), (), 6),
        Job("views", ("views", "data=scenes", "views=scenes"), (), 5),
    ]
    jobs += _evaluations(out, cfg, "random", "untrained")
    weights = f"weights={_encoder(out, 'untrained')}"
    for name, *arguments in (
        ("knn-reestimated", weights, "init=random", "bn=reestimated"),
        ("knn-pixels", "init=raw_pixels"),
    ):
        jobs.append(Job(name, ("knn", "data=scenes", *arguments), ("untrained",), 8))
    jobs += _evaluations(out, cfg, "pretrained", "pretrain")
    jobs.append(
        Job(
            "convert",
            ("convert", f"weights={_encoder(out, 'pretrain')}", "to=detectron2"),
            ("pretrain",),
            10,
        )
    )
    finetuned = f"finetune-{max(cfg.labels)}-pretrained-draw0"
    distilling = ("distill", f"teacher={_encoder(out, finetuned)}", f"student={cfg.student}")
    jobs.append(Job("distill", (*distilling, "data=scenes"), (finetuned,), 90))
    for role, source in (("student", "distill"), ("teacher", finetuned)):
        exporting = ("export", f"weights={_encoder(out, source)}")
        jobs.append(Job(f"export-{role}", exporting, (source,), 20))
    jobs.append(Job("report", ("report", f"runs={out}"), tuple(job.name for job in jobs), 15))
    return jobs


def _encoder(out: Path, job: str) -> Path:
    return out / job / "encoder.safetensors"


def _evaluations(out: Path, cfg: DictConfig, init: str, source: str) -> list[Job]:
    """What is measured alike on the pretrained net and on a fresh one of the same architecture."""
    here = (f"weights={_encoder(out, source)}", f"init={init}")
    # The longest first: the two cores end at about the same time then.
    jobs = [
        Job(
            f"detect-{init}-seed{seed}",
            (
                *("detect", *here, "detection=scenes", "protocol=short"),
                *(f"engine={cfg.engine}", f"seed={seed}"),
            ),
            (source,),
            50,
        )
        for seed in range(cfg.seeds)
    ]
    for labels in sorted(cfg.labels, reverse=True):
        jobs += [
            Job(
                f"finetune-{labels}-{init}-draw{draw}",
                ("finetune", *here, "data=scenes", f"labels={labels}", f"draw={draw}"),
                (source,),
                15,
            )
            for draw in range(cfg.draws)
        ]
    return [
        *jobs,
        Job(f"knn-{init}", ("knn", *here, "data=scenes"), (source,), 8),
        Job(f"linear-{init}", ("linear", *here, "data=scenes"), (source,), 10),
    ]


# Commands whose output is a file in the job's folder, not the folder itself.
OUTPUT = {"views": "views.png", "convert": "encoder.pkl", "export": "model.onnx"}


def command_of(job: Job, out: Path) -> list[str]:
    """The arguments of `job` with its place; a folder that is left half-done is begun again."""
    command = job.arguments[0]
    if command == "report":
        return [*job.arguments, f"out={out / 'report.html'}"]
    place = out / job.name / OUTPUT.get(command, "")
    arguments = [*job.arguments, f"out={place}", "threads=1", "overwrite=true"]
    if command in ("views", "convert"):
        arguments.remove("threads=1")
    if command == "pretrain":
        arguments[-1] = "resume=auto"  # the longest job goes on where it was cut
    return arguments


def run_all(jobs: Sequence[Job], out: Path, *, slots: int) -> None:
    """Run the jobs, `slots` at a time, each when its needs are met, under one progress bar.

    Raises:
        UserError: a job failed; its last line is repeated and its log named.
    """
    waiting = list(jobs)
    done: set[str] = set()
    running: dict[Future[bool], tuple[Job, float]] = {}
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
                    fresh = future.result()
                    done.add(job.name)
                    finished += job.seconds
                    took = f"{time.monotonic() - begun:.0f} s" if fresh else "there already"
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


def _eta(seconds: float, slots: int) -> str:
    return f"{max(seconds, 0) / slots / 60:.1f} min"


_processes: set[subprocess.Popen[bytes]] = set()


def _run(job: Job, out: Path) -> bool:
    """Run `job` in a process of its own, unless its folder holds its result; True if it ran."""
    arguments = command_of(job, out)
    folder = out / job.name if job.arguments[0] != "report" else out
    folder.mkdir(parents=True, exist_ok=True)
    mark = out / ".done" / job.name
    # What a job made is its command's and its inputs'; a remade input makes its users again.
    inputs = [mark.parent / need for need in job.needs]
    wanted = shlex.join([__version__, *arguments, *(_stamp(path) for path in inputs)])
    if job.arguments[0] != "report" and mark.exists() and mark.read_text() == wanted:
        return False
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
    if code:
        lines = log.read_text(errors="replace").strip().splitlines() or ["no output"]
        raise UserError(f"{job.name} failed with code {code}: {lines[-1]} (all of it: {log})")
    files.write_text(mark, wanted)
    return True


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


def print_table(out: Path) -> None:
    """The chain's table and the student beside its teacher, as in the report."""
    runs = report_runs.collect(out)
    rows = [row for row in report_rows.rows(runs) if row.metric in ("top1", "AP50")]
    print(f"\n{'':34}{'random init':>22}{'pretrained':>22}{'gain':>8}")
    for row in rows:
        sides = "".join(f"{_spread(row.spread(init)):>22}" for init in ("random", "pretrained"))
        gain = "" if row.gain is None else signed(row.gain)
        print(f"{f'{measure(row)} {metric(row.metric)}':34}{sides}{gain:>8}")
        if row.spread("raw_pixels"):
            print(f"{'  raw pixels, no net':34}{_spread(row.spread('raw_pixels')):>22}")
    for pair in report_rows.pairs(runs):
        print(f"\n{'':34}{'top-1':>10}{'parameters':>14}{'file':>12}{'latency':>12}")
        for name, net in (("teacher", pair.teacher), ("student", pair.student)):
            top1 = "" if net.top1 is None else f"{net.top1.mean:.1f}"
            latency = min(net.latency_ms.values(), default=None)
            print(
                f"{name:34}{top1:>10}{count(net.parameters or 0):>14}{size(net.bytes or 0):>12}"
                f"{'' if latency is None else f'{latency:.2f} ms':>12}"
            )
    print()


def _spread(spread: report_rows.Spread | None) -> str:
    if spread is None:
        return ""
    if spread.n == 1:
        return f"{spread.mean:.1f}"
    return f"{spread.mean:.1f} ({spread.low:.1f}-{spread.high:.1f}, n={spread.n})"
