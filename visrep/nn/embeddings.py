"""What every loss does with embeddings: full precision, unit length, a look at their spread."""

import functools
from collections.abc import Callable, Mapping
from typing import Any, ParamSpec, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from visrep.errors import ConfigError

P = ParamSpec("P")
R = TypeVar("R")


def full_precision(function: Callable[P, R]) -> Callable[P, R]:
    """Run `function` outside autocast, its tensors at least float32 (float64 stays float64).

    exp(1 / T) overflows float16 at T = 0.09, and a cosine in bfloat16 has two digits.
    """

    @functools.wraps(function)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        given = [x for x in (*args, *kwargs.values()) if isinstance(x, Tensor)]
        device = given[0].device.type if given else "cpu"
        with torch.autocast(device, enabled=False):
            wide_args: Any = [widen(x) for x in args]
            wide_kwargs: Any = {name: widen(x) for name, x in kwargs.items()}
            return function(*wide_args, **wide_kwargs)

    return wrapped


def widen(x: Any) -> Any:
    """A tensor of half precision as float32; anything else as it is."""
    if isinstance(x, Tensor) and x.is_floating_point():
        return x.to(torch.promote_types(x.dtype, torch.float32))
    return x


@full_precision
def unit(x: Tensor) -> Tensor:
    """Rows of N x D divided by their length (at least 1e-12)."""
    return F.normalize(x, dim=1)


@torch.no_grad()
@full_precision
def spread(x: Tensor) -> Tensor:
    """Standard deviation of each dimension of the unit rows of N x D, averaged over D.

    About 1 / sqrt(D) for embeddings that fill the sphere, 0 when they have collapsed to a point
    (arXiv 2011.10566, section 4.1).
    """
    return F.normalize(x, dim=1).std(dim=0, correction=0).mean()


def two_views(batch: Mapping[str, Any]) -> tuple[Tensor, Tensor]:
    """The two views of a batch, n x 3 x h x w each.

    Raises:
        ConfigError: the view recipe makes another number of them.
    """
    views = batch["views"]
    if len(views) != 2:
        raise ConfigError(
            f"this method compares two views of an image, but views= makes {len(views)}: choose a "
            "recipe with two"
        )
    return views[0], views[1]
