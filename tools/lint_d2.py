"""`visrep lint-d2 CONFIG [WEIGHTS]`: the known mistakes in a Detectron2 config, before a run."""

from pathlib import Path

from omegaconf import DictConfig

from visrep.d2.lint.config import read_config
from visrep.d2.lint.finding import FATAL
from visrep.d2.lint.linter import lint, text
from visrep.d2.lint.loading import split_weights
from visrep.d2.lint.weights import read_file
from visrep.errors import CheckFailed


def main(cfg: DictConfig) -> None:
    """Print the findings on `cfg.config`, the gravest first, and a table of them.

    Raises:
        CheckFailed: one of them is fatal.
        UserError: a file cannot be read.
    """
    config = read_config(cfg.config, opts=list(cfg.opts))
    named, option = split_weights(config)
    given = cfg.weights if cfg.weights is not None else named if Path(named).is_file() else None
    weights = None if given is None else read_file(Path(given))
    if weights is not None and option and Path(named).name == weights.path.name:
        weights.heuristics = True
    findings = lint(config, weights)
    print(text(config, weights, findings))
    fatal = [finding.check for finding in findings if finding.severity == FATAL]
    if fatal:
        raise CheckFailed(f"{config.path}: {len(fatal)} fatal: {', '.join(dict.fromkeys(fatal))}")
