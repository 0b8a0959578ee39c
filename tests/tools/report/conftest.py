"""A small run of everything."""

from pathlib import Path

import pytest

from tests.tools.report import sample_runs


@pytest.fixture
def chain(tmp_path: Path) -> Path:
    """Laid out as the demo does."""
    return sample_runs.chain(tmp_path / "demo")
