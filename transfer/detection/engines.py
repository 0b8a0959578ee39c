"""The engines that train and run detectors: which one, what it cannot do, a kept detector in it."""

from typing import Any

from visrep.d2 import installed
from visrep.d2 import opts as d2_opts
from visrep.d2.recipe import DetectionRecipe
from visrep.engine.run import Run
from visrep.errors import ConfigError
from visrep.transfer.detection import engine_d2, engine_tv, translation
from visrep.transfer.detection.detector_file import DetectorFile

INSTALL = "https://detectron2.readthedocs.io/en/latest/tutorials/install.html"


def choose(asked: str) -> tuple[str, str]:
    """The engine to use and why, for engine=auto, detectron2 or torchvision.

    Raises:
        ConfigError: another word, or Detectron2 where it cannot be imported.
    """
    if asked not in ("auto", "detectron2", "torchvision"):
        raise ConfigError(f"engine={asked}: choose auto, detectron2 or torchvision")
    if asked == "torchvision":
        return asked, "asked for; the detector is Detectron2's to 1e-4, what it draws is not"
    found, problem = installed.version()
    if found:
        return "detectron2", f"version {found}" if asked == "auto" else f"asked for, {found}"
    if asked == "detectron2":
        raise ConfigError(
            f"engine=detectron2: {problem}; install it as {INSTALL} says, or use engine=torchvision"
        )
    return "torchvision", f"{problem}; the detector is Detectron2's to 1e-4, what it draws is not"


def refuse(recipe: DetectionRecipe, engine: str, *, opts: Any = ()) -> None:
    """Raise ConfigError where `engine` cannot do what the recipe, or `opts`, asks for."""
    if engine == "torchvision" and recipe.beyond:
        raise ConfigError(
            f"task={recipe.task} has settings that only Detectron2 knows "
            f"({', '.join(recipe.beyond)}): use engine=detectron2, or detectron2=null to leave "
            "them out"
        )
    if engine == "torchvision" and recipe.norm == "naiveSyncBN":
        raise ConfigError("norm=naiveSyncBN is Detectron2's: use norm=BN, which is shared as well")
    if engine == "torchvision" and opts:
        raise ConfigError("d2_opts are settings of Detectron2: use engine=detectron2")
    d2_opts.check(opts, recipe)
    if opts:
        d2_opts.check_known(opts)


def loaded(file: DetectorFile, engine: str, run: Run) -> Any:
    """The detector of `file` in `engine`, with `predict_all`.

    Raises:
        ConfigError: it was trained by the other engine, and this one cannot run it.
        UserError: the file does not hold what it names.
    """
    if engine == "detectron2":
        if file.engine != engine:
            file = translation.to_detectron2(file)
            file.config = engine_d2.config_of(file, run)
        return engine_d2.load(file, run)
    file = file if file.engine == engine else translation.to_torchvision(file)
    return engine_tv.load(file, run.device)
