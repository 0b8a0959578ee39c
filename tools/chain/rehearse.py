"""`visrep rehearse out=DIR minutes=12`: every method on built-in data, and one table of the gains.

Two chains of jobs (`visrep.tools.chain.jobs`): the untrained nets and the speed of each method's
step; then, with the steps that its speed affords it, each method's pretraining and evaluation. The
plan between them is kept in `plan.json`, so that a second call goes on with it.
"""

import json
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from omegaconf import DictConfig

from visrep import config, files, results
from visrep.errors import CheckFailed, ConfigError, Diverged
from visrep.tools.chain import rehearse_table
from visrep.tools.chain.jobs import Job, run_all, slots_of

OWN_NET = "exemplar"  # has a net of its own, and an SVM on all of its layers for a measure
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
    _check(cfg)
    out, slots = Path(cfg.out), slots_of(int(cfg.jobs))
    planned = read_plan(out, cfg)
    first = untrained(out, cfg) + benchmarks(cfg)
    print(f"visrep rehearse: {len(first)} steps for untrained nets and speed, {slots} at a time")
    run_all(first, out, slots=slots)
    if planned is None:
        left = 60 * float(cfg.minutes) - (time.monotonic() - started)
        planned = plan(out, cfg, seconds=slots * left)
        write_plan(out, cfg, planned)
    for method, training in planned.items():
        print(f"  {method:14} {training.steps:6d} steps {training.seconds:6.0f} s of a core")
    run_all(trainings(out, cfg, planned), out, slots=slots)
    rows = rehearse_table.collect(out, cfg)
    rehearse_table.write(rows, out, bar=float(cfg.bar))
    print(rehearse_table.table(rows, bar=float(cfg.bar)))
    print(f"{time.monotonic() - started:.0f} s. The picture: {(out / 'rehearsal.png').resolve()}")
    missed = [row.method for row in rows if not row.passes(float(cfg.bar))]
    if missed:
        raise CheckFailed(
            f"below the bar of {cfg.bar:g} points: {', '.join(missed)}; give more minutes=, or "
            "mend the recipe, configs/method/NAME_scenes.yaml"
        )


def _check(cfg: DictConfig) -> None:
    names = list(cfg.methods)
    if not names or len(set(names)) < len(names) or set(names) - set(cfg.recipes):
        raise ConfigError(f"methods={names}: choose from {', '.join(cfg.recipes)}, each once")
    if cfg.minutes <= 0 or min(cfg.recipes[name].share for name in names) <= 0:
        raise ConfigError(f"minutes={cfg.minutes}: minutes and shares must be above 0")


# The jobs


def recipe_of(method: str, cfg: DictConfig) -> tuple[str, ...]:
    """What a command is told of a method."""
    net = () if method == OWN_NET else (f"backbone={cfg.net}",)
    return ("data=scenes", f"method={method}_scenes", *net, f"seed={cfg.seed}")


def family_of(method: str) -> str:
    """Methods of one family train the same net, and so share what is measured untrained."""
    return OWN_NET if method == OWN_NET else "resnet"


def measures_of(method: str) -> tuple[str, ...]:
    """The commands that evaluate a method's encoder."""
    return ("svm", "linear", "knn") if method == OWN_NET else ("linear", "knn")


def _evaluation(
    name: str, command: str, encoder: str, out: Path, cfg: DictConfig, *settings: str
) -> Job:
    """A measure of the encoder that the job `encoder` writes; alike for all of them."""
    weights = f"weights={out / encoder / 'encoder.safetensors'}"
    layers = ("output=layers",) if command == "svm" else ()
    arguments = (command, "data=scenes", weights, *layers, *settings, f"seed={cfg.seed}")
    return Job(name, arguments, (encoder,), TAKES[command])


def untrained(out: Path, cfg: DictConfig) -> list[Job]:
    """Fresh nets of each family and their measures, kNN also with statistics of the data."""
    jobs: list[Job] = []
    for method in {family_of(method): method for method in cfg.methods}.values():
        family = family_of(method)
        encoder = f"untrained-{family}"
        jobs.append(Job(encoder, ("pretrain", *recipe_of(method, cfg), "steps=0"), (), STARTED))
        for command in measures_of(method):
            name = f"{command}-random-{family}"
            jobs.append(_evaluation(name, command, encoder, out, cfg, "init=random"))
        if family != OWN_NET:  # which has no batch norm
            again = ("init=random", "bn=reestimated")
            name = f"knn-reestimated-{family}"
            jobs.append(_evaluation(name, "knn", encoder, out, cfg, *again))
    return jobs


def benchmarks(cfg: DictConfig) -> list[Job]:
    """The cost of each method's step, and of the encoder passes that it cannot do without."""
    jobs = []
    for method in cfg.methods:
        recipe = _composed(method, cfg)
        same = [f"{key}={recipe[key]}" for key in ("batch_size", "bn_splits", "precision")]
        passes = f"passes={cfg.recipes[method].passes}"
        arguments = ("benchmark", "what=step", *recipe_of(method, cfg), *same, passes, "steps=12")
        jobs.append(Job(f"speed-{method}", arguments, (), TAKES["benchmark"]))
    return jobs


def trainings(out: Path, cfg: DictConfig, planned: dict[str, Training]) -> list[Job]:
    """Pretrainings, the longest first, and what measures them; those fill the gaps at the end."""
    jobs = [
        Job(
            f"pretrain-{method}",
            ("pretrain", *recipe_of(method, cfg), f"steps={training.steps}", "knn.times=0"),
            (),
            training.seconds,
            tolerated=(Diverged.exit_code,),  # the table will say so
        )
        for method, training in planned.items()
    ]
    jobs.sort(key=lambda job: -job.seconds)
    for method in planned:
        for command in measures_of(method):
            name = f"{command}-{method}"
            jobs.append(_evaluation(name, command, f"pretrain-{method}", out, cfg))
    return jobs


def _composed(method: str, cfg: DictConfig) -> DictConfig:
    return config.compose("pretrain", ["out=none", *recipe_of(method, cfg)])[0]


# The plan


def plan(out: Path, cfg: DictConfig, *, seconds: float) -> dict[str, Training]:
    """Steps of each method, so that training and evaluation take `seconds` of a core in all.

    Raises:
        ConfigError: starts and evaluations alone take longer.
    """
    starting = STARTED * len(cfg.methods)
    evaluating = sum(TAKES[command] for method in cfg.methods for command in measures_of(method))
    training = SLACK * seconds - starting - evaluating
    shares = {method: float(cfg.recipes[method].share) for method in cfg.methods}
    planned = {}
    for method, share in shares.items():
        step = _speed(out, method).extra["whole_ms"] / 1e3
        steps = int(training * share / sum(shares.values()) / step)
        if steps < 1:
            raise ConfigError(
                f"minutes={cfg.minutes:g} leaves no time for a step of {method}: starts and "
                f"evaluations take {starting + evaluating:.0f} s of a core; give more minutes"
            )
        planned[method] = Training(steps, STARTED + steps * step)
    return planned


def _speed(out: Path, method: str) -> results.Record:
    return results.read(out / f"speed-{method}" / "results.jsonl")[-1]


def _settings(cfg: DictConfig) -> dict[str, Any]:
    """What the plan depends on."""
    given = {key: cfg[key] for key in ("minutes", "jobs", "seed", "net")}
    return given | {"shares": {method: cfg.recipes[method].share for method in cfg.methods}}


def write_plan(out: Path, cfg: DictConfig, planned: dict[str, Training]) -> None:
    """Keep the plan with what it depends on."""
    steps = {method: asdict(training) for method, training in planned.items()}
    files.write_text(out / "plan.json", json.dumps(_settings(cfg) | {"plan": steps}, indent=1))


def read_plan(out: Path, cfg: DictConfig) -> dict[str, Training] | None:
    """The plan of an earlier call, or None.

    Raises:
        ConfigError: it was made for other settings.
    """
    path = out / "plan.json"
    if not path.exists():
        return None
    kept = json.loads(path.read_text(encoding="utf-8"))
    planned = kept.pop("plan")
    changed = [key for key, value in _settings(cfg).items() if kept.get(key) != value]
    if changed:
        raise ConfigError(
            f"{out} was planned with another {' and '.join(changed)}: give the same, or choose "
            "another out="
        )
    return {method: Training(**training) for method, training in planned.items()}
