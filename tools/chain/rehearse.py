"""`visrep rehearse out=DIR minutes=12`: every method on built-in data, and one table of the gains.

Two chains of jobs (`visrep.tools.chain.jobs`): the untrained nets and the speed of each method's
step; then, with the steps that its speed affords it, each method's pretraining and evaluation. The
plan between them is kept in `plan.json`, so that a second call goes on with it.
"""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from visrep import files, results
from visrep.errors import CheckFailed, ConfigError, Diverged
from visrep.tools.chain import rehearse_table
from visrep.tools.chain.entrants import Entrant, entrants
from visrep.tools.chain.jobs import Job, run_all, slots_of

# Seconds on one core of the machine it was written on.
STARTED = 5.0  # a pretraining without its steps
TAKES = {"knn": 6.0, "linear": 9.0, "svm": 25.0, "benchmark": 7.0}
SLACK = 0.92  # share of the time that is planned: the last jobs do not end at once


@dataclass(frozen=True)
class Training:
    """What a method is given: updates, and the seconds that they should take on one core."""

    steps: int
    seconds: float


def main(cfg: DictConfig) -> None:
    """Measure the untrained nets and the speed, plan, train, evaluate, print and draw the table.

    Raises:
        CheckFailed: a method misses the bar.
    """
    started = time.monotonic()
    if cfg.minutes <= 0:
        raise ConfigError(f"minutes={cfg.minutes}: give more than 0")
    methods = entered(cfg)
    out, slots = Path(cfg.out), slots_of(int(cfg.jobs))
    planned = read_plan(out, methods, cfg)
    first = untrained(out, methods, cfg) + benchmarks(methods)
    print(f"visrep rehearse: {len(first)} steps for untrained nets and speed, {slots} at a time")
    run_all(first, out, slots=slots)
    if planned is None:
        left = 60 * float(cfg.minutes) - (time.monotonic() - started)
        planned = plan(out, methods, minutes=float(cfg.minutes), seconds=slots * left)
        write_plan(out, methods, cfg, planned)
    for name, training in planned.items():
        print(f"  {name:14} {training.steps:6d} steps {training.seconds:6.0f} s of a core")
    run_all(trainings(out, methods, cfg, planned), out, slots=slots)
    rows = rehearse_table.collect(out, methods)
    rehearse_table.write(rows, out, bar=float(cfg.bar))
    print(rehearse_table.table(rows, bar=float(cfg.bar)))
    print(f"{time.monotonic() - started:.0f} s. The picture: {(out / 'rehearsal.png').resolve()}")
    missed = [row.method for row in rows if not row.passes(float(cfg.bar))]
    if missed:
        raise CheckFailed(
            f"below the bar of {cfg.bar:g} points: {', '.join(missed)}; give more minutes=, or "
            "mend the recipe, configs/method/NAME_scenes.yaml"
        )


def entered(cfg: DictConfig) -> list[Entrant]:
    """The methods of `methods=`."""
    return entrants(list(cfg.methods), net=cfg.net, seed=cfg.seed, shares=cfg.shares)


# The jobs


def _evaluation(
    name: str, command: str, encoder: str, out: Path, cfg: DictConfig, *settings: str
) -> Job:
    """A measure of the encoder that the job `encoder` writes; alike for all of them."""
    weights = f"weights={out / encoder / 'encoder.safetensors'}"
    layers = ("output=layers",) if command == "svm" else ()
    arguments = (command, "data=scenes", weights, *layers, *settings, f"seed={cfg.seed}")
    return Job(name, arguments, (encoder,), TAKES[command])


def untrained(out: Path, methods: Sequence[Entrant], cfg: DictConfig) -> list[Job]:
    """Fresh nets of each family and their measures, kNN also with statistics of the data."""
    jobs: list[Job] = []
    for method in {method.family: method for method in methods}.values():
        family = method.family
        encoder = f"untrained-{family}"
        jobs.append(Job(encoder, ("pretrain", *method.recipe, "steps=0"), (), STARTED))
        for command in method.measures:
            name = f"{command}-random-{family}"
            jobs.append(_evaluation(name, command, encoder, out, cfg, "init=random"))
        if method.normed:
            again = ("init=random", "bn=reestimated")
            name = f"knn-reestimated-{family}"
            jobs.append(_evaluation(name, "knn", encoder, out, cfg, *again))
    return jobs


def benchmarks(methods: Sequence[Entrant]) -> list[Job]:
    """The cost of each method's step, and of the encoder passes that it cannot do without."""
    return [
        Job(
            f"speed-{method.name}",
            ("benchmark", "what=step", *method.recipe, *method.step, "steps=12"),
            (),
            TAKES["benchmark"],
        )
        for method in methods
    ]


def trainings(
    out: Path, methods: Sequence[Entrant], cfg: DictConfig, planned: dict[str, Training]
) -> list[Job]:
    """Pretrainings, the longest first, and what measures them; those fill the gaps at the end."""
    jobs = [
        Job(
            f"pretrain-{method.name}",
            ("pretrain", *method.recipe, f"steps={planned[method.name].steps}", "knn.times=0"),
            (),
            planned[method.name].seconds,
            tolerated=(Diverged.exit_code,),  # the table will say so
        )
        for method in methods
    ]
    jobs.sort(key=lambda job: -job.seconds)
    for method in methods:
        for command in method.measures:
            name = f"{command}-{method.name}"
            jobs.append(_evaluation(name, command, f"pretrain-{method.name}", out, cfg))
    return jobs


# The plan


def plan(
    out: Path, methods: Sequence[Entrant], *, minutes: float, seconds: float
) -> dict[str, Training]:
    """Steps of each method, so that training and evaluation take `seconds` of a core in all.

    Raises:
        ConfigError: starts and evaluations alone take longer.
    """
    starting = STARTED * len(methods)
    evaluating = sum(TAKES[command] for method in methods for command in method.measures)
    training = SLACK * seconds - starting - evaluating
    shares = sum(method.share for method in methods)
    planned = {}
    for method in methods:
        speed = results.read(out / f"speed-{method.name}" / "results.jsonl")[-1]
        step = speed.extra["whole_ms"] / 1e3
        steps = int(training * method.share / shares / step)
        if steps < 1:
            raise ConfigError(
                f"minutes={minutes:g} leaves no time for a step of {method.name}: starts and "
                f"evaluations take {starting + evaluating:.0f} s of a core; give more minutes"
            )
        planned[method.name] = Training(steps, STARTED + steps * step)
    return planned


def _settings(methods: Sequence[Entrant], cfg: DictConfig) -> dict[str, Any]:
    """What the plan depends on."""
    given = {key: cfg[key] for key in ("minutes", "jobs", "seed", "net")}
    return given | {"shares": {method.name: method.share for method in methods}}


def write_plan(
    out: Path, methods: Sequence[Entrant], cfg: DictConfig, planned: dict[str, Training]
) -> None:
    """Keep the plan with what it depends on."""
    steps = {method: asdict(training) for method, training in planned.items()}
    content = _settings(methods, cfg) | {"plan": steps}
    files.write_text(out / "plan.json", json.dumps(content, indent=1))


def read_plan(out: Path, methods: Sequence[Entrant], cfg: DictConfig) -> dict[str, Training] | None:
    """The plan of an earlier call, or None.

    Raises:
        ConfigError: it was made for other settings.
    """
    path = out / "plan.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    planned = kept.pop("plan")
    changed = [key for key, value in _settings(methods, cfg).items() if kept.get(key) != value]
    if changed:
        raise ConfigError(
            f"{out} was planned with another {' and '.join(changed)}: give the same, or choose "
            "another out="
        )
    return {method: Training(**training) for method, training in planned.items()}
