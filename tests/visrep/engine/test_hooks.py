"""When a monitor is asked, and that it cannot end a training."""

import logging

import pytest

from visrep.engine.hooks import Evaluate, is_due


@pytest.mark.parametrize(("total", "times"), [(4, 1), (10, 3), (10, 20), (1, 5), (1000, 20)])
def test_as_often_as_wanted_evenly_and_at_the_end(total: int, times: int) -> None:
    steps = [step for step in range(1, total + 1) if is_due(step, total, times)]
    assert len(steps) == min(times, total) and steps[-1] == total
    gaps = {b - a for a, b in zip([0, *steps], steps, strict=False)}
    assert max(gaps) - min(gaps) <= 1


class Training:
    step, total_steps = 4, 4

    def __init__(self) -> None:
        self.task, self.written, self.trains = self, [], 0

    def train(self) -> None:
        self.trains += 1

    def write(self, metrics: dict[str, float]) -> None:
        self.written.append(metrics)


def test_a_failure_is_a_warning(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(logging.getLogger("visrep"), "propagate", True)
    answers = iter([ValueError("the disk is gone"), {"knn": 50.0}])

    def evaluate() -> dict[str, float]:
        answer = next(answers)
        if isinstance(answer, Exception):
            raise answer
        return answer

    training, hook = Training(), Evaluate(evaluate, times=1, name="the kNN monitor")
    hook.before_training(training)
    assert training.trains == 0, "nothing comes before the first step"
    hook.after_step(training)
    assert "the kNN monitor of step 4 failed: the disk is gone" in caplog.text
    assert training.written == [] and training.trains == 1
    hook.after_step(training)
    assert training.written == [{"knn": 50.0}] and training.trains == 2
