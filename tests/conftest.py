"""Settings of every test: one thread, so that results and times do not depend on the machine."""

import importlib.util
import logging
import os
import subprocess
from collections.abc import Iterator
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.processes import two_processes  # noqa: F401  (a fixture)

torch.set_num_threads(1)

TRACEBACK = "Traceback (most recent call last)"
_communicate = subprocess.Popen.communicate


def communicate(self: subprocess.Popen, *args: Any, **kwargs: Any) -> Any:
    """Fail the test whose visrep command prints a traceback, whatever else it looks at."""
    found = _communicate(self, *args, **kwargs)
    command = [str(word) for word in self.args] if isinstance(self.args, list | tuple) else []
    if command[1:3] == ["-m", "visrep"]:
        for text in found:
            text = text.decode(errors="replace") if isinstance(text, bytes) else text or ""
            assert TRACEBACK not in text, f"{' '.join(command)}\n{text}"
    return found


@pytest.fixture(autouse=True)
def _no_traceback(monkeypatch: pytest.MonkeyPatch) -> None:
    """Users see lines: what a command in a process of its own prints is looked at here.

    Those in this process raise what they do not handle, so their tests fail of themselves.
    """
    monkeypatch.setattr(subprocess.Popen, "communicate", communicate)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip what this machine cannot run, and say why."""
    reasons = {}
    if not torch.cuda.is_available():
        reasons["gpu"] = "no CUDA device"
    if importlib.util.find_spec("detectron2") is None:
        reasons["detectron2"] = "Detectron2 is not installed"
    for item in items:
        for marker, reason in reasons.items():
            if item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=f"{marker}: {reason}"))


@pytest.fixture(autouse=True)
def _logger_that_propagates() -> Iterator[None]:
    """A run stops the propagation of its log; pytest would then hear what a later test lets through
    twice."""
    logger = logging.getLogger("visrep")
    logger.propagate = True
    yield
    logger.propagate = True
