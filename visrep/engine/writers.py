"""Where metrics go: the console, `metrics.jsonl`, TensorBoard."""

import json
import logging
import math
import sys
import time
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor
from tqdm import tqdm

from visrep import dist, files
from visrep.errors import UserError

log = logging.getLogger("visrep")


# Of a reading, what is measured with a clock: never the same twice, so no part of a snapshot.
SPEEDS = ("images_per_s", "data_share", "eta_s")


class Writer(Protocol):
    """Takes the metrics of a step."""

    def write(self, step: int, metrics: dict[str, float]) -> None:
        """Note `metrics`, measured after `step` updates."""
        ...

    def rewind(self, step: int) -> dict[str, float]:
        """Training goes on from `step`: forget what was noted later; the reading of `step`."""
        ...

    def close(self) -> None:
        """Training is over."""
        ...


class Meter:
    """Means of logged scalars since the last reading, with speed and time to go.

    The sums stay on the device: only a reading waits for it, which all processes take together
    where what is added is each one's own (`shared`).
    """

    def __init__(self, *, start: int, total: int, shared: bool = True) -> None:
        self.total = total
        self.shared = shared
        self.sums: dict[str, Tensor] = {}
        self.count = 0
        self.images = 0
        self.data_time = 0.0
        self.start(start)

    def start(self, step: int) -> None:
        """Time runs from now on, from `step` on."""
        self.last_step = step
        self.last_time = time.perf_counter()

    def add(self, outputs: dict[str, Tensor]) -> None:
        """Add the scalars of one forward pass."""
        for name, value in outputs.items():
            value = torch.as_tensor(value).detach().float()
            self.sums[name] = self.sums[name] + value if name in self.sums else value
        self.count += 1

    def read(self, step: int) -> dict[str, float]:
        """The means, images per second, share of time spent waiting for data, seconds to go."""
        metrics: dict[str, float] = {}
        if self.sums:
            # Of the whole batch, with one wait for the device.
            device = next(iter(self.sums.values())).device
            sums = torch.stack([value.to(device) for value in self.sums.values()])
            means = sums / self.count
            whole = dist.mean(means) if self.shared else means
            metrics = dict(zip(self.sums, whole.tolist(), strict=True))
        now = time.perf_counter()
        elapsed = max(now - self.last_time, 1e-9)
        steps = max(step - self.last_step, 1)
        metrics["images_per_s"] = self.images / elapsed
        metrics["data_share"] = self.data_time / elapsed
        metrics["eta_s"] = (self.total - step) * elapsed / steps
        self.sums, self.count, self.images, self.data_time = {}, 0, 0, 0.0
        self.last_step, self.last_time = step, now
        return metrics

    def state(self) -> dict[str, Any]:
        """The sums so far of every process, for a snapshot; all processes call it together."""
        names = list(self.sums)
        rows = torch.stack([self.sums[name].cpu() for name in names]) if names else torch.zeros(0)
        device = self.sums[names[0]].device if names else "cpu"
        # processes x names
        everyone = dist.gather(rows[None].to(device)).cpu() if self.shared else rows[None]
        return {"names": names, "sums": everyone, "count": self.count}

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of `state`; with another number of processes, each gets the mean of the sums."""
        rows = state["sums"]
        mine = rows[dist.rank()] if len(rows) == dist.world_size() else rows.mean(dim=0)
        self.sums = dict(zip(state["names"], mine.unbind(), strict=True))
        self.count = state["count"]


class Console:
    """A progress bar on a terminal, lines in a file: eta, step/total, loss, lr, images/s, data."""

    def __init__(self, *, total: int, label: str) -> None:
        self.total = total
        self.label = label
        self.bar = tqdm(total=total, desc=label, unit="step") if sys.stderr.isatty() else None
        self._line_at = 0.0

    def write(self, step: int, metrics: dict[str, float]) -> None:
        shown = " ".join(
            f"{name} {value:.4g}"
            for name, value in metrics.items()
            if name not in (*SPEEDS, "health")
        )
        speed = ""
        if "images_per_s" in metrics:
            speed = f" {metrics['images_per_s']:.0f} images/s data {metrics['data_share']:.0%}"
        if self.bar is not None:
            self.bar.update(step - self.bar.n)
            self.bar.set_postfix_str(shown + speed, refresh=False)
            return
        now = time.monotonic()
        # A file wants a line now and then, not one per reading; evaluations are always shown.
        if "loss" in metrics and now - self._line_at < 10 and step < self.total:
            return
        self._line_at = now
        eta = f"eta {clock(metrics['eta_s'])} " if "eta_s" in metrics else ""
        log.info("%s: %s%d/%d %s%s", self.label, eta, step, self.total, shown, speed)

    def rewind(self, step: int) -> dict[str, float]:
        if self.bar is not None:
            self.bar.update(max(step, 0) - self.bar.n)
        return {}

    def close(self) -> None:
        if self.bar is not None:
            self.bar.close()


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss."""
    if not math.isfinite(seconds):
        return "?"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}"


class JsonLines:
    """`metrics.jsonl`: one object per reading, with its step."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, step: int, metrics: dict[str, float]) -> None:
        # Strict JSON has no NaN; what is not finite is left out.
        finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
        files.append_line(self.path, json.dumps({"step": step, **finite}))

    def rewind(self, step: int) -> dict[str, float]:
        if not self.path.exists():
            return {}
        reading: dict[str, float] = {}
        kept, unreadable = [], 0
        try:
            lines = self.path.read_text(encoding="utf-8", errors="replace").splitlines()
        except OSError as error:
            raise UserError(
                f"cannot read {self.path}: {error.strerror}; remove what is there"
            ) from error
        for line in lines:
            try:
                metrics = json.loads(line)
                if metrics["step"] <= step:
                    kept.append(line + "\n")
                if metrics["step"] == step and SPEEDS[0] in metrics:  # no evaluation
                    reading = metrics
            except (ValueError, KeyError, TypeError):  # such as the line that a kill cut short
                unreadable += 1
        if unreadable:
            log.warning("%s: dropped %d lines that are no reading", self.path, unreadable)
        files.write_text(self.path, "".join(kept))
        return reading

    def close(self) -> None:
        """Nothing is held open."""


class TensorBoard:
    """Event files for TensorBoard; a resumed run hides what it trains again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.writer: Any = None  # imported late: it takes seconds
        self.purge: int | None = None
        self.lost = False

    def write(self, step: int, metrics: dict[str, float]) -> None:
        if self.lost:
            return
        try:
            if self.writer is None:
                from torch.utils.tensorboard import SummaryWriter

                self.writer = SummaryWriter(str(self.folder), purge_step=self.purge)
            for name, value in metrics.items():
                self.writer.add_scalar(name, value, step)
        except OSError as error:
            self._lose(error)

    def rewind(self, step: int) -> dict[str, float]:
        self.purge = step + 1
        return {}

    def close(self) -> None:
        if self.writer is not None and not self.lost:
            try:
                self.writer.close()
            except OSError as error:
                self._lose(error)

    def _lose(self, error: OSError) -> None:
        self.lost = True
        log.warning(
            "the TensorBoard files in %s cannot be written (%s): going on without them",
            self.folder,
            error.strerror or error,
        )
