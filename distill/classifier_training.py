"""Training a classifier and measuring it, as finetuning and distillation both do.

Step counts and order of the images are those of SimCLR v2 (arXiv 2006.10029).
"""

from typing import Any

from torch import Tensor, nn

from visrep.data.dataset import ImageDataset
from visrep.data.images import BrokenImages
from visrep.data.loader import Loader
from visrep.data.preprocess import Preprocess
from visrep.data.views.batch import Views
from visrep.engine.assembly import assemble
from visrep.engine.evaluation import accuracies
from visrep.engine.extraction import extract
from visrep.engine.run import Run
from visrep.engine.task import Task
from visrep.engine.trainer import Trainer


def trainer_of(
    task: Task,
    classifier: nn.Module,
    *,
    run: Run,
    train: ImageDataset,
    views: Views,
    total_steps: int,
    label: str,
    indices: Tensor | None = None,
) -> Trainer:
    """The trainer of `task`, whose trained part is `classifier`, on `train` or its `indices`.

    The run's configuration says the rest, see `assemble`.
    """
    batch_size = int(run.config["batch_size"])
    return assemble(
        task,
        trained=classifier,
        run=run,
        batches=Loader(
            train,
            views=views,
            batch_size=batch_size,
            seed=run.seed,
            workers=int(run.config["workers"]),
            device=run.device,
            indices=indices,
            continuous=True,
            max_broken=float(run.config["max_broken"]),
        ),
        total_steps=total_steps,
        steps_per_epoch=(len(train) if indices is None else len(indices)) / batch_size,
        label=label,
    )


def measure(
    net: nn.Module,
    dataset: ImageDataset,
    preprocess: Preprocess,
    *,
    max_broken: float,
    **loading: Any,
) -> dict[str, float]:
    """Accuracies of a classifier on single centre crops, in float32; `loading` as in `extract`.

    Images that cannot be read are named, and do not count.

    Raises:
        UserError: they are more than `max_broken` of all.
    """
    broken = BrokenImages(max_broken, len(dataset))
    scores, kept = extract(net, dataset, preprocess, broken=broken, progress=True, **loading)
    assert dataset.labels is not None
    return accuracies(scores, dataset.labels[kept])


def parameters(net: nn.Module) -> int:
    """Number of trainable or frozen weights, without running statistics."""
    return sum(parameter.numel() for parameter in net.parameters())
