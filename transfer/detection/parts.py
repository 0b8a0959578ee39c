"""The parts of the data of a detector, looked at before it is trained or measured."""

from omegaconf import DictConfig, OmegaConf

from visrep.config import instantiate
from visrep.data.detection import DetectionDataset, readiness
from visrep.data.detection.keypoints import check_mirror, check_same
from visrep.data.semantic import readiness as semantic
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.transfer.detection.detector_file import DetectorFile


def read_both(cfg: DictConfig) -> tuple[DetectionDataset, DetectionDataset]:
    """detection.train and detection.test, with all that `readiness.ready` makes sure of."""
    outputs = str(cfg.outputs)
    train, test = _both(cfg)
    if outputs == "semantic":
        return semantic.ready(train, test, max_broken=float(cfg.max_broken))
    if outputs == "keypoints" and cfg.flip:
        check_mirror(train)
    return readiness.ready(
        train,
        test,
        chosen=_chosen(cfg),
        masks=outputs == "masks",
        max_broken=float(cfg.max_broken),
        keypoints=outputs == "keypoints",
    )


def unlooked(cfg: DictConfig) -> tuple[DetectionDataset, DetectionDataset]:
    """detection.train and detection.test by their annotations alone, with their classes by name."""
    train, test = _both(cfg)
    if cfg.outputs == "semantic":
        return train, test
    return train, readiness.matched(train, test, chosen=_chosen(cfg))


def read_val(
    cfg: DictConfig, train: DetectionDataset, test: DetectionDataset
) -> DetectionDataset | None:
    """detection.val, looked at as the test part is; None where there is none."""
    outputs = str(cfg.outputs)
    val = _part(cfg, "val", outputs=outputs)
    if val is None:
        return None
    if outputs != "semantic":
        val = readiness.matched(train, val, chosen=_chosen(cfg))
    if outputs == "keypoints":
        check_same(train, val.keypoints.names if val.keypoints else (), val.name)
    val = _measurable(cfg, val, train.classes, outputs=outputs)
    if val.classes != train.classes:  # only of pixels: those of boxes are matched by name
        raise ConfigError(
            f"{val.name} has the classes of {train.name} in another order: give one to both as "
            f"detection.classes=[{train.classes[0]},...]"
        )
    readiness.warn_of_twins(train, val)
    readiness.warn_of_twins(val, test)
    return val


def read_test(cfg: DictConfig, file: DetectorFile) -> DetectionDataset:
    """detection.test, as the kept detector of `file` can be measured on it."""
    outputs = str(file.recipe["outputs"])
    test = _part(cfg, "test", outputs=outputs)
    if test is None:
        raise ConfigError("a detector is measured on detection.test: choose data that have it")
    if outputs == "keypoints":
        check_same(test, file.keypoints["names"], "the detector")
    test = _measurable(cfg, test, file.classes, outputs=outputs)
    if outputs != "semantic" and set(test.classes) <= set(file.classes):
        test = readiness.reindexed(test, file.classes)
    return test


def announce(run: Run, dataset: DetectionDataset) -> None:
    """Log what is in a part."""
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


def _both(cfg: DictConfig) -> tuple[DetectionDataset, DetectionDataset]:
    train, test = (_part(cfg, name, outputs=str(cfg.outputs)) for name in ("train", "test"))
    if train is None or test is None:
        raise ConfigError("detection needs data to train and to test on: choose both")
    return train, test


def _chosen(cfg: DictConfig) -> bool:
    """Has the user named the classes?"""
    return cfg.detection.get("classes") is not None


def _measurable(
    cfg: DictConfig, dataset: DetectionDataset, classes: list[str], *, outputs: str
) -> DetectionDataset:
    if outputs == "semantic":
        return semantic.measurable(dataset, classes, max_broken=float(cfg.max_broken))
    return readiness.measurable(
        dataset,
        masks=outputs == "masks",
        max_broken=float(cfg.max_broken),
        keypoints=outputs == "keypoints",
    )


def _part(cfg: DictConfig, name: str, *, outputs: str) -> DetectionDataset | None:
    """detection.train, .val or .test, without masks or keypoints that are not among the `outputs`.

    What .val does not state is as in .test, unless it names a reader of its own.
    """
    node = cfg.detection.get(name)
    if name == "val" and node is not None and "_target_" not in node:
        node = OmegaConf.merge(cfg.detection.test, node)
    optional = [kind for kind in ("masks", "keypoints") if node is not None and kind in node]
    return instantiate(node, **{kind: kind == outputs and node[kind] for kind in optional})
