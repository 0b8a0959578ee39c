"""`visrep detect weights=encoder.safetensors task=scenes out=DIR`: finetune, measure.

The encoder is trained with a Faster R-CNN (outputs=masks: Mask R-CNN) as the task says, on
detection.train, by Detectron2 or by torchvision, and the result is measured on detection.test: VOC
AP in both forms and COCO AP of boxes, and COCO AP of masks. Numbers of the two engines are not
comparable; every record names its engine and the form of its metric.
"""

import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from omegaconf import DictConfig, OmegaConf

from visrep import dist
from visrep.config import instantiate
from visrep.d2 import installed
from visrep.d2.pkl import with_stem_stride
from visrep.d2.recipe import DetectionRecipe
from visrep.data import identity
from visrep.data.detection import DetectionDataset
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError, UserError
from visrep.files import write_text
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import engine_d2, engine_tv, prediction
from visrep.transfer.detection.evaluation.coco import evaluate_coco
from visrep.transfer.detection.evaluation.voc import FORMS, evaluate_voc
from visrep.transfer.detection.prediction import Prediction
from visrep.transfer.frozen.features import frozen_encoder

# What an engine can learn -> the task that its records name.
OUTPUTS = {"boxes": "detection", "masks": "instance"}
INSTALL = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def main(cfg: DictConfig) -> None:
    """Train, predict, measure, record."""
    config = OmegaConf.to_container(cfg, resolve=True)
    assert isinstance(config, dict)
    recipe = DetectionRecipe.read({str(key): value for key, value in config.items()})
    engine, reason = choose_engine(cfg.engine)
    refuse(recipe, engine, opts=list(cfg.d2_opts))
    run = open_run(cfg)
    run.log.info("task %s: %s", recipe.task, recipe.about)
    run.log.info("engine: %s (%s)", engine, reason)
    train, test = read_data(cfg)
    for dataset in (train, test):
        run.log.info(
            "%s: %d images, %d boxes, %d problems reported",
            dataset.name,
            len(dataset.records),
            sum(len(record.boxes) for record in dataset.records),
            len(dataset.skipped),
        )
    run.know_data(identity.of_detection(train))
    encoder, preprocess, sha256 = frozen_encoder(cfg.weights, init=cfg.init, seed=run.seed)
    settings: dict[str, Any] = {
        "encoder": coarser(encoder, cfg.stem_stride, run),
        "preprocess": preprocess,
        "dataset": train,
        "recipe": recipe,
        "run": run,
        "workers": int(cfg.workers),
        "precision": str(cfg.precision),
        "snapshot_every": int(cfg.snapshot_every),
        "log_every": int(cfg.log_every),
    }
    started = time.perf_counter()
    if engine == "detectron2":
        detector = engine_d2.train(**settings, opts=list(cfg.d2_opts))
    else:
        detector = engine_tv.train(**settings)
    run.log.info("trained %d iterations in %.1f s", recipe.iterations, _since(started))
    started = time.perf_counter()
    predictions = _gathered(run, test, lambda share: detector.predict_all(share))
    run.log.info("predicted %d images in %.1f s", len(test.records), _since(started))
    if dist.is_main():
        prediction.save(run.out / "predictions.json", dataset=test, predictions=predictions)
        measure(
            run,
            test,
            predictions,
            recipe=recipe,
            engine=engine,
            weights=sha256,
            init=str(cfg.init),
        )
    dist.barrier()


def choose_engine(asked: str) -> tuple[str, str]:
    """The engine to use and why, for engine=auto, detectron2 or torchvision.

    Raises:
        ConfigError: another word, or Detectron2 where it cannot be imported.
    """
    if asked not in ("auto", "detectron2", "torchvision"):
        raise ConfigError(f"engine={asked}: choose auto, detectron2 or torchvision")
    if asked == "torchvision":
        return asked, "asked for; its numbers are not comparable with Detectron2's"
    found, problem = installed.version()
    if found:
        return "detectron2", f"version {found}" if asked == "auto" else f"asked for, {found}"
    if asked == "detectron2":
        raise ConfigError(
            f"engine=detectron2: {problem}; install it as {INSTALL} says, or use engine=torchvision"
        )
    return "torchvision", f"{problem}; numbers are not comparable with Detectron2's"


def refuse(recipe: DetectionRecipe, engine: str, *, opts: Sequence[Any] = ()) -> None:
    """Raise ConfigError where `engine` cannot do what the recipe, or `opts`, asks for."""
    if recipe.outputs not in OUTPUTS:
        raise ConfigError(
            f"outputs={recipe.outputs}: no engine learns it yet; choose {' or '.join(OUTPUTS)}, or "
            "write Detectron2's config of the task: visrep convert to=detectron2"
        )
    if engine == "torchvision" and recipe.beyond:
        raise ConfigError(
            f"task={recipe.task} has settings that only Detectron2 knows "
            f"({', '.join(recipe.beyond)}): use engine=detectron2, or detectron2=null to leave "
            "them out"
        )
    if engine == "torchvision" and opts:
        raise ConfigError("d2_opts are settings of Detectron2: use engine=detectron2")


def coarser(encoder: ResNet, stem_stride: int | None, run: Run) -> ResNet:
    """`encoder`; one with the cifar stem as the network that its stem makes at `stem_stride`.

    Raises:
        ConfigError: a cifar stem without `stem_stride=2`, or `stem_stride` for another stem.
    """
    spec = with_stem_stride(encoder.spec, stem_stride)
    if spec == encoder.spec:
        return encoder
    changed = ResNet(**spec)
    changed.load_state_dict(encoder.state_dict())
    run.log.info("changed network: stem_stride=2 makes the strides %s", changed.strides)
    return changed


def read_data(cfg: DictConfig) -> tuple[DetectionDataset, DetectionDataset]:
    """detection.train and detection.test, which must have the same classes."""
    train, test = instantiate(cfg.detection.train), instantiate(cfg.detection.test)
    if train is None or test is None:
        raise ConfigError("detection needs data to train and to test on: choose both")
    if train.classes != test.classes:
        raise ConfigError(
            f"{train.name} and {test.name} have different classes ({len(train.classes)} and "
            f"{len(test.classes)}): name the classes, or use two parts of one data set"
        )
    ids = [record.id for record in test.records]
    if len(set(ids)) < len(ids):
        double = next(each for each in ids if ids.count(each) > 1)
        raise UserError(f"{test.name}: two images are called {double!r}; rename one of them")
    return train, test


def measure(
    run: Run,
    dataset: DetectionDataset,
    predictions: Mapping[str, Prediction],
    *,
    recipe: DetectionRecipe,
    engine: str,
    weights: str,
    init: str,
) -> None:
    """Compute every metric; log it, append its record, write `per_class.json`."""

    def record(metric: str, value: float, form: str, **extra: Any) -> None:
        run.record(
            task=OUTPUTS[recipe.outputs],
            dataset=dataset.name,
            metric=metric,
            value=value,
            weights=weights,
            init=init,
            engine=engine,
            recipe=recipe.task,
            head=recipe.head,
            iterations=recipe.iterations,
            form=form,
            **extra,
        )

    voc = evaluate_voc(dataset, predictions)
    for form in FORMS:
        run.log.info("%s", voc.table(form))
    for metric, value in voc.numbers().items():
        form = "VOC area" if metric.endswith("_area") else "VOC 11-point"
        record(metric, value, form, classes_without_truth=voc.without_truth)
    kinds = {"bbox": "coco_"} | ({"segm": "mask_"} if recipe.masks else {})
    for kind, prefix in kinds.items():
        coco = evaluate_coco(dataset, predictions, kind=kind)
        for metric, value in coco.numbers.items():
            record(f"{prefix}{metric}", value, f"COCO {kind}", backend=coco.backend)
        shown = " ".join(f"{name} {value:.2f}" for name, value in coco.numbers.items())
        run.log.info("COCO %s (%s): %s", kind, coco.backend, shown)
    table = {form: voc.per_class(form) for form in FORMS}
    write_text(run.out / "per_class.json", json.dumps(table, indent=1))


def _gathered(run: Run, dataset: DetectionDataset, predict: Any) -> dict[str, Prediction]:
    """The predictions of all processes, each of which does its share of the images."""
    share = replace(dataset, records=dataset.records[dist.rank() :: dist.world_size()])
    mine = predict(share)
    if dist.world_size() == 1:
        return mine
    path = run.out / f"predictions.rank{dist.rank()}.json"
    prediction.save(path, dataset=share, predictions=mine)
    dist.barrier()
    everything: dict[str, Prediction] = {}
    if dist.is_main():
        for rank in range(dist.world_size()):
            part = run.out / f"predictions.rank{rank}.json"
            everything |= prediction.load(part)
            part.unlink()
    return everything


def _since(started: float) -> float:
    return time.perf_counter() - started
