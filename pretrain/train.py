"""`visrep pretrain`: from a yaml to objects to the training loop to an encoder file."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from visrep import dist, files
from visrep.config import instantiate
from visrep.data.dataset import ImageDataset, checked
from visrep.data.loader import Loader
from visrep.data.preprocess import Preprocess
from visrep.data.views.batch import Views
from visrep.engine.assembly import assemble
from visrep.engine.extraction import extract
from visrep.engine.health import Health
from visrep.engine.hooks import Evaluate
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.nn.knn import knn_predict
from visrep.nn.resnet import ResNet
from visrep.pretrain.checks import check
from visrep.pretrain.method import Method, Plan, require_contract
from visrep.seeds import derive_seed
from visrep.weights.encoder_file import save_encoder
from visrep.weights.exemplar_file import save_exemplar
from visrep.weights.formats import visrep_snapshot

# What a null leaves to the length of an epoch.
COMPUTED = ("steps", "snapshot_every")


def main(cfg: DictConfig) -> None:
    """Pretrain as `cfg` says; leaves `encoder.safetensors` in the run folder."""
    run = open_run(cfg, computed=COMPUTED)
    parts = build(
        cfg,
        run,
        batch_size=cfg.batch_size // cfg.accumulate,
        workers=cfg.workers,
        max_broken=cfg.max_broken,
    )
    task, train, views, loader = parts.task, parts.data, parts.views, parts.loader
    steps_per_epoch = updates_in_epoch(cfg, loader)
    run.settle(settle(cfg, steps_per_epoch=steps_per_epoch))
    total = cfg.steps
    preprocess = _preprocess(train, views)
    if total == 0:
        run.log.info("steps=0: the encoder file of the untrained net, a baseline")
        _export(run, cfg, task, preprocess, train)
        return
    plan = Plan(
        batch_size=cfg.batch_size,
        views=len(views.views),
        images=getattr(views, "classes", len(train)),
        steps=total,
    )
    for line in check(task, cfg, plan, views=views.views, steps_per_epoch=steps_per_epoch):
        run.log.warning("warning: %s", line)
    hooks = []
    _describe(run, cfg, task, preprocess, train)
    monitor = _knn_monitor(cfg, run, task.encoder, train, preprocess)
    if monitor is not None:
        hooks.append(Evaluate(monitor, every=max(1, total // cfg.knn.times)))
    trainer = assemble(
        task,
        run=run,
        batches=loader,
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        label=f"pretrain {cfg.name}",
        health=_health(task, cfg, steps_per_epoch),
        hooks=hooks,
    )
    _announce(run, cfg, train, total, trainer.optimizer)
    metrics = trainer.fit()
    if dist.is_main():
        sha256 = _export(run, cfg, task, preprocess, train)
        for metric in ("loss", "images_per_s"):
            run.record(
                task="pretrain",
                dataset=train.name,
                metric=metric,
                value=metrics[metric],
                weights=sha256,
                method=cfg.name,
                title=task.title,
            )


def resolve(cfg: DictConfig) -> DictConfig:
    """`cfg` with the values that follow from the length of an epoch; reads the data."""
    loader = make_loader(
        instantiate(cfg.data.train),
        instantiate(cfg.views),
        seed=cfg.seed,
        device="cpu",
        batch_size=cfg.batch_size // cfg.accumulate,
    )
    return settle(cfg, steps_per_epoch=updates_in_epoch(cfg, loader))


def settle(cfg: DictConfig, *, steps_per_epoch: int) -> DictConfig:
    """`cfg`, whose `COMPUTED` nulls get their values."""
    if cfg.steps is None:
        cfg.steps = round(cfg.epochs * steps_per_epoch)
    if cfg.snapshot_every is None:
        cfg.snapshot_every = steps_per_epoch
    return cfg


def updates_in_epoch(cfg: DictConfig, loader: Loader) -> int:
    """Updates of an epoch; an epoch of fewer micro-batches than make an update is one."""
    return max(1, loader.steps_per_epoch // cfg.accumulate)


def make_loader(data: ImageDataset, views: Views, **settings: Any) -> Loader:
    """Batches of `views` of `data`; `settings` are the loader's.

    Surrogate classes (Exemplar-CNN) have a loader of their own, which first draws their seeds.
    """
    return getattr(views, "loader", Loader)(data, views=views, **settings)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run trains, and on what."""

    task: Method
    data: ImageDataset
    views: Views
    loader: Loader


def build(cfg: DictConfig, run: Run, **loading: Any) -> Parts:
    """The method that `cfg` names, on the batches of its views; `loading` is the loader's.

    Raises:
        ConfigError: the method breaks its contract, or the batch does not fit its batch norm.
    """
    data: ImageDataset = checked(instantiate(cfg.data.train))
    torch.manual_seed(derive_seed(run.seed, "weights"))
    task = make_method(cfg, images=len(data))
    _set_batchnorm(task, cfg, run)
    views: Views = instantiate(cfg.views)
    loader = make_loader(data, views, seed=run.seed, device=run.device, **loading)
    return Parts(task=task, data=data, views=views, loader=loader)


def make_method(cfg: DictConfig, *, images: int) -> Method:
    """The method of `cfg` around its backbone, for a training set of `images`.

    Raises:
        ConfigError: it breaks the contract of methods.
    """
    # A method with a memory of every image (NPID) is told how many there are.
    counts = {"images": images} if cfg.method.get("images", 0) is None else {}
    task = instantiate(cfg.method, encoder=instantiate(cfg.backbone), **counts)
    require_contract(task, batch_size=cfg.batch_size)
    return task


def _set_batchnorm(task: Method, cfg: DictConfig, run: Run) -> None:
    """Batch statistics as the method's paper has them, or as `batchnorm=` says."""
    wanted = task.batchnorm if cfg.batchnorm == "auto" else cfg.batchnorm
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


def _health(task: Method, cfg: DictConfig, steps_per_epoch: int) -> Health | None:
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
    test: ImageDataset | None = checked(instantiate(cfg.data.test))
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


def _describe(
    run: Run, cfg: DictConfig, task: Method, preprocess: Preprocess, train: ImageDataset
) -> None:
    """Write down what net the snapshots hold, so that each can become an encoder file."""
    if not isinstance(task.encoder, ResNet) or not dist.is_main():
        return
    about = {
        "backbone": dict(task.encoder.spec),
        "preprocess": preprocess.to_dict(),
        "head": None if task.head is None else task.head.spec,
        "source": _source(run, cfg, train),
    }
    files.write_text(run.out / visrep_snapshot.DESCRIPTION, json.dumps(about, indent=1))


def _source(run: Run, cfg: DictConfig, train: ImageDataset) -> dict[str, Any]:
    return {"method": cfg.name, "command": run.command, "data": train.name, "seed": run.seed}


def _export(
    run: Run, cfg: DictConfig, task: Method, preprocess: Preprocess, train: ImageDataset
) -> str:
    path = run.out / "encoder.safetensors"
    about: Any = {"preprocess": preprocess, "source": _source(run, cfg, train)}
    if isinstance(task.encoder, ExemplarNet):
        sha256 = save_exemplar(path, net=task.encoder, **about)
    else:
        sha256 = save_encoder(path, encoder=task.encoder, head=task.head, **about)
    run.log.info("wrote %s (sha256 %s)", path, sha256[:12])
    return sha256
