"""The contract of a method: all that the loop, the checks and the tools know of one."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from visrep.engine.levels import Levels
from visrep.engine.task import Progress, Task
from visrep.errors import ConfigError
from visrep.nn.heads import MLP

__all__ = ["Levels", "Method", "Plan", "Progress", "require_contract"]

BATCHNORM = ("local", "sync", "shuffle")
JUDGES = ("knn", "svm")


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that is about to start: what a method is told, so that it can say what does not fit.

    Attributes:
        batch_size: images of one step over all processes.
        views: of every image.
        images: how many different values a batch's `index` has.
        steps: updates of the whole run.
    """

    batch_size: int
    views: int
    images: int
    steps: int

    def require_views(self, count: int) -> None:
        """Raise ConfigError unless there are `count` views of an image."""
        if self.views != count:
            raise ConfigError(
                f"this method takes {count} view{'s' if count > 1 else ''} of an image, but views= "
                f"makes {self.views}: choose a recipe with {count}"
            )


class Method(Task):
    """A method: what makes a loss of views, and of a net an encoder.

    A class gives `title`, `encoder`, `forward` and `reference_levels`, and of the rest what differs
    from the defaults. Its constructor takes the encoder, and keywords that the yaml may state.

    Attributes:
        title: what reports call it: "MoCo v2".
        views: of an image that it takes; None leaves the number to `check`.
        batchnorm: whose statistics its batch norms use: sync, those of all processes together;
            local, each process' own; shuffle, local too, and the method mixes who is normalised
            with whom (`dist.shuffled`), for which one process splits its batch into `bn_splits`.
        coupled: does the loss compare the samples of a batch? Then the micro-batches of
            `accumulate=` do not add up to a larger batch, and are refused.
        judge: what tells in a rehearsal whether it has learnt: knn, or svm, of all layers.
        root_rule_below: batch size below which the square root of the batch is known to suit its
            learning rate under LARS better than the linear rule; 0 where nothing is known.
        encoder: what is trained, and exported at the end; its `out_dim` is the width.
        head: an `MLP` on the encoder that is kept in its file, for finetunes that begin in its
            middle and for k nearest neighbours on its output; None for none.
    """

    title: str = ""
    views: int | None = 2
    batchnorm: str = "sync"
    coupled: bool = True
    judge: str = "knn"
    root_rule_below: int = 0
    encoder: Any
    head: Any

    def __init__(self) -> None:
        super().__init__()
        self.head = None

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The loss of a batch: this process' share, n images.

        Args:
            batch: `views`, a list of n x 3 x h x w; `index`, n, int64, which images they are of;
                `seed`, of this step, the same on all processes; `label`, n, int64, or absent.

        Returns:
            `loss`, a scalar with a gradient, the mean over this process' share or over the whole
            batch; `embeddings`, n x D or more rows, detached, for the health watch; any other
            detached scalar is logged.
        """
        raise NotImplementedError

    def reference_levels(self, batch_size: int) -> Levels:
        """What the loss is when all features are alike, and the knobs to turn then."""
        raise NotImplementedError

    def check(self, plan: Plan) -> list[str]:
        """Lines of warning about a run, before its first step.

        Raises:
            ConfigError: it cannot train.
        """
        if self.views is not None:
            plan.require_views(self.views)
        return []

    def passes(self, areas: Sequence[float]) -> float:
        """Encoder passes per image that it cannot do without, in passes of its first view.

        3 for a view that is trained on (forward, backward twice), 1 for one that is not.

        Args:
            areas: of an image's views, as a share of the first one's.
        """
        return 3 * sum(areas)


def require_contract(method: object, *, batch_size: int) -> None:
    """Raise ConfigError, which names member and class, where `method` breaks the contract.

    What `forward` returns is looked at in the first step (`visrep.engine.task`).
    """
    name = f"{type(method).__module__}.{type(method).__qualname__}"
    if not isinstance(method, Method):
        raise ConfigError(f"method: {name} must derive from visrep.pretrain.method.Method")

    def given(member: str) -> Any:
        return getattr(method, member, None)

    def one_of(member: str, known: Sequence[str]) -> tuple[str, bool, str]:
        return member, given(member) in known, " or ".join(known)

    number = isinstance(getattr(given("encoder"), "out_dim", None), int)
    for member, holds, wanted in (
        ("title", isinstance(method.title, str) and method.title != "", "a name for reports"),
        ("encoder", isinstance(given("encoder"), nn.Module) and number, "a net with an out_dim"),
        ("head", isinstance(method.head, MLP | None), "a visrep.nn.heads.MLP, or None"),
        ("views", isinstance(method.views, int | None), "a number of views, or None for any"),
        one_of("batchnorm", BATCHNORM),
        one_of("judge", JUDGES),
        ("coupled", isinstance(method.coupled, bool), "true or false"),
        ("root_rule_below", isinstance(method.root_rule_below, int), "a batch size, or 0"),
    ):
        if not holds:
            raise ConfigError(f"method: {name}.{member} must be {wanted}, not {given(member)!r}")
    if type(method).forward is Method.forward:
        raise ConfigError(f"method: {name}.forward is missing: it must return a dict with loss")
    levels = "visrep.pretrain.method.Levels: what the loss is when the features collapse"
    if type(method).reference_levels is Method.reference_levels:
        raise ConfigError(f"method: {name}.reference_levels is missing: it must return {levels}")
    if not isinstance(method.reference_levels(batch_size), Levels):
        raise ConfigError(f"method: {name}.reference_levels must return {levels}")
