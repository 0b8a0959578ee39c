"""`visrep pretrain`: from a yaml to objects to the training loop to an encoder file."""

from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from visrep import dist
from visrep.config import instantiate
from visrep.data.datasets import ImageDataset
from visrep.data.loader import Loader
from visrep.data.preprocess import Preprocess
from visrep.data.views.batch import Views
from visrep.engine import optim
from visrep.engine.extraction import extract
from visrep.engine.health import Health
from visrep.engine.hooks import Evaluate
from visrep.engine.run import Run, open_run
from visrep.engine.trainer import Trainer
from visrep.errors import ConfigError
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.nn.knn import knn_predict
from visrep.pretrain.checks import check
from visrep.pretrain.method import Plan
from visrep.seeds import derive_seed
from visrep.weights.encoder_file import save_encoder
from visrep.weights.exemplar_file import save_exemplar


def main(cfg: DictConfig) -> None:
    """Pretrain as `cfg` says; leaves `encoder.safetensors` in the run folder."""
    run = open_run(cfg)
    torch.manual_seed(derive_seed(run.seed, "weights"))
    encoder = instantiate(cfg.backbone)
    train: ImageDataset = instantiate(cfg.data.train)
    # A method with a memory of every image (NPID) is told how many there are.
    counts = {"images": len(train)} if cfg.method.get("images", 0) is None else {}
    task = instantiate(cfg.method, encoder=encoder, **counts)
    _set_batchnorm(task, cfg, run)

    views: Views = instantiate(cfg.views)
    # Surrogate classes (Exemplar-CNN) have a loader of their own, which first draws their seeds.
    make_loader = getattr(views, "loader", Loader)
    loader = make_loader(
        train,
        views=views,
        batch_size=cfg.batch_size // cfg.accumulate,
        seed=run.seed,
        workers=cfg.workers,
        device=run.device,
        max_broken=cfg.max_broken,
    )
    steps_per_epoch = max(1, loader.steps_per_epoch // cfg.accumulate)
    total = round(cfg.epochs * steps_per_epoch) if cfg.steps is None else cfg.steps
    preprocess = _preprocess(train, views)
    if total == 0:
        run.log.info("steps=0: the encoder file of the untrained net, a baseline")
        _export(run, cfg, task, encoder, preprocess, train)
        return
    optimizer, schedule = optim.build(
        task,
        **run.config["optim"],
        batch_size=cfg.batch_size,
        steps_per_epoch=steps_per_epoch,
        total_steps=total,
    )
    plan = Plan(
        batch_size=cfg.batch_size,
        views=len(views.views),
        images=getattr(views, "classes", len(train)),
        steps=total,
    )
    for line in check(task, cfg, plan, views=views.views, steps_per_epoch=steps_per_epoch):
        run.log.warning("warning: %s", line)
    _announce(run, cfg, train, total, optimizer)

    hooks = []
    monitor = _knn_monitor(cfg, run, encoder, train, preprocess)
    if monitor is not None:
        hooks.append(Evaluate(monitor, every=max(1, total // cfg.knn.times)))
    trainer = Trainer(
        task=task,
        optimizer=optimizer,
        schedule=schedule,
        batches=loader,
        total_steps=total,
        out=run.out,
        device=run.device,
        precision=cfg.precision,
        health=_health(task, cfg, steps_per_epoch),
        accumulate=cfg.accumulate,
        snapshot_every=cfg.snapshot_every or steps_per_epoch,
        log_every=cfg.log_every,
        hooks=hooks,
        writers=run.writers(total=total, label=f"pretrain {cfg.name}"),
    )
    metrics = trainer.fit()
    if dist.is_main():
        sha256 = _export(run, cfg, task, encoder, preprocess, train)
        for metric in ("loss", "images_per_s"):
            run.record(
                task="pretrain",
                dataset=train.name,
                metric=metric,
                value=metrics[metric],
                weights=sha256,
                method=cfg.name,
            )


def _set_batchnorm(task: nn.Module, cfg: DictConfig, run: Run) -> None:
    """Batch statistics as the method's paper has them, or as `batchnorm=` says."""
    wanted = str(task.batchnorm) if cfg.batchnorm == "auto" else cfg.batchnorm
    if wanted == "shuffle":
        if dist.world_size() > 1:
            wanted = "local"
        else:
            wanted = "split"
            run.log.info(
                "batch norm: one process, so the batch is split into %d groups with statistics of "
                "their own, as %d processes would have (shuffled for the keys)",
                cfg.bn_splits,
                cfg.bn_splits,
            )
    if wanted == "split" and cfg.batch_size % cfg.bn_splits:
        raise ConfigError(
            f"batch_size={cfg.batch_size} does not divide into bn_splits={cfg.bn_splits} groups"
        )
    if wanted not in ("sync", "local", "split"):
        raise ConfigError(f"batchnorm={wanted}: choose auto, sync, local, shuffle or split")
    set_batchnorm(task, mode=wanted, groups=cfg.bn_splits if wanted == "split" else 1)


def _health(task: Any, cfg: DictConfig, steps_per_epoch: int) -> Health | None:
    if cfg.health not in ("stop", "warn", "off"):
        raise ConfigError(f"health={cfg.health}: choose stop, warn or off")
    if cfg.health == "off":
        return None
    return Health(
        levels=task.reference_levels(cfg.batch_size),
        # A memory of an epoch (NPID's bank, SwAV's frozen prototypes) needs one to mean anything.
        patience=max(500, 2 * steps_per_epoch),
        warmup=round(cfg.optim.warmup_epochs * steps_per_epoch),
        stop=cfg.health == "stop",
    )


def _preprocess(train: ImageDataset, views: Views) -> Preprocess:
    """How images are to be shown to the finished encoder: the views' normalisation, no jitter."""
    size = views.views[0].size
    small = train.images is not None and tuple(train.images.shape[-2:]) == (size, size)
    return Preprocess(
        size=size,
        resize=None if small else round(size * 256 / 224),
        mean=views.mean,
        std=views.std,
        interpolation=views.views[0].interpolation,
    )


def _announce(
    run: Run,
    cfg: DictConfig,
    train: ImageDataset,
    total: int,
    optimizer: torch.optim.Optimizer,
) -> None:
    run.log.info(
        "%s on %s: %d images, batch %d total, %d per process%s, %d steps, peak learning rate %.4g, "
        "%s",
        cfg.name,
        train.name,
        len(train),
        cfg.batch_size,
        cfg.batch_size // dist.world_size(),
        f", accumulated over {cfg.accumulate}" if cfg.accumulate > 1 else "",
        total,
        optimizer.param_groups[0]["lr"],
        run.device,
    )


def _knn_monitor(
    cfg: DictConfig, run: Run, encoder: nn.Module, train: ImageDataset, preprocess: Preprocess
) -> Any:
    """A function that measures kNN top-1 on the test part, or None with one line that says why."""
    if not cfg.knn.times or not dist.is_main():
        return None
    test: ImageDataset | None = instantiate(cfg.data.test)
    if train.labels is None or test is None or test.labels is None or train.classes is None:
        run.log.info("kNN monitor: off, there are no labels")
        return None
    classes, labels, truth = len(train.classes), train.labels, test.labels
    # An even draw of the training set keeps the monitor cheap on large data.
    bank = torch.linspace(0, len(train) - 1, min(cfg.knn.bank, len(train))).long().unique()

    def monitor() -> dict[str, float]:
        encoder.eval()
        features, bank_features = (
            extract(encoder, data, preprocess, device=run.device, indices=indices)
            for data, indices in ((test, None), (train, bank))
        )
        predicted = knn_predict(
            bank_features,
            labels[bank],
            features,
            k=min(cfg.knn.k, len(bank)),
            temperature=cfg.knn.temperature,
            classes=classes,
        )
        return {"knn": 100 * float(predicted.cpu().eq(truth).float().mean())}

    return monitor


def _export(
    run: Run,
    cfg: DictConfig,
    task: nn.Module,
    encoder: Any,
    preprocess: Preprocess,
    train: ImageDataset,
) -> str:
    path = run.out / "encoder.safetensors"
    source = {"method": cfg.name, "command": run.command, "data": train.name, "seed": run.seed}
    if isinstance(encoder, ExemplarNet):
        sha256 = save_exemplar(path, net=encoder, preprocess=preprocess, source=source)
    else:
        sha256 = save_encoder(
            path,
            encoder=encoder,
            preprocess=preprocess,
            head=getattr(task, "head", None),
            source=source,
        )
    run.log.info("wrote %s (sha256 %s)", path, sha256[:12])
    return sha256
