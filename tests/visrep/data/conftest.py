"""The log's lines, for the tests of data readers."""

import logging
from collections.abc import Iterator

import pytest


@pytest.fixture
def log_lines() -> Iterator[list[str]]:
    """What the logger "visrep" is told; it may not propagate, so pytest's own fixture is deaf."""
    lines: list[str] = []

    class Keep(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(record.getMessage())

    logger, handler = logging.getLogger("visrep"), Keep()
    level = logger.level
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    yield lines
    logger.removeHandler(handler)
    logger.setLevel(level)
