"""A log that cannot be written is one line, never a traceback."""

import contextlib
import logging
from pathlib import Path

import pytest

from visrep.engine import logs
from visrep.errors import UserError


@pytest.fixture(autouse=True)
def _closed():
    yield
    for handler in list(logs.log.handlers):
        logs.log.removeHandler(handler)
        with contextlib.suppress(OSError):  # /dev/full
            handler.close()


def test_a_file_that_cannot_be_opened_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.txt").mkdir()
    with pytest.raises(UserError, match=r"cannot write .*log\.txt: Is a directory"):
        logs.start(tmp_path)


def test_a_full_disk_is_said_once_and_the_console_goes_on(tmp_path: Path, capsys) -> None:
    (tmp_path / "log.txt").symlink_to("/dev/full")
    logs.start(tmp_path)
    for number in range(3):
        logging.getLogger("visrep").info("line %d", number)
    out, err = capsys.readouterr()
    assert out.splitlines() == ["line 0", "line 1", "line 2"]
    assert err.count("takes no more lines (No space left on device)") == 1
    assert "Traceback" not in err
    logs.start(tmp_path)  # the next run of a sweep
