"""Checks of a Detectron2 config: data sets, learning rate, schedule, statistics after training."""

from collections.abc import Iterator
from typing import Any

from visrep.d2.config_text import OURS
from visrep.d2.lint.config import Config
from visrep.d2.lint.finding import FATAL, NOTE, WARNING, Finding, lines
from visrep.d2.lint.known import classes_of, family, lengths_on, tasks
from visrep.d2.lint.net import is_resnet
from visrep.d2.semantic import FCN_HEAD

# Data set -> the images it is made of; two with a common part share images.
_COCO = {
    "2014_train": "train14",
    "2014_val": "minival valminusminival",
    "2014_minival": "minival",
    "2014_minival_100": "minival",
    "2014_valminusminival": "valminusminival",
    "2017_train": "train14 valminusminival",
    "2017_val": "minival",
    "2017_val_100": "minival",
}
PARTS = {
    f"{kind}coco_{name}": parts for name, parts in _COCO.items() for kind in ("", "keypoints_")
}
for _year in (2007, 2012):
    for _split in ("train", "val", "test"):
        PARTS[f"voc_{_year}_{_split}"] = f"{_year}{_split}"
    PARTS[f"voc_{_year}_trainval"] = f"{_year}train {_year}val"
RATE = 0.02 / 16  # per image of the batch, of Detectron2's R-CNNs; half of it for RetinaNet


def check_data(config: Config) -> Iterator[Finding]:
    """Classes, masks and keypoints against the data sets; training data against test data."""
    train, test = config["DATASETS.TRAIN"], config["DATASETS.TEST"]
    if not train:
        yield Finding(
            WARNING, "no-data", config.shown("DATASETS.TRAIN"), "there is nothing to train on"
        )
    yield from _check_classes(config, [*train, *test])
    trained = {part: name for name in train for part in PARTS.get(name, name).split()}
    for name in test:
        common = sorted(trained[p] for p in PARTS.get(name, name).split() if p in trained)
        if common and not name.startswith(OURS):
            yield Finding(
                FATAL,
                "test-on-train",
                f"DATASETS.TEST {name} shares images with DATASETS.TRAIN {common[0]}",
                "the AP is measured on images that were trained on",
                lines({"DATASETS.TEST": ["voc_2007_test" if "voc" in name else "coco_2017_val"]}),
            )
        elif name.startswith("voc_2012"):
            yield Finding(
                WARNING,
                "voc-year",
                f"DATASETS.TEST is {name}",
                "Detectron2's evaluator takes the 11-point AP for 2007 and the area for 2012; the "
                "published rows are on voc_2007_test and compare with nothing else",
                lines({"DATASETS.TEST": ["voc_2007_test"]}),
            )
    families = [{family(name) for name in names} for names in (train, test)]
    if train and test and not families[0] & families[1]:
        yield Finding(
            WARNING,
            "other-data",
            f"it trains on {train[0]} and tests on {test[0]}",
            "their classes are not the same",
        )
    if "voc" in families[0] and train and not any("2007" in name for name in train):
        yield Finding(
            NOTE,
            "voc-year",
            f"DATASETS.TRAIN is {train}",
            "the published rows train on 2007 trainval, alone or with 2012 trainval",
        )


def _check_classes(config: Config, names: list[Any]) -> Iterator[Finding]:
    architecture = config["MODEL.META_ARCHITECTURE"]
    if architecture not in ("GeneralizedRCNN", "RetinaNet"):
        return
    key = f"MODEL.{'RETINANET' if architecture == 'RetinaNet' else 'ROI_HEADS'}.NUM_CLASSES"
    for name in names:
        count = classes_of(name)
        if count is not None and config[key] != count and "panoptic" not in name:
            fewer = config[key] < count
            yield Finding(
                FATAL if fewer else WARNING,
                "classes",
                f"{config.shown(key)}, and {name} has {count}",
                "a label beyond them stops training with an index error"
                if fewer
                else "the others are never seen; a checkpoint with them fits no other tool",
                lines({key: count}),
            )
            break
    train = config["DATASETS.TRAIN"]
    if config["MODEL.MASK_ON"] and any(name.startswith("voc_") for name in train):
        yield Finding(
            FATAL,
            "masks",
            "MODEL.MASK_ON is True, and Detectron2's VOC data sets have no masks",
            "training stops at the first batch",
            lines({"MODEL.MASK_ON": False}),
        )
    keypoints = config["MODEL.KEYPOINT_ON"]
    if keypoints and not all(name.startswith(("keypoints_", OURS)) for name in train):
        yield Finding(
            FATAL,
            "keypoints",
            f"MODEL.KEYPOINT_ON is True, and {config.shown('DATASETS.TRAIN')}",
            "training stops at the first batch without keypoints",
            lines({"DATASETS.TRAIN": ["keypoints_coco_2017_train"]}),
        )
    if keypoints and config["MODEL.ROI_HEADS.NAME"].startswith("Res5"):
        yield Finding(
            FATAL,
            "keypoints",
            f"MODEL.KEYPOINT_ON is True under {config['MODEL.ROI_HEADS.NAME']}",
            "Detectron2's C4 head has no keypoints and refuses them",
            lines({"MODEL.ROI_HEADS.NAME": "StandardROIHeads"}) + "\nand the FPN's other keys",
        )


def check_rate(config: Config) -> Iterator[Finding]:
    """The learning rate against the batch size, but of the FCN, whose published rate is its own."""
    if _fcn(config):
        return
    batch, rate = config["SOLVER.IMS_PER_BATCH"], config["SOLVER.BASE_LR"]
    half = config["MODEL.META_ARCHITECTURE"] == "RetinaNet"
    expected = RATE * batch / (2 if half else 1)
    share = rate / expected if expected > 0 else 1.0
    if 0.9 <= share <= 1.1:
        return
    times = (
        f"{share:.3g} times" if share > 1 else f"1/{1 / share:.3g} of" if share > 0 else "none of"
    )
    same = [t for t in tasks() if (t.batch_size, t.lr) == (batch, rate)]
    known = f"; task {same[0].task} has it: {same[0].about}" if same else ""
    yield Finding(
        NOTE if 0.6 <= share <= 1.6 else WARNING,
        "learning-rate",
        f"{config.shown('SOLVER.BASE_LR')} at IMS_PER_BATCH {batch}",
        f"that is {times} what the linear rule gives from {0.01 if half else 0.02} at 16{known}",
        lines({"SOLVER.BASE_LR": float(f"{expected:.4g}")}),
    )


def _fcn(config: Config) -> bool:
    return config["MODEL.SEM_SEG_HEAD.NAME"] == FCN_HEAD


def check_schedule(config: Config) -> Iterator[Finding]:
    """Length, drops and warm-up."""
    total, steps = config["SOLVER.MAX_ITER"], config["SOLVER.STEPS"]
    batch, warmup = config["SOLVER.IMS_PER_BATCH"], config["SOLVER.WARMUP_ITERS"]
    if config["SOLVER.LR_SCHEDULER_NAME"] == "WarmupMultiStepLR":
        late = [step for step in steps if step >= total]
        if late:
            default = "" if config.states("SOLVER.STEPS") else ", Detectron2's default,"
            yield Finding(
                WARNING,
                "steps",
                f"SOLVER.STEPS {steps}{default} with MAX_ITER {total}",
                "the learning rate never drops there: "
                + (
                    "at all"
                    if len(late) == len(steps)
                    else f"of {len(steps)} drops {len(late)} come after the end"
                ),
                lines({"SOLVER.STEPS": [round(total * 3 / 4), round(total * 11 / 12)]}),
            )
        elif steps != sorted(steps):
            yield Finding(
                FATAL,
                "steps",
                f"SOLVER.STEPS is {steps}",
                "Detectron2 wants them in order",
                lines({"SOLVER.STEPS": sorted(steps)}),
            )
    if not config.states("SOLVER.MAX_ITER"):
        yield Finding(
            WARNING,
            "length",
            config.shown("SOLVER.MAX_ITER"),
            "that is no published length",
        )
    else:
        yield from _check_length(config)
    if total and warmup > 0.1 * total:
        yield Finding(
            WARNING,
            "warm-up",
            f"SOLVER.WARMUP_ITERS {warmup} of {total} iterations",
            "a tenth of training and more goes by below the learning rate",
            lines({"SOLVER.WARMUP_ITERS": max(1, min(1000, round(0.01 * total)))}),
        )
    if batch < 1 or total < 1:
        yield Finding(
            FATAL, "schedule", f"IMS_PER_BATCH {batch}, MAX_ITER {total}", "there is no training"
        )


def _check_length(config: Config) -> Iterator[Finding]:
    known = lengths_on(config["DATASETS.TRAIN"])
    if known is None or config["SOLVER.REFERENCE_WORLD_SIZE"]:
        return
    batch, total = config["SOLVER.IMS_PER_BATCH"], config["SOLVER.MAX_ITER"]
    usual, lengths = known
    seen = total * batch / usual
    if batch < 1 or total < 1 or any(abs(seen / length - 1) <= 0.05 for length in lengths):
        return
    nearest = min(lengths, key=lambda length: abs(seen - length))
    scale = usual / batch
    unscaled = total in lengths and batch != usual
    wanted = total if unscaled else nearest
    steps = [round(step / total * wanted * scale) for step in config["SOLVER.STEPS"]]
    yield Finding(
        WARNING if unscaled else NOTE,
        "length",
        f"SOLVER.MAX_ITER {total} at IMS_PER_BATCH {batch}",
        (
            f"{total} is the published length for a batch of {usual}; at {batch} it sees "
            f"{batch / usual:.3g} times as many images"
            if unscaled
            else f"no published length on this data: those are {', '.join(map(str, lengths))} "
            f"at {usual}"
        ),
        lines({"SOLVER.MAX_ITER": round(wanted * scale), "SOLVER.STEPS": steps}),
    )


def check_statistics(config: Config) -> Iterator[Finding]:
    """Precise batch norm, which is no part of the FCN's recipe."""
    if not is_resnet(config) or _fcn(config):
        return
    key = "TEST.PRECISE_BN.ENABLED"
    norms = {config["MODEL.RESNETS.NORM"], config["MODEL.FPN.NORM"]}
    trained = norms & {"BN", "SyncBN", "naiveSyncBN", "nnSyncBN"}
    if trained and not config[key]:
        yield Finding(
            WARNING,
            "precise-bn",
            config.shown(key),
            "the running statistics of small batches lag behind the weights; the published recipe "
            "re-estimates them after training",
            lines({key: True}),
        )
    if not trained and config[key]:
        yield Finding(
            NOTE,
            "precise-bn",
            f"{config.shown(key)}, and {config.shown('MODEL.RESNETS.NORM')}",
            "there is no batch norm whose statistics could be re-estimated",
        )
