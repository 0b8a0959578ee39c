"""A paper's views from one row of settings; the rows are `configs/views/*.yaml`."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from visrep.data.views.batch import View, Views


def recipe(
    *,
    mean: Sequence[float],
    std: Sequence[float],
    copies: int = 1,
    each: Sequence[Mapping[str, Any]] | None = None,
    **view: Any,
) -> Views:
    """Views that are drawn alike, or differ where `each` says so.

    Two views alike: `recipe(copies=2, size=224, ...)`. Views that differ (BYOL, Barlow Twins, the
    crops of SwAV): one entry of `each` for each kind, with what differs from the settings they
    share and, where a kind has more than one view, its own `copies`:

        each: [{blur_p: 1.0}, {blur_p: 0.1, solarize_p: 0.2}]
        each: [{size: 224, scale: [0.14, 1], copies: 2}, {size: 96, scale: [0.05, 0.14], copies: 6}]

    Args:
        mean, std: of the normalisation, in units of [0, 1].
        copies: views of a kind.
        each: the kinds; None for one kind.
        view: arguments of `View`.

    Raises:
        ConfigError: a setting out of its range.
    """
    views: list[View] = []
    for kind in [{}] if each is None else each:
        settings = {"copies": copies, **view, **kind}
        count = settings.pop("copies")
        views += [View(**settings)] * count
    return Views(views=views, mean=mean, std=std)


# The command line takes a signature for the list of settings: it shall see those of View.
_own = inspect.signature(recipe).parameters
recipe.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [
        *(parameter for name, parameter in _own.items() if name != "view"),
        *inspect.signature(View).parameters.values(),
    ]
)
