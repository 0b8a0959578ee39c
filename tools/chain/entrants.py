"""The methods of a rehearsal, as their recipes and their classes describe them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch

from visrep import config, groups
from visrep.errors import ConfigError
from visrep.nn.batchnorm import BatchNorm
from visrep.pretrain.train import make_method

RECIPE = "_scenes"  # ends the name of a recipe for the built-in data


@dataclass(frozen=True)
class Entrant:
    """A method.

    Attributes:
        name: in `methods=`; its recipe is method/NAME_scenes.yaml.
        title: as papers write it.
        judge: which of `measures` the bar is on.
        share: of the training time, in proportion.
        family: methods of one family train the same net, and so share what is measured untrained;
            a method whose recipe chooses its backbone is a family of its own.
        normed: its encoder has batch norms, whose statistics can be those of the data.
        recipe: what `pretrain` is told of it.
        step: what `benchmark` is told beside it.
    """

    name: str
    title: str
    judge: str
    share: float
    family: str
    normed: bool
    recipe: tuple[str, ...]
    step: tuple[str, ...]

    @property
    def measures(self) -> tuple[str, ...]:
        """The commands that evaluate its encoder."""
        return ("svm", "linear", "knn") if self.judge == "svm" else ("linear", "knn")


def entrants(
    names: Sequence[str], *, net: str, seed: int, shares: Mapping[str, float]
) -> list[Entrant]:
    """The methods `names`, on the backbone `net`; 1.0 where `shares` says nothing.

    Raises:
        ConfigError: one has no recipe, is named twice, or has no share of the time.
    """
    choices = [name for name in groups.choices("method") if name.endswith(RECIPE)]
    known = [name.removesuffix(RECIPE) for name in choices]
    if not names or len(set(names)) < len(names) or set(names) - set(known):
        raise ConfigError(f"methods={names}: choose from {', '.join(known)}, each once")
    for name in names:
        if shares.get(name, 1.0) <= 0:
            raise ConfigError(f"shares.{name}={shares[name]}: a share must be above 0")
    return [_entrant(name, net, seed, float(shares.get(name, 1.0))) for name in names]


def _entrant(name: str, net: str, seed: int, share: float) -> Entrant:
    defaults = groups.named("method", name + RECIPE).get("defaults", [])
    own = any("override /backbone" in line for line in defaults)
    backbone = () if own else (f"backbone={net}",)
    recipe = ("data=scenes", f"method={name}{RECIPE}", *backbone, f"seed={seed}")
    composed = config.compose("pretrain", ["out=none", *recipe])[0]
    with torch.device("meta"):  # no memory, no numbers
        method = make_method(composed, images=1)
    return Entrant(
        name=name,
        title=method.title,
        judge=method.judge,
        share=share,
        family=name if own else "resnet",
        normed=any(isinstance(module, BatchNorm) for module in method.encoder.modules()),
        recipe=recipe,
        step=tuple(f"{key}={composed[key]}" for key in ("batch_size", "bn_splits", "precision")),
    )
