"""`visrep detect weights=encoder.safetensors task=scenes out=DIR`: finetune, keep, measure.
`visrep detect detector=DIR detection=scenes out=DIR2`: measure a detector that was kept.
`visrep detect detector=DIR images=FOLDER out=DIR2`: see what it finds in pictures without labels.

The encoder is trained with a Faster R-CNN (outputs=masks: Mask R-CNN) as the task says, on
detection.train, by Detectron2 or by torchvision, and the result is measured on detection.test: VOC
AP in both forms and COCO AP of boxes, and COCO AP of masks. The two engines
are one detector to 1e-4 and draw other random numbers; every record names its engine and the form
of its metric. `labels=0.01` trains on a share of the images, `labels=FILE` on those of a list.
"""

import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from visrep import dist, groups
from visrep.d2.pkl import with_stem_stride
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.tasks import stated
from visrep.data import identity
from visrep.data.detection import labels as labelling
from visrep.data.preprocess import Preprocess
from visrep.engine import logs, snapshot
from visrep.engine.run import Run, open_run, plain_config
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.paths import config_dir
from visrep.transfer.detection import (
    detector_file,
    engine_d2,
    engine_tv,
    engines,
    measuring,
    parts,
    pictures,
    several,
    surfaces,
    whole_config,
)
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.scaling import scaled
from visrep.transfer.detection.validation import Validation
from visrep.transfer.frozen.features import frozen_encoder
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights

# What can be said of a measurement; all else is the detector's own.
OF_MEASURING = (
    *("detection", "images", "score", "detector", "out", "engine", "workers", "log_every"),
    *("snapshot_every", "resume", "seed", "device", "threads", "overwrite", "max_broken"),
    "eval_every",
)


def main(cfg: DictConfig) -> None:
    """Train and keep a detector, or take one that was kept; predict, measure, record."""
    cfg = resolve(cfg)
    if cfg.images is not None:
        _predict_pictures(cfg)
    elif cfg.detector is not None:
        _measure_kept(cfg)
    elif cfg.seeds > 1:
        _train_several(cfg)
    else:
        _train_and_measure(cfg)


def resolve(cfg: DictConfig) -> DictConfig:
    """`cfg`, which names what it must, with the numbers that `scale` makes for its batch size.

    Raises:
        ConfigError: neither weights= nor detector=, or both; weights= without a task; detector=
            with one, or with a setting of one; no data, or images= beside data or weights=;
            eval_every= without detection.val, or that alone; seeds= or scale= without sense.
    """
    cfg = cfg.copy()
    if cfg.images is not None and (cfg.weights is not None or cfg.get("detection") is not None):
        other = "weights" if cfg.weights is not None else "detection"
        raise ConfigError(
            f"images= shows what a kept detector finds in pictures: give detector=, not {other}="
        )
    if (cfg.weights is None) == (cfg.detector is None):
        raise ConfigError(
            "give weights=, an encoder to train a detector from, or detector=, one that was kept"
        )
    if cfg.detector is None and cfg.get("task") is None:
        raise ConfigError(f"give a value: task=..., one of {', '.join(groups.choices('task'))}")
    usual: Any = OmegaConf.load(config_dir() / "detect.yaml")
    if cfg.images is None and cfg.score != usual.score:
        raise ConfigError("score= is what is drawn of images=: leave it out")
    every, val = cfg.get("eval_every", 0), (cfg.get("detection") or {}).get("val")
    if every and val is None:
        raise ConfigError(
            f"eval_every={every} measures on detection.val, and there is none (never on the test "
            "part): state what differs from detection.test, such as detection.val={split: val}"
        )
    if val is not None and not every and cfg.detector is None:
        raise ConfigError("detection.val is measured on every eval_every= iterations: give these")
    if cfg.detector is not None:
        own = [key for key in cfg if key not in OF_MEASURING and cfg[key] != usual.get(key)]
        own = ["task"] if "task" in own else own
        if own:
            raise ConfigError(f"detector= brings its own {', '.join(map(str, own))}: leave it out")
    if cfg.images is None and cfg.get("detection") is None:
        names = ", ".join(groups.choices("detection"))
        raise ConfigError(f"give a value: detection=..., one of {names}")
    if cfg.detector is not None:
        return cfg
    numbers = {key: cfg[key] for key in ("lr", "iterations", "warmup", "batch_size")}
    for key, value in scaled(cfg.scale, **numbers, of=int(stated(cfg.task).batch_size)).items():
        cfg[key] = value
    return cfg


def _train_several(cfg: DictConfig) -> None:
    """A run for each seed, in a folder of its own, as it would be alone; then what they are."""
    recipe, engine, _ = planned(cfg)
    run = open_run(cfg, fixed_shapes=False)
    seeds = range(run.seed, run.seed + cfg.seeds)
    for seed in seeds:
        out = several.folder(run.out, seed)
        if several.done(run.out).get(str(seed)) == recipe.iterations:
            run.log.info("seed %d is done: %s", seed, out)
            continue
        # What has no snapshot yet cannot be gone on with, though `must` wants that of the others.
        begun = snapshot.newest(out / "snapshots") is not None
        one = {
            "out": str(out),
            "seed": seed,
            "seeds": 1,
            "overwrite": False,
            "resume": cfg.resume if begun or cfg.resume == "never" else "auto",
        }
        _train_and_measure(OmegaConf.merge(cfg, one))  # type: ignore[arg-type]
        logs.start(run.out)
        several.mark(run.out, seed, iterations=recipe.iterations)
    several.summarise(run, seeds, recipe=recipe, engine=engine)


def planned(cfg: DictConfig) -> tuple[DetectionRecipe, str, str]:
    """The recipe, the engine and why it is that. Raises ConfigError as `refuse`."""
    config = plain_config(cfg)
    recipe = DetectionRecipe.read(config)
    engine, reason = engines.choose(cfg.engine)
    if recipe.outputs == "densepose":
        surfaces.refuse(recipe, engine, config)
    else:
        engines.refuse(recipe, engine, opts=config["d2_opts"])
    return recipe, engine, reason


def _train_and_measure(cfg: DictConfig) -> None:
    recipe, engine, reason = planned(cfg)
    run = open_run(cfg, fixed_shapes=False)
    run.log.info("task %s: %s", recipe.task, recipe.about)
    run.log.info("engine: %s (%s)", engine, reason)
    if cfg.scale != "none":
        line = "scale=%s: batch_size %d with lr %.4g, %d iterations, %d of warm-up"
        run.log.info(
            line, cfg.scale, recipe.batch_size, recipe.lr, recipe.iterations, recipe.warmup
        )
    if recipe.outputs == "densepose":
        encoder, preprocess, sha256 = _encoder(cfg, run)
        surfaces.train_and_measure(
            recipe,
            encoder=encoder,
            preprocess=preprocess,
            sha256=sha256,
            init=str(cfg.init),
            run=run,
            root=str(cfg.detection.root),
            workers=int(cfg.workers),
            snapshot_every=int(cfg.snapshot_every),
        )
        return
    # Training is over where its detector is kept, whatever was cut short after it.
    kept = detector_file.find(run.out)
    file = None if kept is None else detector_file.read(kept)
    trained = file is not None and file.recipe["iterations"] == recipe.iterations
    if not trained:
        encoder, preprocess, sha256 = _encoder(cfg, run)
    train, test = parts.read_both(cfg)
    val = None if trained else parts.read_val(cfg, train, test)
    for dataset in (train, *([] if val is None else [val]), test):
        parts.announce(run, dataset)
    all_labels, train = train, labelling.labelled(train, cfg.labels, draw=int(cfg.draw))
    labels = labelling.announce(all_labels, train, cfg.labels, draw=int(cfg.draw))
    run.know_data(identity.of_detection(train))
    if labels and dist.is_main():
        labelling.write_list(run.out / "labels.txt", train, among=all_labels)
    if file is not None and trained:
        run.log.info("trained already: %s", kept)
        detector = engines.loaded(file, engine, run)
    else:

        def whole(config: Any, *, best: bool) -> str:
            return whole_config.text(
                config.dump(),
                out=run.out,
                nodes=run.config["detection"],
                recipe=recipe,
                backbone=encoder.spec,
                train=train,
                test=test,
                labels=bool(labels),
                best=best,
            )

        def made(detector: Any, best: Mapping[str, Any] = MappingProxyType({})) -> DetectorFile:
            return DetectorFile(
                engine=engine,
                recipe=detector_file.plain_recipe(recipe),
                backbone=encoder.spec,
                preprocess=preprocess.to_dict(),
                classes=list(train.classes),
                encoder=sha256,
                init=str(cfg.init),
                config=whole(detector.config, best=bool(best)) if engine == "detectron2" else "",
                opts=list(cfg.d2_opts),
                labels=labels,
                keypoints=asdict(train.keypoints) if recipe.keypoints and train.keypoints else {},
                best=dict(best),
                tensors=detector.state(),
            )

        validation = None
        if val is not None:
            every = int(cfg.eval_every)
            validation = Validation(run=run, dataset=val, recipe=recipe, every=every, file=made)
        settings: dict[str, Any] = {
            "encoder": encoder,
            "preprocess": preprocess,
            "dataset": train,
            "recipe": recipe,
            "run": run,
            "workers": int(cfg.workers),
            "precision": str(cfg.precision),
            "snapshot_every": int(cfg.snapshot_every),
            "log_every": int(cfg.log_every),
            "validation": validation,
        }
        started = time.perf_counter()
        if engine == "detectron2":
            detector = engine_d2.train(**settings, opts=list(cfg.d2_opts))
        else:
            detector = engine_tv.train(**settings)
        run.log.info(
            "trained %d iterations in %.1f s", recipe.iterations, time.perf_counter() - started
        )
        if validation is not None:
            validation.conclude(engine)
        file = made(detector)
        if dist.is_main():
            run.log.info("wrote %s", detector_file.save(run.out, file))
    measuring.predict_and_measure(run, detector, test, file, engine=engine)


def _encoder(cfg: DictConfig, run: Run) -> tuple[ResNet, Preprocess, str]:
    """What is trained from, how it expects its input, and its sha256."""
    named = read_weights(cfg.weights, Choice(prefix=cfg.prefix))
    encoder, preprocess, sha256 = frozen_encoder(named, init=cfg.init, seed=run.seed)
    return coarser(encoder, cfg.stem_stride, run), preprocess, sha256


def also_shown(cfg: DictConfig) -> str:
    """What --dry-run shows besides: Detectron2's whole config, where Detectron2 would train.

    Raises:
        ConfigError: settings that the engine cannot follow.
    """
    if cfg.detector is not None:
        return ""
    config: Any = OmegaConf.to_container(cfg, resolve=True)
    recipe = DetectionRecipe.read(config)
    engine, reason = engines.choose(cfg.engine)
    if recipe.outputs == "densepose":
        surfaces.refuse(recipe, engine, config)
        return ""
    engines.refuse(recipe, engine, opts=config["d2_opts"])
    if engine != "detectron2":
        return f"# engine: {engine} ({reason})\n"
    try:
        named = read_weights(cfg.weights, Choice(prefix=cfg.prefix))
        train, test = parts.unlooked(cfg)
    except UserError as error:
        return f"# Detectron2's config hangs on the weights and data: {error}\n"
    encoder = ResNet(**with_stem_stride(named.backbone, cfg.stem_stride))  # no tensor is needed
    cuda = torch.cuda.is_available() and cfg.device in ("auto", "cuda")
    device = torch.device("cuda" if cuda else "cpu")
    run = Run(Path(cfg.out), device, seed=int(cfg.seed), config=config, command="")
    made = engine_d2.configure(
        encoder,
        Preprocess.from_dict(named.preprocess),
        train,
        recipe,
        run=run,
        workers=int(cfg.workers),
        opts=config["d2_opts"],
    )
    whole = whole_config.text(
        made.dump(),
        out=cfg.out,
        nodes=run.config["detection"],
        recipe=recipe,
        backbone=encoder.spec,
        train=train,
        test=test,
    )
    return f"---\n# Detectron2's config of this run, complete, on {device.type}\n#\n{whole}"


def _predict_pictures(cfg: DictConfig) -> None:
    file = _kept(cfg)
    engine, reason = engines.choose(file.engine if cfg.engine == "auto" else cfg.engine)
    pictures.check_out(Path(cfg.out), Path(cfg.images))
    dataset = pictures.read_pictures(str(cfg.images), file=file, max_broken=float(cfg.max_broken))
    run = open_run(cfg, fixed_shapes=False)
    detector = engines.loaded(file, engine, run)
    run.log.info("%s: task %s, trained by %s", cfg.detector, file.recipe["task"], file.engine)
    run.log.info("engine: %s (%s)", engine, reason)
    pictures.predict_pictures(run, detector, dataset, score=float(cfg.score))


def _kept(cfg: DictConfig) -> DetectorFile:
    """The file of detector=, which must not lie where this run will write."""
    file = detector_file.read(cfg.detector)
    kept, out = Path(cfg.detector).resolve(), Path(cfg.out).resolve()
    if out in (kept, *kept.parents):
        raise ConfigError(f"the detector is in out={cfg.out}: choose another out= to measure into")
    return file


def _measure_kept(cfg: DictConfig) -> None:
    file = _kept(cfg)
    engine, reason = engines.choose(file.engine if cfg.engine == "auto" else cfg.engine)
    run = open_run(cfg, fixed_shapes=False)
    test = parts.read_test(cfg, file)
    detector = engines.loaded(file, engine, run)
    run.log.info("%s: task %s, trained by %s", cfg.detector, file.recipe["task"], file.engine)
    run.log.info("engine: %s (%s)", engine, reason)
    parts.announce(run, test)
    measuring.predict_and_measure(run, detector, test, file, engine=engine)


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
