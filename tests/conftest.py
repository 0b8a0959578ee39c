"""Settings of every test: one thread, so that results and times do not depend on the machine."""

import importlib.util
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch

from tests.processes import two_processes  # noqa: F401  (a fixture)

torch.set_num_threads(1)


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
