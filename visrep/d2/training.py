"""Detectron2's training loop: its trainers and hooks, and what is put beside them, with the reason.

Its `SimpleTrainer`, `AMPTrainer` and `LRScheduler` are used as they are. Four things are ours:

* snapshots in place of its checkpointer: they are whole or not counted, hold plain values only,
  and say what data they belong to; `resume=` means the same with every engine;
* `visrep.engine.precise_bn` in place of its `PreciseBN`: the same estimate, from batches that
  follow from their number, so that a run that goes on ends with the same statistics;
* a measurement before the snapshot of its iteration: its `EvalHook` measures the last one after all
  else, so that a run that is cut there would measure it twice;
* gradients of several parts of a batch, which Detectron2 leaves to the user.

Detectron2 is imported inside functions only.
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import nn

from visrep import dist, signals
from visrep.d2.loader import TrainingLoader
from visrep.engine import parallel
from visrep.engine.precise_bn import reestimate
from visrep.engine.precision import autocast_dtype, scaler
from visrep.engine.writers import Meter, Writer
from visrep.errors import ConfigError


def dtype(precision: str, device: torch.device) -> torch.dtype | None:
    """Of autocast; None for none.

    Raises:
        ConfigError: it does not exist, or not on this device.
    """
    if precision not in ("fp32", "bf16", "fp16"):
        raise ConfigError(f"precision={precision}: choose fp32, bf16 or fp16")
    if precision != "fp32" and device.type != "cuda":
        raise ConfigError(
            f"precision={precision}: Detectron2 has it on a GPU only; use precision=fp32"
        )
    return autocast_dtype(precision, device)


def trainer(
    model: nn.Module,
    loader: TrainingLoader,
    optimizer: torch.optim.Optimizer,
    *,
    dtype: torch.dtype | None,
    accumulate: int,
) -> Any:
    """Detectron2's trainer of `model`; one that takes `accumulate` parts of a batch per update."""
    from detectron2.engine import AMPTrainer, SimpleTrainer

    scale = scaler(dtype, next(model.parameters()).device)
    if accumulate > 1:
        made = _accumulating(model, loader, optimizer, scale, dtype=dtype, parts=accumulate)
    elif dtype is None:
        made = SimpleTrainer(model, loader, optimizer)
    else:
        made = AMPTrainer(model, loader, optimizer, grad_scaler=scale, precision=dtype)
    made.grad_scaler = scale
    return made


def _accumulating(
    model: nn.Module,
    loader: TrainingLoader,
    optimizer: torch.optim.Optimizer,
    scale: torch.amp.GradScaler,
    *,
    dtype: torch.dtype | None,
    parts: int,
) -> Any:
    from detectron2.engine import SimpleTrainer

    class Accumulating(SimpleTrainer):
        """An update by the mean of the gradients of `parts` batches of the loader.

        For losses L_1 ... L_k of the parts the update follows (L_1 + ... + L_k) / k, which is how
        Detectron2 brings k processes together.
        """

        def run_step(self) -> None:
            assert self.model.training
            waited, sums = 0.0, dict[str, torch.Tensor]()
            self.optimizer.zero_grad()
            for part in range(parts):
                started = time.perf_counter()
                images = next(self._data_loader_iter)
                waited += time.perf_counter() - started
                on_the_way = part < parts - 1
                with (
                    parallel.no_sync(self.model, on_the_way),
                    torch.autocast("cuda", dtype=dtype, enabled=dtype is not None),
                ):
                    losses = self.model(images)
                with parallel.no_sync(self.model, on_the_way):
                    scale.scale(sum(losses.values()) / parts).backward()
                for name, loss in losses.items():
                    sums[name] = sums.get(name, torch.zeros_like(loss)) + loss.detach() / parts
            self.after_backward()
            self._write_metrics(sums, waited)
            scale.step(self.optimizer)
            scale.update()

    return Accumulating(model, loader, optimizer)


def seeded(seed: Callable[[int], None]) -> Any:
    """A hook that makes what an iteration draws a function of its number."""
    from detectron2.engine import HookBase

    class Seeded(HookBase):
        def before_step(self) -> None:
            seed(self.trainer.iter)

    return Seeded()


def report(writers: Sequence[Writer], meter: Meter, *, start: int, images: int, every: int) -> Any:
    """A hook that hands Detectron2's losses to our writers, `every` so many iterations.

    images: of an iteration, over all processes.
    """
    from detectron2.engine import HookBase

    class Report(HookBase):
        def before_train(self) -> None:
            meter.start(start)
            for writer in writers:
                writer.rewind(start)

        def after_step(self) -> None:
            if not dist.is_main():
                return
            step = self.trainer.iter + 1
            latest = {k: v for k, (v, _) in self.trainer.storage.latest().items()}
            losses = {k: v for k, v in latest.items() if k.startswith("loss_")}
            meter.add({"loss": latest["total_loss"], **losses})
            meter.images += images
            meter.data_time += latest.get("data_time", 0.0)
            if step % every == 0 or step == self.trainer.max_iter:
                metrics = meter.read(step)
                metrics["lr"] = latest["lr"]
                for writer in writers:
                    writer.write(step, metrics)

    return Report()


def measured(measure: Callable[[int], None], *, every: int) -> Any:
    """A hook that calls `measure` after every `every` iterations and after the last one."""
    from detectron2.engine import HookBase

    class Measured(HookBase):
        def after_step(self) -> None:
            step = self.trainer.iter + 1
            if step % every == 0 or step == self.trainer.max_iter:
                measure(step)

    return Measured()


def keep(save: Callable[[int], None], held: signals.Held, *, every: int) -> Any:
    """A hook that saves snapshots, also at the end, and saves one and stops when `held` says so."""
    from detectron2.engine import HookBase

    class Keep(HookBase):
        def before_train(self) -> None:
            self.agreement = parallel.Agreement()

        def after_step(self) -> None:
            step = self.trainer.iter + 1
            asked = self.agreement.on(held.signum)
            last = step == self.trainer.max_iter
            if asked or (every and (step % every == 0 or last)):
                save(step)
            if asked:
                raise signals.Interrupted(asked, signals.SAVED)

    return Keep()


def precise(model: nn.Module, loader: TrainingLoader, count: int) -> None:
    """Running statistics of `model` from `count` batches of `loader`."""
    from detectron2.utils.events import EventStorage

    with EventStorage():  # the model's losses are noted there, by Detectron2's design
        reestimate(model, iter(loader), count=count, forward=model)
