"""`visrep report runs=DIR`: one self-contained page of everything measured below DIR.

The page holds its pictures and its style, needs no network and no script, and shows what the
commands wrote; it computes nothing but means and ranges.
"""

from pathlib import Path

from omegaconf import DictConfig

from visrep.errors import ConfigError, UserError
from visrep.files import write_text
from visrep.tools.report.page import MARK, page
from visrep.tools.report.runs import collect


def main(cfg: DictConfig) -> None:
    """Read the runs, write the page."""
    out = Path(cfg.out)
    if out.suffix not in (".html", ".htm"):
        raise ConfigError(f"out={out}: name a file that ends in .html")
    if cfg.images < 1:
        raise ConfigError(f"images={cfg.images}: at least 1")
    if not 0 <= cfg.min_score <= 1:
        raise ConfigError(f"min_score={cfg.min_score}: between 0 and 1")
    _refuse_to_replace(out)
    runs = collect(cfg.runs)
    html = page(runs, title=cfg.title, images=int(cfg.images), min_score=float(cfg.min_score))
    write_text(out, html)
    for note in dict.fromkeys(runs.notes):
        print(note)
    print(
        f"{out}: {len(runs.records)} numbers of {len(runs.folders)} runs, {len(html) / 1e6:.1f} MB"
    )


def _refuse_to_replace(out: Path) -> None:
    """A report is made again at will; a page that is none of ours is not replaced."""
    if out.is_dir():
        raise ConfigError(f"out={out} is a folder: name a file in it")
    if out.exists():
        with open(out, encoding="utf-8", errors="replace") as stream:
            ours = MARK in stream.read(2000)
        if not ours:
            raise UserError(
                f"{out} is no report of visrep, so it is left alone; choose another out="
            )
