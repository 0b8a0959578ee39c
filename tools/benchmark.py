"""`visrep benchmark step|views`: ratios measured on this machine, both sides alternated in one run.

Absolute times swing with the neighbours of a machine; a ratio of alternated medians does not.
"""

import os
import statistics
import time
from collections.abc import Callable

import torch
from omegaconf import DictConfig
from torch import Tensor, nn
from torchvision.transforms import v2

from visrep.config import instantiate
from visrep.data.dataset import checked
from visrep.data.views.operations import Gray, Jitter
from visrep.engine.assembly import assemble
from visrep.engine.hooks import Hook, Training
from visrep.engine.precision import autocast_dtype
from visrep.engine.run import Run, open_run
from visrep.errors import ConfigError
from visrep.pretrain.train import build


def main(cfg: DictConfig) -> None:
    """Measure what `cfg.what` names, print it and append it to `results.jsonl`."""
    kinds = {"step": benchmark_step, "views": benchmark_views}
    if cfg.what not in kinds:
        raise ConfigError(f"what={cfg.what}: choose from {', '.join(kinds)}")
    run = open_run(cfg)
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else float("nan")
    run.log.info("%s, %d threads, load %.1f before", run.device, torch.get_num_threads(), load)
    kinds[cfg.what](cfg, run)


def benchmark_step(cfg: DictConfig, run: Run) -> None:
    """Ideal step / whole step of a method: the share of a step that is not overhead.

    Whole: order, views, networks, loss, backward, update, metrics. Ideal: the encoder passes per
    image that the method cannot do without, each a third of a bare step: forward, backward and
    update of the encoder alone on the step's ready views, those of the first one's size, in the
    same precision and memory format.
    """
    bare = _BareStep(instantiate(cfg.backbone), cfg, run.device)
    parts = build(cfg, run, batch_size=cfg.batch_size)
    task, loader, views = parts.task, parts.loader, parts.views.views
    passes = task.passes([(view.size / views[0].size) ** 2 for view in views])
    pairs = _Alternate(bare, run.device)
    assemble(
        task,
        settings=run.config | {"optim": run.config["optim"] | {"warmup_epochs": 0.0}},
        run=run,
        batches=loader,
        total_steps=cfg.warmup + cfg.steps,
        steps_per_epoch=loader.steps_per_epoch,
        label=None,
        hooks=[pairs],
    ).fit()
    whole, alone = (statistics.median(t[cfg.warmup :]) for t in (pairs.whole, pairs.bare))
    assert bare.images is not None
    ideal = alone * passes / 3 * cfg.batch_size / len(bare.images)
    dtype = autocast_dtype(cfg.precision, run.device) or torch.float32
    run.log.info(
        "%s at %d px, batch %d, %s: bare encoder step of %d views %.1f ms, %g passes per image "
        "%.1f ms, whole step %.1f ms, ratio %.3f; %.0f images/s",
        cfg.name,
        bare.images.shape[-1],
        cfg.batch_size,
        str(dtype).removeprefix("torch."),
        len(bare.images),
        1e3 * alone,
        passes,
        1e3 * ideal,
        1e3 * whole,
        ideal / whole,
        cfg.batch_size / whole,
    )
    run.record(
        task="benchmark",
        dataset=parts.data.name,
        metric="ideal_step_over_whole_step",
        value=ideal / whole,
        weights="",
        init="random",
        method=cfg.name,
        passes=passes,
        bare_ms=1e3 * alone,
        bare_views=len(bare.images),
        ideal_ms=1e3 * ideal,
        whole_ms=1e3 * whole,
        images_per_s=cfg.batch_size / whole,
        precision=str(dtype),
        threads=torch.get_num_threads(),
        clock=pairs.clock,
    )


class _BareStep:
    """One update of an encoder alone, on images that are ready."""

    def __init__(self, encoder: nn.Module, cfg: DictConfig, device: torch.device) -> None:
        layout = torch.channels_last if cfg.channels_last else torch.contiguous_format
        self.encoder = encoder.to(device, memory_format=layout).train()  # type: ignore[call-overload]
        self.optimizer = torch.optim.SGD(self.encoder.parameters(), lr=1e-3, momentum=0.9)
        self.dtype = autocast_dtype(cfg.precision, device)
        self.device = device
        self.images: Tensor | None = None

    def __call__(self) -> None:
        assert self.images is not None
        with torch.autocast(
            self.device.type, dtype=self.dtype or torch.bfloat16, enabled=self.dtype is not None
        ):
            loss = self.encoder(self.images).float().square().mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)


class _Alternate(Hook):
    """After every step of the trainer one bare step on the same views; times both.

    With one thread on a CPU the clock is the process's own, which neighbours do not stretch.
    """

    def __init__(self, bare: _BareStep, device: torch.device) -> None:
        self.bare_step = bare
        self.device = device
        self.clock = "process" if device.type == "cpu" and torch.get_num_threads() == 1 else "wall"
        self.whole: list[float] = []
        self.bare: list[float] = []

    def before_training(self, trainer: Training) -> None:
        views = next(trainer.batches.iterate(0))["views"]
        self.bare_step.images = torch.cat([v for v in views if v.shape == views[0].shape])
        self._last = self._now()

    def after_step(self, trainer: Training) -> None:
        now = self._now()
        self.whole.append(now - self._last)
        self.bare_step()
        self._last = self._now()
        self.bare.append(self._last - now)

    def _now(self) -> float:
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return time.process_time() if self.clock == "process" else time.perf_counter()


def benchmark_views(cfg: DictConfig, run: Run) -> None:
    """Views per second of our batched views and of torchvision's transforms, sample by sample.

    Both do SimCLR's recipe for small images (crop, flip, jitter of strength 0.5, grey) on the same
    images with the same number of threads.
    """
    data = checked(instantiate(cfg.data.train))
    views = instantiate(cfg.views)
    if data.images is None:
        raise ConfigError("benchmark views needs images in memory: use data=scenes or data=cifar10")
    images = data.images[: cfg.batch_size].to(run.device)
    view = views.views[0]
    size = view.size
    drawn = {"jitter": Jitter(), "gray": Gray(), **{o.name: o for o in view.operations}}
    theirs = v2.Compose(
        [
            v2.RandomResizedCrop(size, scale=view.scale, antialias=True),
            v2.RandomHorizontalFlip(view.flip_p),
            v2.RandomApply([v2.ColorJitter(*drawn["jitter"].strength)], p=drawn["jitter"].p),
            v2.RandomGrayscale(drawn["gray"].p),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(views.mean), list(views.std)),
        ]
    )
    step = iter(range(10**9))

    def ours() -> None:
        views(images, views.draw(seed=run.seed, step=next(step), batch=len(images)))

    def per_sample() -> None:
        for _ in views.views:
            torch.stack([theirs(image) for image in images])

    mine, other = _alternate(ours, per_sample, cfg.steps, cfg.warmup)
    count = len(images) * len(views.views)
    run.log.info(
        "views of %d px, batch %d: %.0f views/s, torchvision per sample %.0f views/s, ratio %.2f",
        size,
        len(images),
        count / mine,
        count / other,
        other / mine,
    )
    run.record(
        task="benchmark",
        dataset=data.name,
        metric="views_over_torchvision",
        value=other / mine,
        weights="",
        init="random",
        views_per_s=count / mine,
        torchvision_views_per_s=count / other,
        threads=torch.get_num_threads(),
    )


def _alternate(
    first: Callable[[], None], second: Callable[[], None], steps: int, warmup: int
) -> tuple[float, float]:
    """Median seconds of each, called in turn."""
    times: tuple[list[float], list[float]] = ([], [])
    for step in range(warmup + steps):
        for call, kept in zip((first, second), times, strict=True):
            started = time.perf_counter()
            call()
            if step >= warmup:
                kept.append(time.perf_counter() - started)
    return statistics.median(times[0]), statistics.median(times[1])
