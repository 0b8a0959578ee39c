"""`visrep pretrain`: from a yaml to objects to the training loop to an encoder file."""

import json
from dataclasses import dataclass
from typing import Any

import torch
from omegaconf import DictConfig
from torch import nn

from visrep import dist, files
from visrep.config import instantiate
from visrep.data import identity
from visrep.data.dataset import ImageDataset, checked
from visrep.data.loader import Loader
from visrep.data.order import total_steps
from visrep.data.preprocess import Preprocess
from visrep.data.views.batch import Views
from visrep.engine.assembly import assemble
from visrep.engine.health import Health
from visrep.engine.hooks import Hook
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.nn.batchnorm import set_batchnorm
from visrep.nn.exemplar_nets import ExemplarNet
from visrep.nn.resnet import ResNet
from visrep.pretrain.beginning import begin_from
from visrep.pretrain.checks import check, same_picture
from visrep.pretrain.method import Method, Plan, require_contract
from visrep.pretrain.monitor import knn_monitor
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
        continuous=cfg.continuous,
        workers=cfg.workers,
        max_broken=cfg.max_broken,
    )
    task, train, views, loader = parts.task, parts.data, parts.views, parts.loader
    run.know_data(identity.of_images(train), fixed=remembers(cfg, views), classes=False)
    steps_per_epoch = updates_in_epoch(cfg, loader)
    run.settle(settle(cfg, loader))
    total = cfg.steps
    preprocess = _preprocess(train, views)
    if total == 0:
        run.log.info("steps=0: the encoder file of the untrained net, a baseline")
        _export(run, cfg, parts, preprocess)
        return
    plan = Plan(
        batch_size=cfg.batch_size,
        views=len(views.views),
        images=getattr(views, "classes", len(train)),
        steps=total,
    )
    warnings = check(task, cfg, plan, views=views.views, steps_per_epoch=steps_per_epoch)
    for line in (*warnings, *same_picture(train)):
        run.log.warning("warning: %s", line)
    _describe(run, cfg, parts, preprocess)
    trainer = assemble(
        task,
        run=run,
        batches=loader,
        total_steps=total,
        steps_per_epoch=steps_per_epoch,
        label=f"pretrain {cfg.name}",
        health=_health(task, cfg, steps_per_epoch),
        hooks=_monitor(cfg, run, task.encoder, train, preprocess),
    )
    _announce(run, cfg, train, total, trainer.optimizer)
    metrics = trainer.fit()
    if dist.is_main():
        sha256 = _export(run, cfg, parts, preprocess)
        for metric in ("loss", "images_per_s"):
            if metric not in metrics:  # of a run that ended in another try, and whose log is lost
                continue
            run.record(
                task="pretrain",
                dataset=train.name,
                metric=metric,
                value=metrics[metric],
                weights=sha256,
                method=cfg.name,
                title=task.title,
            )


def remembers(cfg: DictConfig, views: Views) -> str:
    """Why a run cannot go on with other images: it knows each by its number; "" where it can."""
    if "images" in cfg.method:
        return f"{cfg.name} has a memory of every image"
    if hasattr(views, "classes"):
        return f"every class of {cfg.name} is an image"
    return ""


def resolve(cfg: DictConfig) -> DictConfig:
    """`cfg` with the values that follow from the length of an epoch; reads the data."""
    loader = make_loader(
        instantiate(cfg.data.train),
        instantiate(cfg.views),
        seed=cfg.seed,
        device="cpu",
        batch_size=cfg.batch_size // cfg.accumulate,
        continuous=cfg.continuous,
    )
    return settle(cfg, loader)


def settle(cfg: DictConfig, loader: Loader) -> DictConfig:
    """`cfg`, whose `COMPUTED` nulls get their values."""
    steps_per_epoch = updates_in_epoch(cfg, loader)
    if cfg.steps is None and cfg.continuous:
        images = loader.order.size
        cfg.steps = total_steps(images, epochs=float(cfg.epochs), batch_size=int(cfg.batch_size))
    elif cfg.steps is None:
        cfg.steps = round(cfg.epochs * steps_per_epoch)
    if cfg.snapshot_every is None:
        cfg.snapshot_every = max(1, round(steps_per_epoch))
    return cfg


def updates_in_epoch(cfg: DictConfig, loader: Loader) -> float:
    """Updates of an epoch; an epoch of fewer micro-batches than make an update is one.

    Where batches run on over the ends of epochs, it is no whole number.
    """
    if cfg.continuous:
        return loader.order.size / cfg.batch_size
    return max(1, loader.steps_per_epoch // cfg.accumulate)


def make_loader(data: ImageDataset, views: Views, **settings: Any) -> Loader:
    """Batches of `views` of `data`; `settings` are the loader's.

    Surrogate classes (Exemplar-CNN) have a loader of their own, which first draws their seeds; its
    batches always run on over the ends of epochs, which are counted as full batches.
    """
    own = getattr(views, "loader", None)
    if own is None:
        loader = Loader(data, views=views, **settings)
        # Of the same image twice in a batch, a loss would make negatives.
        if loader.batch_size > loader.order.size:
            raise ConfigError(
                f"batch_size={loader.batch_size} is larger than the data: {data.name} has "
                f"{loader.order.size} images; choose a smaller batch"
            )
        return loader
    if settings.pop("continuous", False):
        raise ConfigError("continuous=true: surrogate classes are read so anyway; leave it out")
    return own(data, views=views, **settings)


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a run trains, and on what."""

    task: Method
    data: ImageDataset
    views: Views
    loader: Loader
    begun_from: str | None  # sha256 of `init_weights`


def build(cfg: DictConfig, run: Run, **loading: Any) -> Parts:
    """The method that `cfg` names, on the batches of its views; `loading` is the loader's.

    Raises:
        ConfigError: the method breaks its contract, or the batch does not fit its batch norm.
    """
    data: ImageDataset = checked(instantiate(cfg.data.train))
    torch.manual_seed(derive_seed(run.seed, "weights"))
    views: Views = instantiate(cfg.views)
    encoder, begun_from = instantiate(cfg.backbone), None
    if cfg.get("init_weights") is not None:
        # Before the method is made: some copy their encoder.
        begun_from = begin_from(
            encoder, cfg.init_weights, views=views, prefix=cfg.get("init_prefix")
        )
    elif cfg.get("init_prefix") is not None:
        raise ConfigError(f"init_prefix={cfg.init_prefix} is a place in init_weights=: give both")
    task = make_method(cfg, images=len(data), encoder=encoder)
    _set_batchnorm(task, cfg, run)
    loader = make_loader(data, views, seed=run.seed, device=run.device, **loading)
    return Parts(task=task, data=data, views=views, loader=loader, begun_from=begun_from)


def make_method(cfg: DictConfig, *, images: int, encoder: nn.Module | None = None) -> Method:
    """The method of `cfg` around `encoder` (None: its backbone), for a training set of `images`.

    Raises:
        ConfigError: it breaks the contract of methods.
    """
    # A method with a memory of every image (NPID) is told how many there are.
    counts = {"images": images} if cfg.method.get("images", 0) is None else {}
    encoder = instantiate(cfg.backbone) if encoder is None else encoder
    task = instantiate(cfg.method, encoder=encoder, **counts)
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


def _health(task: Method, cfg: DictConfig, steps_per_epoch: float) -> Health | None:
    if cfg.health not in ("stop", "warn", "off"):
        raise ConfigError(f"health={cfg.health}: choose stop, warn or off")
    if cfg.health == "off":
        return None
    return Health(
        levels=task.reference_levels(cfg.batch_size),
        # A memory of an epoch (NPID's bank, SwAV's frozen prototypes) needs one to mean anything.
        patience=max(500, round(2 * steps_per_epoch)),
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
        antialias=views.views[0].antialias,
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


def _monitor(
    cfg: DictConfig, run: Run, encoder: nn.Module, train: ImageDataset, preprocess: Preprocess
) -> list[Hook]:
    """The kNN monitor, or nothing and one line that says why."""
    if not cfg.knn.times:
        return []
    monitor = knn_monitor(
        lambda: checked(instantiate(cfg.data.test)),
        encoder=encoder,
        train=train,
        preprocess=preprocess,
        device=run.device,
        workers=int(cfg.workers),
        max_broken=float(cfg.max_broken),
        **cfg.knn,
    )
    return [] if monitor is None else [monitor]


def _describe(run: Run, cfg: DictConfig, parts: Parts, preprocess: Preprocess) -> None:
    """Write down what net the snapshots hold, so that each can become an encoder file."""
    task = parts.task
    if not isinstance(task.encoder, ResNet) or not dist.is_main():
        return
    about = {
        "backbone": dict(task.encoder.spec),
        "preprocess": preprocess.to_dict(),
        "head": None if task.head is None else task.head.spec,
        "source": _source(run, cfg, parts),
    }
    files.write_text(run.out / visrep_snapshot.DESCRIPTION, json.dumps(about, indent=1))


def _source(run: Run, cfg: DictConfig, parts: Parts) -> dict[str, Any]:
    source = {
        "method": cfg.name,
        "command": run.command,
        "data": parts.data.name,
        "seed": run.seed,
    }
    if parts.begun_from is not None:
        source["init_weights"] = parts.begun_from
    return source


def _export(run: Run, cfg: DictConfig, parts: Parts, preprocess: Preprocess) -> str:
    path, task = run.out / "encoder.safetensors", parts.task
    about: Any = {"preprocess": preprocess, "source": _source(run, cfg, parts)}
    if isinstance(task.encoder, ExemplarNet):
        sha256 = save_exemplar(path, net=task.encoder, **about)
    else:
        sha256 = save_encoder(path, encoder=task.encoder, head=task.head, **about)
    run.log.info("wrote %s (sha256 %s)", path, sha256[:12])
    return sha256
