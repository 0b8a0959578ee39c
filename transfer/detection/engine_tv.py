"""Detection by torchvision: the engine that is always there, in the one training loop.

The same weights give the proposals, boxes and losses of Detectron2 to 1e-4; what is drawn at random
is not the same. Published numbers come from Detectron2, and every record says which engine it was.
"""

from typing import Any

import torch
from torch import Tensor

from visrep import dist
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.settings import norm_in_words
from visrep.data.detection import DetectionDataset
from visrep.data.preprocess import Preprocess
from visrep.engine import optim
from visrep.engine.precise_bn import reestimate
from visrep.engine.run import Run
from visrep.engine.task import Task
from visrep.engine.trainer import Trainer
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.resnet import ResNet, dilate
from visrep.transfer.detection import detector_file, foreseen, tv_features
from visrep.transfer.detection.batches import TrainingBatches
from visrep.transfer.detection.batches import load as load_image
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.label_batches import LabelBatches
from visrep.transfer.detection.tv_detector import Detector
from visrep.transfer.detection.tv_segmenter import Segmenter
from visrep.transfer.detection.validation import Validate, Validation


class DetectionTask(Task):
    """What the trainer trains: the detector, whose sampling follows the step's seed."""

    def __init__(self, detector: Detector | Segmenter) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The sum of the losses of `images` and `targets` under "loss", and each of them."""
        self.detector.seed(batch["seed"])
        device = self.detector.device
        images = [image.to(device).float() / 255 for image in batch["images"]]
        targets = [{k: v.to(device) for k, v in target.items()} for target in batch["targets"]]
        losses = self.detector(images, targets)
        logged = {name: loss.detach() for name, loss in losses.items()}
        return {"loss": torch.stack(list(losses.values())).sum(), **logged}


def train(
    *,
    encoder: ResNet,
    preprocess: Preprocess,
    dataset: DetectionDataset,
    recipe: DetectionRecipe,
    run: Run,
    workers: int,
    precision: str,
    snapshot_every: int,
    log_every: int,
    validation: Validation | None = None,
) -> Detector | Segmenter:
    """Train a detector on `dataset` with the one training loop; it comes back in eval mode.

    `validation` measures it on the way, which changes nothing of the training.
    """
    detector = _net(
        encoder=encoder,
        classes=len(dataset.classes),
        keypoints=dataset.keypoint_count,
        recipe=recipe,
        preprocess=preprocess,
        seed=run.seed,
    )
    shared = "SyncBN" if dist.world_size() > 1 else "BN"
    run.log.info("norm: %s", norm_in_words("FrozenBN" if recipe.norm == "FrozenBN" else shared))
    inside = dilate(encoder) if recipe.head == "fcn" else encoder
    run.log.info("%s", tv_features.verified(detector, inside))
    if dist.world_size() > 1:
        set_batchnorm(detector, mode="sync")
    task = DetectionTask(detector)
    source = LabelBatches if recipe.outputs == "semantic" else TrainingBatches
    batches = source(dataset, recipe=recipe, seed=run.seed, workers=workers)

    def reestimate_at(step: int) -> None:
        """Statistics from as many images as in `precise_bn` batches, those that come next."""
        stream = batches.iterate(step * recipe.accumulate)
        reestimate(task, stream, count=recipe.precise_bn * recipe.accumulate, forward=task)

    hooks = []
    if validation is not None:
        hooks.append(Validate(validation, detector, reestimate_at if recipe.precise_bn else None))
    groups = optim.parameter_groups(
        task, lr=recipe.lr, weight_decay=recipe.weight_decay, exclude=["norm"]
    )
    trainer = Trainer(
        task=task,
        optimizer=torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum),
        schedule=recipe.schedule(),
        batches=batches,
        total_steps=recipe.iterations,
        device=run.device,
        out=run.out,
        precision=precision,
        accumulate=recipe.accumulate,
        snapshot_every=snapshot_every,
        log_every=log_every,
        resume=run.config.get("resume", "never"),
        data=run.data,
        hooks=hooks,
        writers=run.writers(total=recipe.iterations, label="detect"),
    )
    if foreseen.wanted(run, recipe):
        size = {"short": max(recipe.train_sizes), "most": recipe.max_size}
        samples = foreseen.largest(
            batches.records,
            recipe,
            count=batches.size,
            read=lambda r: batches.with_truth(r, load_image(r, **size), mirrored=False),
        )
        images, targets = zip(*samples, strict=True) if samples else ((), ())
        ordinary = next(batches.iterate(0))
        largest = {**ordinary, "images": list(images), "targets": list(targets)}
        dtype = trainer.dtype

        def loss(batch: dict[str, Any]) -> Tensor:
            kind = run.device.type
            with torch.autocast(kind, dtype=dtype or torch.bfloat16, enabled=bool(dtype)):
                return task(batch)["loss"]

        task.train()
        foreseen.announce(
            run,
            task,
            recipe,
            loss=loss,
            largest=largest if samples else ordinary,
            ordinary=ordinary,
        )
    trainer.fit()
    if recipe.precise_bn:
        run.log.info("precise batch norm: statistics from %d batches", recipe.precise_bn)
        reestimate_at(recipe.iterations)
    return detector.eval()


def load(file: DetectorFile, device: torch.device) -> Detector | Segmenter:
    """The detector of a file of this engine, in eval mode.

    Raises:
        UserError: its tensors are those of another net than it names.
    """
    detector = empty(file)
    detector_file.fill(detector, file)
    return detector.to(device).eval()


def empty(file: DetectorFile) -> Detector | Segmenter:
    """The net that `file` names, without its tensors."""
    recipe = DetectionRecipe(**file.recipe)
    return _net(
        encoder=ResNet(**file.backbone),
        classes=len(file.classes),
        keypoints=len(file.keypoints.get("names", [])),
        recipe=recipe,
        preprocess=Preprocess.from_dict(file.preprocess),
        seed=0,
    )


def _net(
    *,
    encoder: ResNet,
    classes: int,
    keypoints: int,
    recipe: DetectionRecipe,
    preprocess: Preprocess,
    seed: int,
) -> Detector | Segmenter:
    """The net of a recipe; only one that finds objects has `keypoints`."""
    if recipe.outputs == "semantic":
        return Segmenter(
            encoder=encoder, classes=classes, recipe=recipe, preprocess=preprocess, seed=seed
        )
    return Detector(
        encoder=encoder,
        classes=classes,
        keypoints=keypoints,
        recipe=recipe,
        preprocess=preprocess,
        seed=seed,
    )
