"""Before a detector's first step: which batch is the largest, and what is said of it."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

from torch import Tensor, nn

from visrep import dist
from visrep.d2.recipe import DetectionRecipe, check_batch
from visrep.data.detection import ImageRecord
from visrep.data.images import BrokenImage
from visrep.engine import forecast, snapshot
from visrep.engine.run import Run
from visrep.transfer.detection.batches import resized

T = TypeVar("T")


def wanted(run: Run, recipe: DetectionRecipe) -> bool:
    """Is it worth it? Not for a few steps, and not where several processes would wait for one.

    Nor of nets that name pixels, whose images are cut out of larger ones at random.
    """
    steps = recipe.iterations - (snapshot.newest(run.out / "snapshots") or 0)
    asked = bool(run.config.get("forecast", False))
    alone = dist.world_size() == 1
    return asked and alone and steps >= forecast.LEAST and recipe.outputs != "semantic"


def announce(
    run: Run,
    model: nn.Module,
    recipe: DetectionRecipe,
    *,
    loss: Callable[[Any], Tensor],
    largest: Any,
    ordinary: Any,
) -> None:
    """Log what the training will need. Raises UserError where memory does not suffice."""
    size = check_batch(recipe.batch_size, accumulate=recipe.accumulate)
    more = next((k for k in range(2, size + 1) if size % k == 0), None)
    advice = f"accumulate={recipe.accumulate * more} takes it in parts" if more else ""
    found = forecast.foresee(
        model,
        loss=loss,
        largest=largest,
        ordinary=ordinary,
        device=run.device,
        steps=recipe.iterations - (snapshot.newest(run.out / "snapshots") or 0),
        parts=recipe.accumulate,
        advice=advice or "lower train_sizes= or max_size=",
    )
    run.log.info("%s", found.line())


def largest(
    records: Sequence[ImageRecord],
    recipe: DetectionRecipe,
    *,
    count: int,
    read: Callable[[ImageRecord], T],
) -> list[T]:
    """`read` of `count` images that are the largest at the largest size, all upright or all wide.

    Images that turn out to be broken are passed over; where there are too few, some come twice.
    """
    size = {"short": max(recipe.train_sizes), "most": recipe.max_size}

    def area(record: ImageRecord) -> int:
        height, width = resized(record.height, record.width, **size)
        return height * width

    ordered = sorted(records, key=area, reverse=True)
    wide = ordered[0].width >= ordered[0].height
    found = _readable((r for r in ordered if (r.width >= r.height) == wide), count, read)
    return [found[i % len(found)] for i in range(count)] if found else []


def _readable(
    records: Iterable[ImageRecord], count: int, read: Callable[[ImageRecord], T]
) -> list[T]:
    found: list[T] = []
    for record in records:
        if len(found) == count:
            break
        try:
            found.append(read(record))
        except BrokenImage:
            continue  # training meets it again, and counts it
    return found
