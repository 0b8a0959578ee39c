"""`visrep demo`: the whole chain on built-in data, two jobs at a time, and its report."""

import time
from pathlib import Path

from omegaconf import DictConfig

from visrep.tools.chain.jobs import Job, run_all, slots_of
from visrep.tools.report import rows as report_rows
from visrep.tools.report import runs as report_runs
from visrep.tools.report.pairs import pairs
from visrep.tools.report.words import count, measure, metric, signed, size


def main(cfg: DictConfig) -> None:
    """Run the chain into `cfg.out`, print its table and the path of the report."""
    out = Path(cfg.out)
    jobs = chain(out, cfg)
    slots = slots_of(int(cfg.jobs))
    print(f"visrep demo: {len(jobs)} steps, {slots} at a time; the log of each is in {out}/STEP/")
    started = time.monotonic()
    run_all(jobs, out, slots=slots)
    print_table(out)
    print(f"{time.monotonic() - started:.0f} s. The report: {(out / 'report.html').resolve()}")


def chain(out: Path, cfg: DictConfig) -> list[Job]:
    """The jobs of the demo, in an order that respects their needs."""
    pretraining = ("pretrain", "data=scenes", f"method={cfg.recipe}", f"backbone={cfg.net}")
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
    for pair in pairs(runs):
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
