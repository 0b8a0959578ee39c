"""A paper's views from one row of settings; the rows are `configs/views/*.yaml`."""

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

from visrep.data.views.batch import Views
from visrep.data.views.operation import Operation, require
from visrep.data.views.operations import OURS
from visrep.data.views.params import View


def make_views(
    *,
    mean: Sequence[float],
    std: Sequence[float],
    copies: int = 1,
    each: Sequence[Mapping[str, Any]] | None = None,
    **settings: Any,
) -> Views:
    """Views that are drawn alike, or differ where `each` says so.

    Two views alike: `make_views(copies=2, size=224, ...)`. Views that differ (BYOL, Barlow Twins,
    the crops of SwAV): one entry of `each` for each kind, with what differs from the settings they
    share and, where a kind has more than one view, its own `copies`:

        each: [{blur_p: 1.0}, {blur_p: 0.1, solarize_p: 0.2}]
        each: [{size: 224, scale: [0.14, 1], copies: 2}, {size: 96, scale: [0.05, 0.14], copies: 6}]

    Args:
        mean, std: of the normalisation, in units of [0, 1].
        copies: views of a kind.
        each: the kinds; None for one kind.
        settings: those of `make_view`.

    Raises:
        ConfigError: a setting out of its range.
    """
    views: list[View] = []
    for kind in [{}] if each is None else each:
        merged = {"copies": copies, **settings, **kind}
        count = merged.pop("copies")
        views += [make_view(**merged)] * count
    return Views(views=views, mean=mean, std=std)


def make_view(*, order: Sequence[str | Operation] = tuple(OURS), **settings: Any) -> View:
    """One view from settings side by side: those of `View` and of the papers' operations.

    A setting of an operation has its name in front: `blur_sigma` is `sigma` of `Blur`. The two
    exceptions are `jitter` (its strengths) and `brightness_additive` (of the jitter).

    Args:
        order: the operations in the order of their application: names of the papers' (all that
            have a probability, none twice) and whole operations of one's own between them.

    Raises:
        ConfigError: a setting out of its range; the message names it.
    """
    ours = {
        name: kind(**{s: settings.pop(key) for key, s in keys_of(kind).items() if key in settings})
        for name, kind in OURS.items()
    }
    for operation in ours.values():  # those that the order leaves out, too
        operation.require_share("p")
    wanted = f"a list of {', '.join(OURS)}, each once, with all that have a probability"
    require(isinstance(order, list | tuple), "order", order, wanted)
    listed = [entry for entry in order if isinstance(entry, str)]
    used = {name for name, operation in ours.items() if operation.p > 0}
    good = used <= set(listed) <= set(OURS) and len(set(listed)) == len(listed)
    require(good, "order", list(order), wanted)
    operations = tuple(ours[entry] if isinstance(entry, str) else entry for entry in order)
    return View(operations=operations, **settings)


def keys_of(kind: type[Operation]) -> dict[str, str]:
    """What the settings of an operation are called in a yaml: key -> setting."""
    return {kind.key(name): name for name in inspect.signature(kind).parameters}


# The command line takes a signature for the list of settings: it shall see those of a view.
_parameters = [
    *inspect.signature(make_views).parameters.values(),
    *inspect.signature(View).parameters.values(),
    *inspect.signature(make_view).parameters.values(),
    *(
        inspect.Parameter(key, inspect.Parameter.KEYWORD_ONLY)
        for kind in OURS.values()
        for key in keys_of(kind)
    ),
]
make_views.__signature__ = inspect.Signature(  # type: ignore[attr-defined]
    [p for p in _parameters if p.name not in ("settings", "operations")]
)
