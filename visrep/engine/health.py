"""Is the run healthy? One verdict from a method's embeddings and its loss, at readings only.

    healthy     nothing below
    collapsing  the embeddings are closing up, or the loss does not leave the level of a collapse
    collapsed   they have closed up: to a point (spread) or to a line (effective rank)
    diverged    a number is not finite

An untrained net may look collapsed (without batch norm in the head its embeddings are nearly
parallel, and the loss of a queue of such keys sits at its collapsed level), and healthy runs begin
there. So a verdict needs a fall from where the run has been, or patience: the level kept for long.
"""

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import Tensor

from visrep import dist, files
from visrep.engine import offending_batch, snapshot
from visrep.engine.levels import Levels
from visrep.errors import Diverged
from visrep.nn.embeddings import effective_rank, spread

log = logging.getLogger("visrep")

VERDICTS = ("healthy", "collapsing", "collapsed", "diverged")
ROWS = 256  # embeddings of the whole batch that are measured
WINDOW = 5  # readings that a verdict is the mean of
SPAN = 50  # updates that they cover at least
NEAR = 0.75  # share of the way to its collapsed level from which a loss agrees with a collapse
STUCK = 0.98  # and from which it is at that level
# Spread and effective rank below which embeddings are a point or a line, and are becoming one.
CLOSED, CLOSING = (0.03, 2.0), (0.2, 5.0)
DEAD = 1e-3  # spread that no untrained net is below: the embeddings are all the same
ALIKE = 0.02  # of normalised pixels, about a grey level
FALL = (5.0, 2.0)  # how many times higher they were when a fall is one


@dataclass(frozen=True)
class Reading:
    """What was measured after `step` updates."""

    step: int
    loss: float
    spread: float
    effective_rank: float


@dataclass
class Health:
    """Watches one run.

    Args:
        levels: what the method declares.
        patience: updates, after the warm-up, for which the loss may stay at its collapsed level.
        warmup: updates of the learning rate's warm-up.
        stop: end a run that has collapsed; False only says so.
    """

    levels: Levels
    patience: int
    warmup: int = 0
    stop: bool = True
    verdict: str = field(default="healthy", init=False)
    reason: str = field(default="", init=False)
    window: list[Reading] = field(default_factory=list, init=False)
    peak: list[float] = field(default_factory=lambda: [0.0, 0.0], init=False)  # spread, rank
    near_since: int | None = field(default=None, init=False)  # the loss is at its collapsed level
    closed_since: int | None = field(default=None, init=False)  # and so are the embeddings
    rows: int = field(default=0, init=False)  # most that the rank can be
    trusted: int | None = field(default=None, init=False)  # newest snapshot that was not suspect
    constant: bool = field(default=False, init=False)  # are the first images all alike?

    def begin(self, embeddings: Tensor, views: Sequence[Tensor] = ()) -> None:
        """Measure the net before its first update: what a fall is a fall from.

        `views`, each n x 3 x h x w, are the images that it saw.
        """
        self.peak = self._measure(embeddings)
        apart = max((float((view.amax(0) - view.amin(0)).max()) for view in views), default=1.0)
        apart = float(dist.mean(torch.tensor(apart, device=embeddings.device)))
        self.constant = apart < ALIKE

    def read(self, step: int, loss: float, embeddings: Tensor) -> dict[str, float]:
        """Measure the embeddings of all processes, n x D here, and come to a verdict.

        `loss` is that of the whole batch. All processes must call this, and get the same answer.
        """
        measured = self._measure(embeddings)
        self.add(Reading(step, loss, *measured))
        code = float(VERDICTS.index(self.verdict))
        return {"spread": measured[0], "effective_rank": measured[1], "health": code}

    def _measure(self, embeddings: Tensor) -> list[float]:
        """Spread and effective rank."""
        rows = dist.gather(embeddings[: max(1, ROWS // dist.world_size())])
        self.rows = min(rows.shape)
        return torch.stack([spread(rows).double(), effective_rank(rows)]).tolist()

    def add(self, reading: Reading) -> None:
        """Come to a verdict with one more reading."""
        self.window.append(reading)
        while len(self.window) > WINDOW and self.window[1].step <= reading.step - SPAN:
            self.window.pop(0)
        mean = self._mean()
        wide, rank = self.peak
        self.peak = [max(wide, mean.spread), max(rank, mean.effective_rank)]
        nearness = self.levels.nearness(mean.loss)
        at_level = nearness >= STUCK and not self.levels.minimal
        self.near_since = self._since(at_level, self.near_since)
        closed = self._below(mean, CLOSED)
        self.closed_since = self._since(closed and nearness >= NEAR, self.closed_since)
        before = self.verdict
        self.verdict, self.reason = self._judge(mean)
        if self.verdict != before:
            level = logging.INFO if self.verdict == "healthy" else logging.WARNING
            log.log(level, "%s", self.line())

    def _judge(self, mean: Reading) -> tuple[str, str]:
        if max(self.peak[0], mean.spread) < DEAD and not self._waited(self.closed_since):
            return "collapsing", "the embeddings have been all the same from the first step"
        if self.levels.nearness(mean.loss) < NEAR or len(self.window) < 3:
            return "healthy", ""
        whole = len(self.window) >= WINDOW and mean.step - self.window[0].step >= SPAN
        if self._below(mean, CLOSED) and whole and self._fallen(mean, CLOSED):
            return "collapsed", "the embeddings have closed up"
        if self._waited(self.closed_since):
            return "collapsed", "the embeddings have stayed together from the start"
        if self._waited(self.near_since) and self.levels.stuck:
            return "collapsed", "the loss stays at its collapsed level"
        if self._below(mean, CLOSING) and self._fallen(mean, CLOSING):
            return "collapsing", "the embeddings are closing up"
        if self._waited(self.near_since):
            return "collapsing", "the loss stays at its collapsed level"
        return "healthy", ""

    def suspect(self) -> bool:
        """Does the last reading alone look like a collapse? A snapshot of now may be a bad one."""
        if not self.window:
            return False
        last = self.window[-1]
        closing = self._below(last, CLOSING) and self._fallen(last, CLOSING)
        return self.levels.nearness(last.loss) >= NEAR and (closing or self._below(last, CLOSED))

    def line(self) -> str:
        """The verdict, the measures behind it, and the knob to turn."""
        if not self.window:
            return "health: not judged, there was no reading"
        mean = self._mean()
        text = (
            f"health: {self.verdict} at step {mean.step}: loss {mean.loss:.4g} (collapsed "
            f"{self.levels.loss_collapsed:.4g}), spread {mean.spread:.2g} (collapsed 0, full 1), "
            f"effective rank {mean.effective_rank:.1f} of {self.rows}"
        )
        if not self.reason:
            return text
        knob = self.levels.knob
        if max(self.peak[0], mean.spread) < DEAD:
            knob = (
                "so are the images, all alike: look at them, with visrep views"
                if self.constant
                else f"the images are not, so the net gives the same for each: {knob}"
            )
        return f"{text}; {self.reason}: {knob}"

    def report(self) -> dict[str, Any]:
        """Verdict, line and measures as plain values."""
        mean = asdict(self._mean()) if self.window else {}
        return {
            "verdict": self.verdict,
            "line": self.line(),
            **mean,
            "levels": {"loss_collapsed": self.levels.loss_collapsed, **self.levels.others},
        }

    def state(self) -> dict[str, Any]:
        """What a resumed run needs to come to the same verdicts."""
        return {
            "verdict": self.verdict,
            "reason": self.reason,
            "window": [list(asdict(reading).values()) for reading in self.window],
            "peak": self.peak,
            "near_since": self.near_since,
            "closed_since": self.closed_since,
            "rows": self.rows,
            "trusted": self.trusted,
            "constant": self.constant,
        }

    def load(self, state: dict[str, Any]) -> None:
        """Inverse of `state`."""
        for name, value in state.items():
            setattr(self, name, value)
        self.window = [Reading(*values) for values in state["window"]]

    def _mean(self) -> Reading:
        n = len(self.window)
        loss, wide, rank = (
            math.fsum(getattr(r, name) for r in self.window) / n
            for name in ("loss", "spread", "effective_rank")
        )
        return Reading(self.window[-1].step, loss, wide, rank)

    def _limits(self, limits: tuple[float, float]) -> tuple[float, float]:
        # Few rows have a small rank, whatever they are.
        return limits[0], min(limits[1], 1 + limits[1] * (self.rows - 1) / 50)

    def _below(self, mean: Reading, limits: tuple[float, float]) -> bool:
        wide, rank = self._limits(limits)
        return mean.spread < wide or mean.effective_rank < rank

    def _fallen(self, mean: Reading, limits: tuple[float, float]) -> bool:
        """Was the measure that is below its limit once well above it?"""
        wide, rank = self._limits(limits)
        return (mean.spread < wide and self.peak[0] >= FALL[0] * mean.spread) or (
            mean.effective_rank < rank and self.peak[1] >= FALL[1] * mean.effective_rank
        )

    def _since(self, holds: bool, since: int | None) -> int | None:
        if not holds:
            return None
        return self.window[-1].step if since is None else since

    def _waited(self, since: int | None) -> bool:
        step = self.window[-1].step
        return since is not None and step - max(since, self.warmup) >= self.patience


def write_verdict(out: Path, report: dict[str, Any]) -> None:
    """`health.json` in the run folder `out`; numbers that are not finite become null."""
    plain = {
        name: None if isinstance(value, float) and not math.isfinite(value) else value
        for name, value in report.items()
    }
    files.write_text(out / "health.json", json.dumps(plain, indent=1) + "\n")


def stop(out: Path | None, report: dict[str, Any]) -> NoReturn:
    """End the run, on all processes together, once the files that say why are whole.

    Raises:
        Diverged: the line of `report`, and what is left in the run folder.
    """
    line = str(report["line"])
    if out is not None:
        if dist.is_main():
            write_verdict(out, report)
        dist.barrier()
        good = snapshot.newest(out / "snapshots")
        kept = "no snapshot is good" if good is None else f"the snapshot of step {good} is good"
        line += f" [{out / offending_batch.BATCH} has the batch; {kept}]"
    raise Diverged(line)
