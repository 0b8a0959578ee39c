"""The time to go follows what was measured, and what can run beside what."""

import json
import os
import time

import pytest

from visrep.tools.chain.jobs import Job
from visrep.tools.chain.pace import Pace, stated


def job(name: str, seconds: float, *needs: str, command: str = "knn") -> Job:
    return Job(name, (command,), needs, seconds)


def test_expected_seconds_are_scaled_by_what_was_measured():
    pace = Pace()
    assert pace.whole(job("a", 8)) == 8
    pace.finished(job("a", 8), 4)
    assert pace.whole(job("b", 10)) == 5
    assert pace.whole(job("c", 10, command="svm")) == 5  # as all others, so far
    pace.finished(job("c", 10, command="svm"), 32)
    assert pace.whole(job("d", 10, command="svm")) == 32 and pace.whole(job("b", 10)) == 5
    assert pace.whole(job("e", 10, command="detect")) == 20


def test_a_running_job_is_believed():
    pace = Pace()
    assert pace.rest(job("a", 200), 3, 10.0) == 10
    assert pace.rest(job("a", 200), 50, None) == 150
    assert pace.rest(job("a", 10), 40, None) == 20  # longer than expected: it does not end "now"


@pytest.mark.parametrize(
    ("waiting", "running", "slots", "want"),
    [
        ([], {}, 2, 0),
        ([], {"a": 5, "b": 7}, 2, 7),
        ([job("c", 4), job("d", 2)], {"a": 5, "b": 7}, 2, 9),
        ([job("c", 4), job("d", 2)], {}, 1, 6),
        ([job("c", 4, "a"), job("d", 2, "c")], {"a": 5}, 2, 11),  # one slot stays idle
        ([job("c", 4), job("d", 2), job("e", 3, "d")], {}, 2, 5),
        ([job("c", 4, "done")], {"a": 1}, 2, 4),
    ],
)
def test_jobs_wait_for_needs_and_slots(waiting, running, slots, want):
    assert Pace().left(waiting, running, slots=slots) == want


def test_what_training_states(tmp_path):
    begun = time.time() - 1
    assert stated(tmp_path, since=begun) is None
    path = tmp_path / "metrics.jsonl"
    lines = [{"step": 1, "eta_s": 50.0}, {"step": 2, "eta_s": 40.0}, {"step": 2, "knn": 30.0}]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    assert stated(tmp_path, since=begun) == pytest.approx(40, abs=1)
    os.utime(path, (begun - 30, begun - 30))
    assert stated(tmp_path, since=begun) is None  # of a run before this one
    assert stated(tmp_path, since=begun - 60) == pytest.approx(9, abs=1)
    path.write_text('{"step": 1, "eta')
    assert stated(tmp_path, since=begun) is None
