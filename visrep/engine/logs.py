"""The log of a run: lines on the console and in `log.txt`."""

import contextlib
import logging
import sys
from pathlib import Path

from visrep import dist
from visrep.errors import UserError

log = logging.getLogger("visrep")


def start(out: Path) -> None:
    """Log to the console and to `out`/log.txt; other processes than the first to a file only.

    Raises:
        UserError: the file cannot be written.
    """
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
        with contextlib.suppress(OSError):  # what its disk did not take is lost already
            handler.close()
    path = out / ("log.txt" if dist.is_main() else f"log.rank{dist.rank()}.txt")
    if dist.is_main():
        console = _Console(sys.stdout)
        console.setFormatter(logging.Formatter("%(message)s"))
        log.addHandler(console)
    try:
        to_file = _LogFile(path, encoding="utf-8")
    except OSError as error:
        raise UserError(
            f"cannot write {path}: {error.strerror}; remove what is there, or choose another out="
        ) from error
    to_file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(to_file)


class _OneComplaint(logging.Handler):
    """Says once that its lines are lost; Python's own handlers print a traceback for each."""

    complained = False
    place: str

    def handleError(self, record: logging.LogRecord) -> None:
        error = sys.exc_info()[1]
        if not isinstance(error, OSError):
            super().handleError(record)
        elif not self.complained:
            self.complained = True
            with contextlib.suppress(OSError):
                print(
                    f"visrep: {self.place} takes no more lines ({error.strerror}); the run goes on",
                    file=sys.stderr,
                )


class _Console(_OneComplaint, logging.StreamHandler):
    place = "the console"


class _LogFile(_OneComplaint, logging.FileHandler):
    place = "the log file"
