"""What Detectron2 says and raises, in our manner. Nothing here imports it."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from visrep import dist
from visrep.errors import Diverged


@contextmanager
def logged_to(out: Path) -> Iterator[None]:
    """Detectron2's own log lines and warnings go to the run's log file, not to the console."""
    name = "log.txt" if dist.is_main() else f"log.rank{dist.rank()}.txt"
    handler = logging.FileHandler(out / name, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    loggers = [logging.getLogger(name) for name in ("detectron2", "fvcore", "torch.fx")]
    before = [(logger.level, logger.propagate) for logger in loggers]
    try:
        for logger in loggers:
            logger.addHandler(handler)
            logger.setLevel(logging.INFO)
            logger.propagate = False
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, of how Detectron2 uses it
            yield
    finally:
        for logger, (level, propagate) in zip(loggers, before, strict=True):
            logger.removeHandler(handler)
            logger.setLevel(level)
            logger.propagate = propagate
        handler.close()


@contextmanager
def diverged() -> Iterator[None]:
    """Detectron2's FloatingPointError as our `Diverged`."""
    try:
        yield
    except FloatingPointError as error:
        first = str(error).splitlines()[0]
        raise Diverged(
            f"Detectron2: {first} Lower lr, or lengthen the warm-up (warmup=...)"
        ) from error
