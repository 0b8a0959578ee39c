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
from visrep.config import instantiate
from visrep.d2 import installed
from visrep.d2 import opts as d2_opts
from visrep.d2.pkl import with_stem_stride
from visrep.d2.recipe import DetectionRecipe
from visrep.d2.tasks import stated
from visrep.data import identity
from visrep.data.detection import DetectionDataset, readiness
from visrep.data.detection import labels as labelling
from visrep.data.detection.keypoints import check_mirror, check_same
from visrep.data.preprocess import Preprocess
from visrep.data.semantic import readiness as semantic
from visrep.engine import logs, snapshot
from visrep.engine.run import Run, open_run, plain_config
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.paths import config_dir
from visrep.transfer.detection import (
    detector_file,
    engine_d2,
    engine_tv,
    measuring,
    pictures,
    several,
    surfaces,
    translation,
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
INSTALL = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


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
    if not isinstance(every, int) or isinstance(every, bool) or every < 0:
        raise ConfigError(f"eval_every={every}: a number of iterations, 0 for none")
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
    if not isinstance(cfg.seeds, int) or isinstance(cfg.seeds, bool) or cfg.seeds < 1:
        raise ConfigError(f"seeds={cfg.seeds}: a number of runs, 1 or more")
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
    engine, reason = choose_engine(cfg.engine)
    if recipe.outputs == "densepose":
        surfaces.refuse(recipe, engine, config)
    else:
        refuse(recipe, engine, opts=config["d2_opts"])
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
    train, test = read_data(cfg)
    val = None if trained else read_val(cfg, train, test)
    for dataset in (train, *([] if val is None else [val]), test):
        _announce(run, dataset)
    all_labels, train = train, labelling.labelled(train, cfg.labels, draw=int(cfg.draw))
    labels = labelling.announce(all_labels, train, cfg.labels, draw=int(cfg.draw))
    run.know_data(identity.of_detection(train))
    if labels and dist.is_main():
        labelling.write_list(run.out / "labels.txt", train, among=all_labels)
    if file is not None and trained:
        run.log.info("trained already: %s", kept)
        detector = loaded(file, engine, run)
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
    engine, reason = choose_engine(cfg.engine)
    if recipe.outputs == "densepose":
        surfaces.refuse(recipe, engine, config)
        return ""
    refuse(recipe, engine, opts=config["d2_opts"])
    if engine != "detectron2":
        return f"# engine: {engine} ({reason})\n"
    try:
        named = read_weights(cfg.weights, Choice(prefix=cfg.prefix))
        train, test = _classes_of_both(cfg)
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
    if file.recipe["outputs"] == "semantic":
        raise ConfigError(
            "images= draws boxes, and this net names pixels: measure it on data with detection=, "
            "which keeps its label images"
        )
    engine, reason = choose_engine(file.engine if cfg.engine == "auto" else cfg.engine)
    pictures.check_out(Path(cfg.out), Path(cfg.images))
    dataset = pictures.read_pictures(str(cfg.images), file=file, max_broken=float(cfg.max_broken))
    run = open_run(cfg, fixed_shapes=False)
    detector = loaded(file, engine, run)
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
    engine, reason = choose_engine(file.engine if cfg.engine == "auto" else cfg.engine)
    run = open_run(cfg, fixed_shapes=False)
    outputs = str(file.recipe["outputs"])
    test = _part(cfg, "test", outputs=outputs)
    if test is None:
        raise ConfigError("a detector is measured on detection.test: choose data that have it")
    if outputs == "keypoints":
        check_same(test, file.keypoints["names"], "the detector")
    if outputs == "semantic":
        test = semantic.measurable(test, file.classes, max_broken=float(cfg.max_broken))
    else:
        test = readiness.measurable(
            test,
            masks=outputs == "masks",
            max_broken=float(cfg.max_broken),
            keypoints=outputs == "keypoints",
        )
        if set(test.classes) <= set(file.classes):
            test = readiness.reindexed(test, file.classes)
    detector = loaded(file, engine, run)
    run.log.info("%s: task %s, trained by %s", cfg.detector, file.recipe["task"], file.engine)
    run.log.info("engine: %s (%s)", engine, reason)
    _announce(run, test)
    measuring.predict_and_measure(run, detector, test, file, engine=engine)


def loaded(file: DetectorFile, engine: str, run: Run) -> Any:
    """The detector of `file` in `engine`, with `predict_all`.

    Raises:
        ConfigError: it was trained by the other engine, and this one cannot run it.
        UserError: the file does not hold what it names.
    """
    if engine == "detectron2":
        if file.engine != engine:
            file = translation.to_detectron2(file)
            file.config = engine_d2.config_of(file, run)
        return engine_d2.load(file, run)
    file = file if file.engine == engine else translation.to_torchvision(file)
    return engine_tv.load(file, run.device)


def _announce(run: Run, dataset: DetectionDataset) -> None:
    if any(record.labels is not None for record in dataset.records):
        classes = len(dataset.classes)
        run.log.info("%s: %d images, %d classes", dataset.name, len(dataset.records), classes)
        return
    run.log.info(
        "%s: %d images, %d boxes, %d problems reported",
        dataset.name,
        len(dataset.records),
        sum(len(record.boxes) for record in dataset.records),
        len(dataset.skipped),
    )


def choose_engine(asked: str) -> tuple[str, str]:
    """The engine to use and why, for engine=auto, detectron2 or torchvision.

    Raises:
        ConfigError: another word, or Detectron2 where it cannot be imported.
    """
    if asked not in ("auto", "detectron2", "torchvision"):
        raise ConfigError(f"engine={asked}: choose auto, detectron2 or torchvision")
    if asked == "torchvision":
        return asked, "asked for; the detector is Detectron2's to 1e-4, what it draws is not"
    found, problem = installed.version()
    if found:
        return "detectron2", f"version {found}" if asked == "auto" else f"asked for, {found}"
    if asked == "detectron2":
        raise ConfigError(
            f"engine=detectron2: {problem}; install it as {INSTALL} says, or use engine=torchvision"
        )
    return "torchvision", f"{problem}; the detector is Detectron2's to 1e-4, what it draws is not"


def refuse(recipe: DetectionRecipe, engine: str, *, opts: Any = ()) -> None:
    """Raise ConfigError where `engine` cannot do what the recipe, or `opts`, asks for."""
    if engine == "torchvision" and recipe.beyond:
        raise ConfigError(
            f"task={recipe.task} has settings that only Detectron2 knows "
            f"({', '.join(recipe.beyond)}): use engine=detectron2, or detectron2=null to leave "
            "them out"
        )
    if engine == "torchvision" and recipe.norm == "naiveSyncBN":
        raise ConfigError("norm=naiveSyncBN is Detectron2's: use norm=BN, which is shared as well")
    if engine == "torchvision" and opts:
        raise ConfigError("d2_opts are settings of Detectron2: use engine=detectron2")
    d2_opts.check(opts, recipe)
    if opts:
        d2_opts.check_known(opts)


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
    """detection.train and detection.test, looked at before the first step; classes by name."""
    outputs = str(cfg.outputs)
    train, test = (_part(cfg, name, outputs=outputs) for name in ("train", "test"))
    if train is None or test is None:
        raise ConfigError("detection needs data to train and to test on: choose both")
    if cfg.outputs == "semantic":
        return semantic.ready(train, test, max_broken=float(cfg.max_broken))
    if outputs == "keypoints" and cfg.flip:
        check_mirror(train)
    return readiness.ready(
        train,
        test,
        chosen=cfg.detection.get("classes") is not None,
        masks=outputs == "masks",
        max_broken=float(cfg.max_broken),
        keypoints=outputs == "keypoints",
    )


def _classes_of_both(cfg: DictConfig) -> tuple[DetectionDataset, DetectionDataset]:
    """detection.train and detection.test as they are, with their classes by name."""
    train, test = (_part(cfg, name, outputs=str(cfg.outputs)) for name in ("train", "test"))
    if train is None or test is None:
        raise ConfigError("detection needs data to train and to test on: choose both")
    if cfg.outputs == "semantic":
        return train, test
    chosen = cfg.detection.get("classes") is not None
    return train, readiness.matched(train, test, chosen=chosen)


def read_val(
    cfg: DictConfig, train: DetectionDataset, test: DetectionDataset
) -> DetectionDataset | None:
    """detection.val, looked at as the test part is; None where there is none."""
    outputs = str(cfg.outputs)
    val = _part(cfg, "val", outputs=outputs)
    if val is None:
        return None
    if outputs == "semantic":
        val = semantic.measurable(val, train.classes, max_broken=float(cfg.max_broken))
        readiness.warn_of_twins(train, val)
        readiness.warn_of_twins(val, test)
        return val
    val = readiness.matched(train, val, chosen=cfg.detection.get("classes") is not None)
    if outputs == "keypoints":
        check_same(train, val.keypoints.names if val.keypoints else (), val.name)
    val = readiness.measurable(
        val,
        masks=outputs == "masks",
        max_broken=float(cfg.max_broken),
        keypoints=outputs == "keypoints",
    )
    readiness.warn_of_twins(train, val)
    readiness.warn_of_twins(val, test)
    return val


def _part(cfg: DictConfig, name: str, *, outputs: str) -> DetectionDataset | None:
    """detection.train, .val or .test, without masks or keypoints that are not among the `outputs`.

    What .val does not state is as in .test, unless it names a reader of its own.
    """
    node = cfg.detection.get(name)
    if name == "val" and node is not None and "_target_" not in node:
        node = OmegaConf.merge(cfg.detection.test, node)
    optional = [kind for kind in ("masks", "keypoints") if node is not None and kind in node]
    return instantiate(node, **{kind: kind == outputs and node[kind] for kind in optional})
