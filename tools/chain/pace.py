"""How long a chain still takes, from what its finished jobs took and its running ones say."""

import json
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Protocol


class Planned(Protocol):
    """What must be known of a job."""

    @property
    def name(self) -> str: ...
    @property
    def arguments(self) -> tuple[str, ...]: ...
    @property
    def needs(self) -> tuple[str, ...]: ...
    @property
    def seconds(self) -> float: ...


class Pace:
    """Seconds that jobs take here and now, beside those that they are expected to take."""

    def __init__(self) -> None:
        self._expected: dict[str, float] = {}  # by command, of the jobs that are done
        self._took: dict[str, float] = {}

    def finished(self, job: Planned, took: float) -> None:
        """`job` has taken `took` seconds."""
        command = job.arguments[0]
        self._expected[command] = self._expected.get(command, 0.0) + job.seconds
        self._took[command] = self._took.get(command, 0.0) + took

    def whole(self, job: Planned) -> float:
        """Seconds of a job, as others of its command took, or as all did in the mean."""
        expected, took = self._expected, self._took
        command = job.arguments[0]
        if command in took:
            return job.seconds * took[command] / expected[command]
        return job.seconds * (sum(took.values()) / sum(expected.values()) if took else 1.0)

    def rest(self, job: Planned, elapsed: float, stated: float | None) -> float:
        """Seconds that a job still takes after `elapsed`; `stated` is what it says of itself."""
        if stated is not None:
            return stated
        whole = self.whole(job)
        # One that has outlived its time is halfway for all that is known.
        return whole - elapsed if elapsed < 0.8 * whole else max(0.2 * whole, 0.5 * elapsed)

    def left(
        self, waiting: Sequence[Planned], running: Mapping[str, float], *, slots: int
    ) -> float:
        """Seconds until all are done: `running` are the rests by name, the others start in order.

        What needs a job waits for it, so a free slot may stay idle.
        """
        ends = dict(running)
        queue, now = list(waiting), 0.0
        while queue:
            unmet = {job.name for job in queue} | {n for n, end in ends.items() if end > now}
            busy = sum(end > now for end in ends.values())
            for job in [job for job in queue if not unmet.intersection(job.needs)]:
                if busy == slots:
                    break
                queue.remove(job)
                ends[job.name] = now + self.whole(job)
                busy += 1
            if not queue:
                break
            now = min((end for end in ends.values() if end > now), default=now)
            if not busy:
                break  # what it needs is gone
        return max(ends.values(), default=0.0)


def stated(folder: Path, *, since: float) -> float | None:
    """Seconds to go that a job's training wrote last; None: nothing since `since` (epoch time)."""
    path = folder / "metrics.jsonl"
    try:
        written = path.stat().st_mtime
        if written < since:
            return None
        lines = path.read_text(encoding="utf-8").splitlines()
        eta = next(
            line["eta_s"]
            for line in map(json.loads, reversed(lines))
            if isinstance(line, dict) and "eta_s" in line
        )
    except (OSError, ValueError, StopIteration):
        return None
    return max(float(eta) - (time.time() - written), 0.0)
