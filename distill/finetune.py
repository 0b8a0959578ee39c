"""`visrep finetune weights=encoder.safetensors data=scenes labels=0.1 out=DIR`.

Semi-supervised finetuning as in SimCLR v2 (arXiv 2006.10029, and its code): a small class-balanced
share of the labels; the whole network trained with batch norm in training mode, from a chosen layer
of the projection head (`selector`) and with a classifier that starts at zero; LARS without decay,
learning rate c * sqrt(B), cosine to 0 without warm-up; crop and flip only, no label smoothing. The
last state counts, measured on single centre crops.

`init=random` trains the same classifier from scratch, on the same labels, by the same schedule.
"""

from typing import Any

import torch.nn.functional as F
from omegaconf import DictConfig, OmegaConf
from torch import Tensor

from visrep import dist
from visrep.config import instantiate
from visrep.data import identity
from visrep.data.dataset import checked
from visrep.data.order import total_steps
from visrep.data.preprocess import Preprocess
from visrep.data.splits import write_list
from visrep.distill.classifier_training import measure, parameters, trainer_of
from visrep.distill.labels import about_labels, announce, labelled
from visrep.engine.evaluation import (
    input_of,
    require_usable,
    shared_classes,
    warn_of_overlap,
)
from visrep.engine.run import open_run
from visrep.engine.task import Task
from visrep.errors import ConfigError
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.classifier import Classifier
from visrep.nn.heads import MLP
from visrep.nn.resnet import ResNet
from visrep.seeds import seeded
from visrep.weights.encoder_file import EncoderFile, save_encoder
from visrep.weights.foreign import Choice
from visrep.weights.reading import read_weights

# What a null leaves to the share of the labels, see `settle`.
COMPUTED = ("selector", "epochs", "optim.lr")


class Finetune(Task):
    """Cross-entropy of a classifier, mean over the batch, without label smoothing.

    `train_head=False` leaves the weights of the head's layers as they are, which is what the
    authors' TF1 code does (their TF2 code trains them); its running statistics move all the same.
    """

    coupled = False

    def __init__(self, *, classifier: Classifier, train_head: bool = True) -> None:
        super().__init__()
        self.classifier = classifier
        if classifier.head is not None:
            classifier.head.requires_grad_(train_head)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        (x,) = batch["views"]  # N x 3 x H x W
        logits = self.classifier(x).float()  # N x C
        hit = logits.detach().argmax(dim=1) == batch["label"]
        return {
            "loss": F.cross_entropy(logits, batch["label"]),
            "train_top1": 100 * hit.float().mean(),
        }


def starting_point(
    file: EncoderFile, *, classes: int, selector: int, init: str, seed: int
) -> Classifier:
    """The encoder and the first `selector` layers of its projection head, under a zero classifier.

    Args:
        file: of the pretrained encoder.
        selector: 0 discards the head.
        init: pretrained, or random for the same shapes with fresh weights, a function of `seed`.

    Raises:
        ConfigError: the head has fewer layers, or `init` is neither.
    """
    if init not in ("pretrained", "random"):
        raise ConfigError(f"init={init}: choose pretrained or random")
    if file.head is None and selector != 0:
        raise ConfigError(f"selector={selector}: the file holds no projection head; add selector=0")
    depth = 0 if file.head is None else len(file.head["layers"])
    if not 0 <= selector <= depth:
        raise ConfigError(
            f"selector={selector}: the projection head in the file has {depth} layers; choose 0 to "
            f"{depth}"
        )
    with seeded(seed, "encoder"):
        encoder = ResNet(**file.backbone)
        head = None if file.head is None else MLP(**file.head)
    if init == "pretrained":
        encoder.load_state_dict(file.part(""))
        if head is not None:
            head.load_state_dict(file.part("head"))
    return Classifier(encoder=encoder, classes=classes, head=head, layers=selector)


def settle(cfg: DictConfig, *, share: float) -> DictConfig:
    """`cfg`, whose nulls get the values that `cfg.by_share` has for this share of labels.

    They are those of the largest share in the table that is not above `share`. A net from scratch
    has no projection layer of its own accord: it starts from selector 0.

    Raises:
        ConfigError: a setting stays without a value.
    """
    if cfg.init == "random" and cfg.selector is None:
        cfg.selector = 0
    table = {float(key): values for key, values in cfg.by_share.items()}
    # 1 % of ImageNet is 12,811 of 1,281,167 images, a little less than 0.01.
    fitting = [key for key in table if key <= 1.01 * share]
    for key, value in table[max(fitting) if fitting else min(table)].items() if table else ():
        if OmegaConf.select(cfg, str(key)) is None:
            OmegaConf.update(cfg, str(key), value)
    for key in COMPUTED:
        if OmegaConf.select(cfg, key) is None:
            raise ConfigError(f"{key} has no value for {share:.2%} of the labels: add {key}=...")
    return cfg


def resolve(cfg: DictConfig) -> DictConfig:
    """`cfg` with the values that follow from the number of labels; reads the data."""
    train = checked(instantiate(cfg.data.train))
    indices = labelled(train, cfg.labels, draw=int(cfg.draw))
    return settle(cfg, share=len(indices) / len(train))


def main(cfg: DictConfig) -> None:
    """Draw the labels, train, measure, save."""
    run = open_run(cfg, computed=COMPUTED)
    train, test = checked(instantiate(cfg.data.train)), checked(instantiate(cfg.data.test))
    classes, test = shared_classes(train, test)
    file = read_weights(cfg.weights, Choice(prefix=cfg.prefix))
    preprocess = Preprocess.from_dict(file.preprocess)

    require_usable(test, preprocess, max_broken=float(cfg.max_broken))
    warn_of_overlap(train, test)
    indices = labelled(train, cfg.labels, draw=int(cfg.draw))
    run.know_data(identity.of_images(train, indices=indices))
    announce(train, cfg.labels, indices)
    write_list(run.out / "labels.txt", train, indices)
    run.settle(settle(cfg, share=len(indices) / len(train)))
    selector = int(cfg.selector)
    classifier = starting_point(
        file, classes=len(classes), selector=selector, init=cfg.init, seed=run.seed
    )
    set_batchnorm(classifier, mode="sync")

    batch_size = int(cfg.batch_size)
    steps = total_steps(len(indices), epochs=float(cfg.epochs), batch_size=batch_size)
    if batch_size > len(indices):
        run.log.info(
            "batch_size=%d is larger than the %d labelled images: a batch holds an image more than "
            "once, in crops of its own",
            batch_size,
            len(indices),
        )
    trainer = trainer_of(
        Finetune(classifier=classifier, train_head=bool(cfg.train_head)),
        classifier,
        run=run,
        train=train,
        indices=indices,
        views=instantiate(cfg.views, **input_of(preprocess)),
        total_steps=steps,
        label="finetune",
    )
    run.log.info(
        "finetune %s from %s, layer %d of the head: %d labels of %d, %d steps of %d, lr %.4g",
        cfg.init,
        cfg.weights,
        selector,
        len(indices),
        len(train),
        steps,
        batch_size,
        trainer.optimizer.param_groups[0]["lr"],
    )
    trainer.fit()
    if not dist.is_main():
        return
    path = run.out / "encoder.safetensors"
    sha256 = save_encoder(
        path,
        encoder=classifier.encoder,
        preprocess=preprocess,
        head=classifier.head,
        fc=classifier.fc,
        classes=classes,
        source={
            "method": "finetune",
            "command": run.command,
            "init": cfg.init,
            "from": file.sha256,
            "labels": len(indices) / len(train),
            "draw": int(cfg.draw),
        },
    )
    run.record_all(
        measure(
            classifier,
            test,
            preprocess,
            max_broken=float(cfg.max_broken),
            device=run.device,
            workers=int(cfg.workers),
        ),
        task="finetune",
        dataset=test.name,
        of=cfg.init,
        weights=file.sha256,
        init=cfg.init,
        images=len(indices),
        draw=int(cfg.draw),
        selector=selector,
        finetuned=sha256,
        parameters=parameters(classifier),
        bytes=path.stat().st_size,
        **about_labels(train, cfg.labels, indices),
    )
    run.log.info("%s", path)
