"""An encoder's tensors in a Detectron2 model. Nothing here imports Detectron2.

Its own checkpointer matches names by their endings and only warns of what it could not place; here
every tensor must find its place.
"""

from collections.abc import Iterable

from torch import nn

from visrep.d2.pkl import detectron2_name
from visrep.errors import ConfigError
from visrep.nn.resnet import ResNet
from visrep.weights.encoder_file import COUNTER


def head_in(model: nn.Module) -> str:
    """Where a model has the encoder's last stage, in the words of `place_of`."""
    if hasattr(getattr(model, "roi_heads", None), "res5"):
        return "c4"
    return "fpn" if hasattr(model.backbone, "bottom_up") else "plain"


def place_of(name: str, *, head: str) -> str:
    """Where a model keeps the encoder's tensor that is called `name` in a `.pkl`.

    head: `c4` (the last stage is the head of regions), `fpn`, or `plain` for a bare backbone.
    """
    if head == "c4" and name.startswith("res5."):
        return f"roi_heads.{name}"
    return ("backbone.bottom_up." if head == "fpn" else "backbone.") + name


def places_in(state: Iterable[str], *, head: str) -> list[str]:
    """The names of a model's state that the encoder must fill."""
    trunk = place_of("", head=head)
    return [
        name
        for name in state
        if name.startswith((trunk, "roi_heads.res5."))
        and not name.endswith(COUNTER)
        and not name.startswith("roi_heads.res5.norm.")  # the norm that MoCo's recipe adds
    ]


def place(model: nn.Module, encoder: ResNet) -> int:
    """Copy every tensor of `encoder` to its place in a Detectron2 model; returns how many.

    Raises:
        ConfigError: a tensor has no place or another shape, or a backbone tensor stays unset, as
            happens when d2_opts change the backbone.
    """
    state, head = model.state_dict(), head_in(model)
    placed = {
        place_of(detectron2_name(name, stem=encoder.spec["stem"]), head=head): tensor
        for name, tensor in encoder.state_dict().items()
        if not name.endswith(COUNTER)
    }
    wrong = [n for n, t in placed.items() if n not in state or state[n].shape != t.shape]
    unset = [name for name in places_in(state, head=head) if name not in placed]
    if wrong or unset:
        which = f"{wrong[0]} has no place" if wrong else f"{unset[0]} is not set"
        raise ConfigError(
            f"Detectron2's model does not take the encoder's tensors: {which}; d2_opts must leave "
            "the backbone as it is"
        )
    device = next(model.parameters()).device
    model.load_state_dict({**state, **{n: t.to(device) for n, t in placed.items()}})
    return len(placed)
