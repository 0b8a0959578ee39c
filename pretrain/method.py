"""What a method is told of a run before its first step, so that it can say what does not fit."""

from dataclasses import dataclass

from visrep.engine.levels import Levels
from visrep.errors import ConfigError

__all__ = ["Levels", "Plan"]


@dataclass(frozen=True, kw_only=True)
class Plan:
    """A run that is about to start.

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
