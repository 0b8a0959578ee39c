"""The one training loop: pretraining, finetuning, distillation and the torchvision detector.

    views -> forward -> backward -> before_update -> optimizer step -> after_update

Everything random is a function of (seed, step), so a snapshot holds the task, the optimizer and the
step, and a run that was killed continues with the very numbers it would have had.
"""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from fvcore.common.param_scheduler import ParamScheduler
from torch import Tensor, nn

from visrep import dist, signals
from visrep.engine import offending_batch, parallel, snapshot
from visrep.engine.health import VERDICTS, Health, stop, write_verdict
from visrep.engine.hooks import Hook
from visrep.engine.known_data import KnownData
from visrep.engine.optim import set_learning_rate
from visrep.engine.precision import autocast_dtype, scaler
from visrep.engine.task import Batches, Progress, Task, require_outputs
from visrep.engine.writers import SPEEDS, Meter, Writer
from visrep.errors import ConfigError, UserError

log = logging.getLogger("visrep")


class Trainer:
    """Runs `task` for `total_steps` updates.

    Args:
        task: what is trained.
        optimizer: its parameter groups hold the peak learning rates.
        schedule: a function of step/total in [0, 1] that multiplies every group's rate; a group
            with `fixed_lr=True` keeps its own.
        batches: the source of (micro-)batches.
        total_steps: number of updates.
        out: run folder; None keeps nothing on disk.
        device: where the task runs.
        precision: auto, fp32, bf16 or fp16 (on a GPU, with scaled gradients; a step whose gradients
            leave its range is left out and the scale lowered).
        health: judges the embeddings of a method at readings; None for tasks that have none.
        accumulate: micro-batches per update; the loss is their mean.
        snapshot_every: updates between snapshots; one is always written at the end. 0: only when a
            signal ends the run. None: none at all, for what cannot be gone on with.
        log_every: updates between two lines of metrics.
        resume: must: a whole snapshot in `out` is required; else one is taken where there is one.
        data: what the batches are made of, kept with a snapshot and compared with its own.
        hooks: observers, called after every update.
        writers: where metrics go.

    Raises:
        ConfigError: accumulation with a loss that couples the samples of a batch: the union of the
            micro-batches would not be the larger batch that was asked for.
    """

    def __init__(
        self,
        *,
        task: Task,
        optimizer: torch.optim.Optimizer,
        schedule: ParamScheduler | Callable[[float], float],
        batches: Batches,
        total_steps: int,
        device: torch.device | str = "cpu",
        out: Path | None = None,
        precision: str = "auto",
        health: Health | None = None,
        accumulate: int = 1,
        snapshot_every: int | None = None,
        log_every: int = 10,
        resume: str = "auto",
        data: KnownData | None = None,
        hooks: Sequence[Hook] = (),
        writers: Sequence[Writer] = (),
    ) -> None:
        if accumulate > 1 and task.coupled:
            raise ConfigError(
                f"accumulate={accumulate}: the loss of {type(task).__name__} couples the samples "
                "of a batch, so accumulated small batches are not a larger one; use accumulate=1"
            )
        if total_steps < 1:
            raise ConfigError("there is nothing to train: the run has no step; raise the epochs")
        self.device = torch.device(device)
        self.task: Task = task.to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.optimizer = optimizer
        self.schedule = schedule
        self.batches = batches
        self.total_steps = total_steps
        self.out = out
        self.dtype = autocast_dtype(precision, self.device)
        self.scaler = scaler(self.dtype, self.device)
        self.health = health
        self.watch = offending_batch.FiniteWatch(self.task, self.device)
        self.accumulate = accumulate
        self.snapshot_every = snapshot_every
        self.log_every = log_every
        self.resume = resume
        self.data = data
        self.hooks = list(hooks)
        self.writers = list(writers)
        self.step = 0  # updates done
        self.meter = Meter(start=0, total=total_steps)
        self.last: dict[str, float] = {}  # the last reading
        self._unwritten: UserError | None = None
        for group in optimizer.param_groups:
            group.setdefault("initial_lr", group["lr"])

    @property
    def progress(self) -> Progress:
        """Updates done, of all."""
        return Progress(self.step, self.total_steps)

    def fit(self) -> dict[str, float]:
        """Train from the newest snapshot, or from the start; returns the last logged metrics.

        Raises:
            Diverged: loss, gradients or weights are not finite, or the embeddings have collapsed;
                the batch is in the run folder (see `offending_batch`), as is the verdict.
            Interrupted: SIGINT or SIGTERM came to this process or another; a snapshot was saved.
        """
        with signals.held() as held:
            return self._fit(held)

    def _fit(self, held: signals.Held) -> dict[str, float]:
        self._resume()
        model = parallel.wrap(self.task)
        stream = self.batches.iterate(self.step * self.accumulate)
        self.task.train()
        agreement = parallel.Agreement()
        try:
            for hook in self.hooks:
                hook.before_training(self)
            while self.step < self.total_steps:
                set_learning_rate(self.optimizer, self.schedule(self.step / self.total_steps))
                embeddings = self._update(model, stream)
                self.step += 1
                reading = self.step % self.log_every == 0 or self.step == self.total_steps
                if reading:
                    self._log(embeddings)
                for hook in self.hooks:
                    hook.after_step(self)
                if reading:
                    self._require_written()
                asked = agreement.on(held.signum)
                if asked:
                    raise signals.Interrupted(asked, self._save_for_later())
                if self.snapshot_every and (
                    self.step % self.snapshot_every == 0 or self.step == self.total_steps
                ):
                    self._save()
            self._conclude()
            for hook in self.hooks:
                hook.after_training(self)
        finally:
            for writer in self.writers:
                writer.close()
        return self.last

    def write(self, metrics: dict[str, float]) -> None:
        """Hand metrics of the present step to every writer (main process only).

        What cannot be written ends the run at the next reading, see `_require_written`.
        """
        if dist.is_main():
            for writer in self.writers:
                try:
                    writer.write(self.step, metrics)
                except UserError as error:
                    self._unwritten = error

    def _update(self, model: nn.Module, stream: Iterator[dict[str, Any]]) -> Tensor | None:
        """One update; returns the embeddings that the task hands out, if it does."""
        images, total, embeddings = 0, torch.zeros((), device=self.device), None
        for micro in range(self.accumulate):
            started = time.perf_counter()
            batch = next(stream)
            self.meter.data_time += time.perf_counter() - started
            images += int(batch["size"]) * dist.world_size()
            with (
                parallel.no_sync(model, micro < self.accumulate - 1),
                torch.autocast(
                    self.device.type, dtype=self.dtype or torch.bfloat16, enabled=bool(self.dtype)
                ),
            ):
                outputs = model(batch)
                require_outputs(self.task, outputs, embeddings=self.health is not None)
                embeddings = outputs.pop("embeddings", None)
                if self.step == 0 and self.health is not None and embeddings is not None:
                    self.health.begin(embeddings, batch.get("views", ()))
                loss = outputs["loss"] / self.accumulate
            with parallel.no_sync(model, micro < self.accumulate - 1):
                self.scaler.scale(loss).backward()
            self.meter.add(outputs)
            total += loss.detach()
        self.meter.images += images
        if self.scaler.is_enabled():
            self.scaler.unscale_(self.optimizer)
        self.watch.mark(self.step, total, gradients=not self.scaler.is_enabled())
        self.task.before_update(self.progress)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        self.task.after_update(Progress(self.step + 1, self.total_steps))
        return embeddings

    def _log(self, embeddings: Tensor | None) -> None:
        metrics = self.meter.read(self.step)
        metrics["lr"] = float(self.optimizer.param_groups[0]["lr"])
        self._require_finite()
        if self.health is not None and embeddings is not None:
            metrics |= self.health.read(self.step, metrics["loss"], embeddings)
            metrics |= {name: float(value) for name, value in self.task.measures().items()}
        self.write(metrics)
        if self.health is not None and self.health.stop and self.health.verdict == "collapsed":
            self._keep_batch(self.step - 1)
            if self.out is not None and dist.is_main():
                snapshot.set_aside(self.out / "snapshots", after=self.health.trusted)
            stop(self.out, self.health.report())
        self.last = metrics

    def _require_written(self) -> None:
        """End the run, all processes together, after a snapshot, when metrics were lost."""
        lost = torch.tensor(float(self._unwritten is not None), device=self.device)
        if not dist.sum(lost):
            return
        self._save()
        why = self._unwritten or "the first process cannot write the metrics"
        raise UserError(f"{why}; the snapshot of step {self.step} is saved, go on by resume=auto")

    # What is not well

    def _require_finite(self) -> None:
        found = self.watch.found(self.step)
        if found is not None:
            step, what = found
            knob = offending_batch.advice(self.optimizer, batch_is_finite=self._keep_batch(step))
            self.write({"health": float(VERDICTS.index("diverged"))})
            line = f"health: diverged: {what} not finite at step {step + 1}: {knob}"
            stop(self.out, {"verdict": "diverged", "line": line, "step": step + 1})

    def _keep_batch(self, step: int) -> bool:
        return offending_batch.keep_batch(
            self.out,
            batches=self.batches,
            step=step,
            accumulate=self.accumulate,
            device=self.device,
        )

    def _conclude(self) -> None:
        if self.health is None:
            return
        log.info("%s", self.health.line())
        if self.out is not None and dist.is_main():
            write_verdict(self.out, self.health.report())

    # Snapshots

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs; all processes call it together."""
        state = {
            "task": self.task.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "meter": self.meter.state(),
            "last": {k: v for k, v in self.last.items() if k not in SPEEDS},
            "total_steps": self.total_steps,
        }
        if self.health is not None:
            state["health"] = self.health.state()
        if self.scaler.is_enabled():
            state["scaler"] = self.scaler.state_dict()
        if self.data is not None:
            state["data"] = self.data.digest
        return state

    def _save_for_later(self) -> str:
        """Save when the run can be gone on with; what to tell whoever stopped it."""
        if self.out is None or self.snapshot_every is None:
            return ""
        self._save()
        return signals.SAVED

    def _save(self) -> None:
        if self.out is None:
            return
        self._require_finite()  # what is kept must be worth keeping
        trusted = None
        if self.health is not None:
            if not self.health.suspect():
                self.health.trusted = self.step
            trusted = self.health.trusted
        snapshot.save(self.out / "snapshots", self.step, self.state(), spare=trusted)
        dist.barrier()

    def _resume(self) -> None:
        required = self.resume == "must"
        found = (
            None if self.out is None else snapshot.latest(self.out / "snapshots", required=required)
        )
        if found is not None:
            self._load(*found)
        for writer in self.writers:  # an earlier try may have left lines without a snapshot
            reading = writer.rewind(self.step if found else -1)
            self.last = {k: v for k, v in reading.items() if k != "step"} | self.last
        self.meter.start(self.step)

    def _load(self, step: int, state: dict[str, Any]) -> None:
        if self.data is not None and "data" in state:
            self.data.changed_since(state["data"], self.out)
        if step > self.total_steps:
            raise UserError(
                f"{self.out}: its snapshot is that of step {step}, and the run has "
                f"{self.total_steps}; give it as many steps as it was begun with"
            )
        self.step = step
        self.task.load_state_dict(state["task"])
        self.optimizer.load_state_dict(state["optimizer"])
        if "scaler" in state and self.scaler.is_enabled():
            self.scaler.load_state_dict(state["scaler"])
        if self.health is not None and "health" in state:
            self.health.load(state["health"])
        if "meter" in state:  # not before 0.3
            self.meter.load(state["meter"])
            self.last = state["last"]
        log.info("resumed from the snapshot of step %d/%d", step, self.total_steps)
        before = state.get("total_steps", self.total_steps)
        if before != self.total_steps and step < self.total_steps:
            rate = self.optimizer.param_groups[0]["lr"]
            set_learning_rate(self.optimizer, self.schedule(step / self.total_steps))
            log.info(
                "the run has %d steps instead of %d: its learning rate, a function of step / "
                "steps, goes on from %.4g with %.4g",
                self.total_steps,
                before,
                rate,
                self.optimizer.param_groups[0]["lr"],
            )
