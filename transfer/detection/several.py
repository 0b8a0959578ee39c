"""The same training from several seeds: what was measured, beside what was published."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from visrep import dist, results
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.tasks import recipe_of, usual_data
from visrep.engine.run import Run
from visrep.errors import UserError
from visrep.files import write_text
from visrep.results import Record

_DONE = "seeds.json"
# What of a record is one run's own.
_OWN = ("detector", "left_out")


def folder(out: Path, seed: int) -> Path:
    """Of the run of `seed`."""
    return out / f"seed{seed}"


def done(out: Path) -> dict[str, int]:
    """Seed -> iterations of the runs in `out` that have been trained and measured.

    Raises:
        UserError: the file that says so is damaged.
    """
    path = out / _DONE
    if not path.exists():
        return {}
    try:
        return {str(seed): int(count) for seed, count in json.loads(path.read_text()).items()}
    except (OSError, ValueError, AttributeError, TypeError) as error:
        raise UserError(
            f"cannot read {path} ({error}): remove it, and every seed is looked at again"
        ) from error


def mark(out: Path, seed: int, *, iterations: int) -> None:
    """Note that the run of `seed` has been trained and measured; all processes call it together."""
    if dist.is_main():
        write_text(out / _DONE, json.dumps({**done(out), str(seed): iterations}))
    dist.barrier()


def summarise(run: Run, seeds: Sequence[int], *, recipe: DetectionRecipe, engine: str) -> None:
    """One record per metric over the runs of `seeds`, in `results.jsonl`; a table in the log.

    Its value is their mean; `runs`, `deviation` (of a sample, n - 1), `low`, `high`, `values` and
    `seeds` say what it is of, `published` what is known of the metric, and `protocol_differs` in
    what the runs are not what was published.
    """
    if not dist.is_main():
        return
    differs = protocol_differs(run.config, recipe, engine)
    published = run.config.get("published") or []
    for same in _alike([_of(folder(run.out, seed), recipe.iterations) for seed in seeds]):
        values, first = [record.value for record in same], same[0]
        spread = {
            "runs": len(values),
            "deviation": stdev(values) if len(values) > 1 else 0.0,
            "low": min(values),
            "high": max(values),
        }
        run.record(
            task=first.task,
            dataset=first.dataset,
            metric=first.metric,
            value=fmean(values),
            weights=first.weights,
            init=first.init,
            engine=first.engine,
            **{key: value for key, value in first.extra.items() if key not in _OWN},
            **spread,
            values=values,
            seeds=[record.seed for record in same],
            published=[row for row in published if row["metric"] == first.metric],
            protocol_differs=differs,
        )
        run.log.info(
            "%s on %s: %.2f +- %.2f (%.2f to %.2f) over %d runs",
            *(first.metric, first.dataset, fmean(values)),
            *(spread[name] for name in ("deviation", "low", "high", "runs")),
        )
    _compare(run, published, differs)


def _of(folder: Path, iterations: int) -> list[Record]:
    """The records of one run, the last of each metric."""
    of = [r for r in results.read(folder / "results.jsonl") if "runs" not in r.extra]
    return list({r.metric: r for r in of if r.extra.get("iterations") == iterations}.values())


def _alike(runs: Sequence[Sequence[Record]]) -> list[list[Record]]:
    """The records of each metric, one of each run; a metric that some run lacks is left out."""
    found: dict[str, list[Record]] = {}
    for records in runs:
        for record in records:
            found.setdefault(record.metric, []).append(record)
    return [same for same in found.values() if len(same) == len(runs)]


def _compare(run: Run, published: Sequence[Mapping[str, Any]], differs: Sequence[str]) -> None:
    lines: dict[tuple[Any, ...], list[str]] = {}
    for row in published:
        key = (row["weights"], row["source"], row.get("runs"))
        lines.setdefault(key, []).append(f"{row['metric']} {row['value']:g}")
    for (weights, source, runs), numbers in lines.items():
        count = f"{runs} runs" if runs else "runs not stated"
        run.log.info("published of %s: %s (%s, %s)", weights, " ".join(numbers), source, count)
    if published:
        run.log.info(
            "protocol: %s",
            f"not the published one: {'; '.join(differs)}" if differs else "the published one",
        )


def protocol_differs(config: Mapping[str, Any], recipe: DetectionRecipe, engine: str) -> list[str]:
    """In what a run is not that of its task's published numbers, a clause each.

    These are the engine, every number of the recipe, the data set and its classes, the share of
    labels and Detectron2's own settings. It cannot know what lies in a folder.
    """
    found = [] if engine == "detectron2" else [f"engine={engine} instead of detectron2"]
    stated, own = asdict(recipe_of(recipe.task)), asdict(recipe)
    found += [
        f"{key}={_plain(own[key])} instead of {_plain(stated[key])}"
        for key in stated
        if key not in ("about", "detectron2") and _plain(own[key]) != _plain(stated[key])
    ]
    if _plain(own["detectron2"]) != _plain(stated["detectron2"]):
        found.append("other settings of Detectron2")
    data, usual = config["detection"], usual_data(recipe.task)
    if usual is not None and data.get("name") != usual:
        found.append(f"detection={data.get('name')} instead of {usual}")
    if data.get("classes") is not None:
        found.append("a choice of classes")
    if config.get("labels", 1.0) != 1.0:
        found.append(f"labels={config['labels']}")
    if config.get("d2_opts"):
        found.append("d2_opts=" + " ".join(map(str, config["d2_opts"])))
    if config.get("precision", "fp32") != "fp32":
        found.append(f"precision={config['precision']}")
    return found


def _plain(value: Any) -> Any:
    return json.loads(json.dumps(value))
