"""What the tasks say of Detectron2's data, for the linter: classes and published lengths."""

import functools
import re
from collections.abc import Sequence

from visrep.d2.recipe import DATA, DetectionRecipe, flat
from visrep.d2.tasks import recipe_of
from visrep.groups import choices

# Of no task here: numbers of classes; published lengths at the batch of the tasks on such data.
CLASSES = {"lvis_v1": 1203}
LENGTHS = {
    "coco": [270_000],  # Detectron2's 3x
    "voc0712": [18_000],  # Detectron2's own
    "voc07": [12_500],  # VISSL's
    "lvis": [180_000],  # 2x
}
_SET = re.compile(r"(.+?)_(\d{4}_)?(train|val|test|mini)")  # its name up to the year or split


@functools.cache
def _tasks(names: tuple[str, ...]) -> list[DetectionRecipe]:
    return [recipe for recipe in map(recipe_of, names) if not recipe.unsaid]


def tasks() -> list[DetectionRecipe]:
    """The tasks on data that Detectron2 knows by name."""
    return _tasks(tuple(choices("task")))


def classes_of(name: str) -> int | None:
    """The number of classes of objects of a data set of Detectron2's; None if no task has such
    data."""
    known = dict(CLASSES)
    for task in tasks():
        if task.outputs == "semantic":
            continue
        train, test, count = (flat(task.detectron2)[key] for key in DATA[:3])
        known |= {_data(each): count for each in [*train, *test]}
    return known.get(_data(name))


def lengths_on(train: Sequence[str]) -> tuple[int, list[int]] | None:
    """The batch, and the published numbers of iterations at it, for data of training."""
    data = families(train)
    pixels = any("sem_seg" in name or "stuffonly" in name for name in train)
    alike = [
        task
        for task in tasks()
        if families(flat(task.detectron2)[DATA[0]]) == data
        and (task.outputs == "semantic") == pixels
        and task.outputs != "densepose"  # longer than those of boxes on the same data
    ]
    if not alike:
        return None
    batch = alike[0].batch_size
    ours = {round(task.iterations * task.batch_size / batch) for task in alike}
    return batch, sorted(ours | set(LENGTHS.get(data, [])))


def family(name: str) -> str:
    """cityscapes, coco, lvis or voc; another name as it is."""
    return next((f for f in ("cityscapes", "coco", "lvis", "voc") if f in name), name)


def families(train: Sequence[str]) -> str:
    """Their kind of data in one word; VOC with 2012 is another than 2007 alone."""
    found = "+".join(sorted({family(name) for name in train}))
    if found == "voc":
        return "voc07" if all("2007" in name for name in train) else "voc0712"
    return found


def _data(name: str) -> str:
    """A data set's name without year and split: voc, keypoints_coco, lvis_v0.5."""
    found = _SET.match(name)
    return found[1] if found else name
