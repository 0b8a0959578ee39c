"""A section of the report: what one is, and which there are.

A section is a module with three members:

* `TITLE`, a str: its heading; "" = none is shown.
* `ORDER`, a number: its place on the page; ours stand at 10, 20, ... in `sections/`.
* `render(context)`: its body, made by `context.fill("x.html", name=value, ...)`, which looks for
  the template beside the module, then among ours; or None: the section is left out.

Ours are the modules in `sections/`. A stranger's is a module named in `plugins=` that has `render`.
"""

import importlib
import pkgutil
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, TemplateNotFound
from markupsafe import Markup

from visrep import plugins
from visrep.errors import ConfigError
from visrep.tools.report import sections, words
from visrep.tools.report.pairs import Pair
from visrep.tools.report.rows import Row
from visrep.tools.report.runs import Runs

TEMPLATES = Path(__file__).parent / "templates"
CONTRACT = {
    "TITLE": (lambda it: isinstance(it, str), "a str, the heading"),
    "ORDER": (lambda it: isinstance(it, int | float), "a number, the place on the page"),
    "render": (callable, "a function of the context"),
}


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a section may show.

    Attributes:
        runs: all run folders; `runs.notes` takes a line for what a section cannot read.
        rows: every measure, random init beside pretrained.
        pairs: every distilled student beside its teacher.
        images: test images and neighbour queries shown at most.
        min_score: lowest score of a box that is drawn, 0 to 1.
        folder: where templates are looked for before ours.
    """

    runs: Runs
    rows: list[Row]
    pairs: list[Pair]
    images: int
    min_score: float
    folder: Path = TEMPLATES

    def fill(self, template: str, **values: Any) -> Markup:
        """The template with `context`, the functions of words.py and `values` in it, all escaped.

        Raises:
            ConfigError: there is no such template.
        """
        environment = Environment(
            loader=FileSystemLoader([self.folder, TEMPLATES]),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.globals |= {"context": self, "zip": partial(zip, strict=True)}
        environment.filters |= {each.__name__: each for each in words.FILTERS}
        try:
            return Markup(environment.get_template(template).render(values))
        except TemplateNotFound as error:
            raise ConfigError(f"{self.folder} holds no template {error.name}") from error


def found() -> list[ModuleType]:
    """All sections in their order: ours, and those of the modules named in `plugins=`.

    Raises:
        ConfigError: one breaks the contract; the message names it and the member.
    """
    ours = [name for _, name, _ in pkgutil.iter_modules(sections.__path__, f"{sections.__name__}.")]
    every = [*map(importlib.import_module, ours), *plugins.having("render")]
    for module in every:
        for member, (holds, what) in CONTRACT.items():
            if not holds(getattr(module, member, None)):
                raise ConfigError(f"report section {module.__name__}: {member} must be {what}")
    return sorted(every, key=lambda module: module.ORDER)
