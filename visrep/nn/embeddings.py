"""What every loss does with embeddings: full precision, unit length, how they are spread."""

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
    """Standard deviation of each dimension of the unit rows of N x D, averaged, times sqrt(D).

    About 1 for embeddings that fill the sphere, 0 when they have collapsed to a point
    (arXiv 2011.10566, section 4.1, plots it without the factor).
    """
    return F.normalize(x, dim=1).std(dim=0, correction=0).mean() * x.shape[1] ** 0.5


@torch.no_grad()
@full_precision
def effective_rank(x: Tensor) -> Tensor:
    """Directions that the unit rows of N x D occupy: 1 (a line through 0) to min(N, D).

    exp of the entropy of the singular values, divided by their sum (Roy and Vetterli 2007; RankMe,
    arXiv 2210.02885, of rows that are neither centred nor of unit length). NaN when x holds a value
    that is not finite.
    """
    unit_rows = F.normalize(x.double(), dim=1)
    small = unit_rows if len(x) <= x.shape[1] else unit_rows.T
    gram = small @ small.T  # float64: its eigenvalues are the squares of the singular values
    finite = gram.isfinite().all()
    values = torch.linalg.eigvalsh(gram.where(finite, torch.zeros_like(gram)))
    singular = values.clamp_min(0).sqrt()
    p = singular / singular.sum().clamp_min(torch.finfo(gram.dtype).tiny)
    return torch.special.entr(p).sum().exp().where(finite, gram.new_tensor(torch.nan))


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
