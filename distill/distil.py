"""`visrep distill teacher=runs/ft10/encoder.safetensors student=resnet18_small_w8 out=DIR`.

Distillation as in SimCLR v2 (arXiv 2006.10029, section 2): all images, their labels unused, each
cropped and mirrored once for both nets; a frozen teacher in inference mode; a student from scratch
with its classifier, which starts at zero, on the encoder itself. LARS, learning rate
0.1 * sqrt(B) with a linear warm-up over 5 % of the run and a cosine to 0.

`teacher` is an encoder file with a classifier, or the name of a backbone: then `teacher_weights`
names its file, or is the word `random`.
"""

import logging
from pathlib import Path
from typing import Any

import torch
from omegaconf import DictConfig
from torch import Tensor

from visrep import dist
from visrep.config import instantiate
from visrep.data import identity
from visrep.data.classes import in_classes, some
from visrep.data.dataset import ImageDataset, checked
from visrep.data.order import total_steps
from visrep.data.preprocess import Preprocess
from visrep.distill.classifier_training import measure, parameters, trainer_of
from visrep.distill.distillation import Distillation
from visrep.distill.labels import announce, labelled
from visrep.engine.evaluation import input_of, require_usable, warn_of_overlap
from visrep.engine.run import open_run
from visrep.errors import ConfigError
from visrep.groups import choices, named
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.classifier import Classifier
from visrep.nn.resnet import ResNet
from visrep.seeds import seeded
from visrep.weights.encoder_file import save_encoder
from visrep.weights.foreign import Choice
from visrep.weights.reading import load_classifier

log = logging.getLogger("visrep")


def backbone(name: str, *, seed: int, role: str) -> ResNet:
    """A fresh net of `configs/backbone/NAME.yaml`, a function of `seed` and its role."""
    with seeded(seed, role):
        return instantiate(named("backbone", name))


def teacher_from(
    teacher: str,
    weights: str | None,
    *,
    prefix: str | None = None,
    classes: int,
    size: int,
    seed: int,
) -> tuple[Classifier, Preprocess, str]:
    """The teacher, what its input goes through, and its sha256 ("none" for a random one).

    Args:
        teacher: an encoder file with a classifier, or the name of a backbone.
        weights: of a named backbone: the file, whose backbone must be that one, or "random".
        prefix: where the net is in a file of no known format.
        classes, size: of a random teacher.

    Raises:
        ConfigError: `weights` is missing, superfluous, or the file is of another backbone.
        UserError: the file cannot be read or has no classifier.
    """
    is_name = teacher in choices("backbone")
    if not is_name:
        if weights is not None:
            raise ConfigError(
                f"teacher_weights={weights}: teacher={teacher} is a file already; leave it out, or "
                "name a backbone as the teacher"
            )
        if not Path(teacher).exists() and not Path(teacher).suffix:
            named("backbone", teacher)  # raises, with the nearest name
        weights = teacher
    if weights is None:
        raise ConfigError(
            f"teacher={teacher} is a backbone without weights: add teacher_weights=FILE (a "
            "finetuned net), or teacher_weights=random to try things out"
        )
    if weights == "random":
        if prefix is not None:
            raise ConfigError(f"prefix={prefix} is a place in the teacher's file: leave it out")
        encoder = backbone(teacher, seed=seed, role="teacher")
        with seeded(seed, "teacher", "classifier"):
            net = Classifier(encoder=encoder, classes=classes, zero_init=False)
        plain = Preprocess(size=size, resize=None, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
        return net, plain, "none"
    loaded = load_classifier(weights, Choice(prefix=prefix))
    if is_name:
        with torch.device("meta"):
            wanted = instantiate(named("backbone", teacher)).spec
        if loaded.encoder.spec != wanted:
            raise ConfigError(
                f"{weights} holds a backbone {loaded.encoder.spec}, but teacher={teacher} is "
                f"{wanted}: name the right one"
            )
    return loaded, loaded.preprocess, loaded.sha256


def known_labels(train: ImageDataset, labels: float | str, *, draw: int) -> Tensor:
    """N int64: the label of every image whose label may be used, -1 for the others."""
    if train.labels is None:
        raise ConfigError(f"alpha < 1 needs labels, and {train.name} has none: set alpha=1")
    indices = labelled(train, labels, draw=draw)
    announce(train, labels, indices)
    return torch.full_like(train.labels, -1).index_copy_(0, indices, train.labels[indices])


def teachers_classes(
    teacher: Classifier, *parts: ImageDataset | None
) -> tuple[list[str] | None, list[Any]]:
    """The names of the teacher's outputs, and the `parts` of the data with these as their classes.

    A teacher whose file names no classes is taken to have those of the data, in their order.

    Raises:
        ConfigError: the data have classes that the teacher does not know, or another number.
    """
    outputs = teacher.fc.out_features
    names: list[str] | None = getattr(teacher, "classes", None)
    of = "the teacher's file"
    if names is None:
        named_part = next((part for part in parts if part is not None and part.classes), None)
        if named_part is None:
            return None, list(parts)
        names, of = named_part.classes or [], named_part.name
        log.warning(
            "warning: the teacher does not say what its %d outputs stand for: they are taken for "
            "the %d classes of %s in their order: %s",
            outputs,
            len(names),
            of,
            some(names),
        )
    if len(names) != outputs:
        raise ConfigError(
            f"the teacher's {outputs} classes are not the {len(names)} of {of}: finetune it on "
            "this data, or choose the data it was finetuned on"
        )
    return names, [
        part if part is None or part.labels is None else in_classes(part, names, of="the teacher")
        for part in parts
    ]


def resolve(cfg: DictConfig) -> DictConfig:
    """`cfg` with the number of steps, which follows from that of the images; reads the data."""
    return settle(cfg, images=len(checked(instantiate(cfg.data.train))))


def settle(cfg: DictConfig, *, images: int) -> DictConfig:
    """`cfg`, whose `steps`, where null, are those of its epochs."""
    if cfg.steps is None:
        cfg.steps = total_steps(images, epochs=float(cfg.epochs), batch_size=int(cfg.batch_size))
    return cfg


def main(cfg: DictConfig) -> None:
    """Build both nets, train the student, measure both, save the student."""
    run = open_run(cfg, computed=["steps"])
    train, test = checked(instantiate(cfg.data.train)), checked(instantiate(cfg.data.test))
    alpha = float(cfg.alpha)
    names = train.classes or (None if test is None else test.classes)
    teacher, preprocess, teacher_sha256 = teacher_from(
        cfg.teacher,
        cfg.teacher_weights,
        prefix=cfg.prefix,
        classes=len(names) if names else int(cfg.classes),
        size=int(cfg.size),
        seed=run.seed,
    )
    images = train  # under the classes of their own
    known, (train, test) = teachers_classes(teacher, train, test)
    labels = known_labels(train, cfg.labels, draw=int(cfg.draw)) if alpha < 1 else None
    run.know_data(identity.of_images(images, labels=labels))
    run.settle(settle(cfg, images=len(train)))
    if test is not None:
        require_usable(test, preprocess, max_broken=float(cfg.max_broken))
        warn_of_overlap(train, test)
    student = Classifier(
        encoder=backbone(cfg.student, seed=run.seed, role="student"),
        classes=teacher.fc.out_features,
    )
    set_batchnorm(student, mode="sync")
    teacher.to(run.device).to(memory_format=torch.channels_last)
    task = Distillation(
        teacher=teacher,
        student=student,
        temperature=float(cfg.temperature),
        alpha=alpha,
        tau_squared=bool(cfg.tau_squared),
        labels=labels,
    )
    trainer = trainer_of(
        task,
        student,
        run=run,
        train=train,
        views=instantiate(cfg.views, **input_of(preprocess)),
        total_steps=int(cfg.steps),
        label="distil",
    )
    run.log.info(
        "distil %s (%s parameters) into %s (%s): %d images of %s, %d steps of %d, lr %.4g",
        cfg.teacher,
        f"{parameters(teacher):,}",
        cfg.student,
        f"{parameters(student):,}",
        len(train),
        train.name,
        cfg.steps,
        cfg.batch_size,
        trainer.optimizer.param_groups[0]["lr"],
    )
    trainer.fit()
    if not dist.is_main():
        return
    path = run.out / "encoder.safetensors"
    sha256 = save_encoder(
        path,
        encoder=student.encoder,
        preprocess=preprocess,
        fc=student.fc,
        classes=known,
        source={"method": "distill", "command": run.command, "teacher": teacher_sha256},
    )
    run.log.info("%s", path)
    if test is None or test.labels is None:
        run.log.info("no labelled test set: nothing is measured")
        return
    weights_file = cfg.teacher if cfg.teacher_weights is None else cfg.teacher_weights
    for role, net, digest, file in (
        ("teacher", teacher, teacher_sha256, Path(weights_file)),
        ("student", student, sha256, path),
    ):
        run.record_all(
            measure(
                net,
                test,
                preprocess,
                max_broken=float(cfg.max_broken),
                device=run.device,
                workers=int(cfg.workers),
            ),
            task="distill",
            dataset=test.name,
            of=f"the {role}",
            weights=digest,
            init="random" if digest == "none" else "pretrained",
            role=role,
            teacher=teacher_sha256,
            temperature=float(cfg.temperature),
            alpha=alpha,
            parameters=parameters(net),
            bytes=file.stat().st_size if file.is_file() else None,
        )
