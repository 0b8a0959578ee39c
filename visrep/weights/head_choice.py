"""Which of a checkpoint's projection head and classifier goes into an encoder file.

The file's classifier sits on the whole of its head. A checkpoint that has both trained them on the
same features or one on the middle of the other, so that one of them is left out, by name.
"""

from visrep.errors import UserError
from visrep.weights.containers.tree import float_tensor
from visrep.weights.foreign import Choice, ForeignTensors, Head, Raw

CLASSIFIER = "of the classifier"


def head_or_classifier(
    foreign: ForeignTensors, choice: Choice, head: Head | None, fc: Raw, *, sits_on: int | None
) -> tuple[Head | None, Raw]:
    """The head whole, which a finetune can start from; or with `choice.classifier=K` its first K
    layers and the classifier on them.

    A head that was never trained, as SimCLR's code puts it beside a supervised net, is left out:
    its batch norms have a gamma of exactly 1 and a beta of exactly 0.

    Args:
        sits_on: the layer of the head that the classifier was trained on (0: the encoder); None
            if the checkpoint does not say.

    Raises:
        UserError: `choice.classifier` is no such layer.
    """
    if head is None or not fc:
        return head, fc
    layers, tensors = head
    at = choice.classifier
    if at is None and _untrained(foreign, head):
        at = 0
    if at is None:
        which = "0, or the layer of the head that it sits on," if sits_on is None else f"{sits_on}"
        foreign.count(f"{CLASSIFIER} (classifier={which} keeps it)", len(fc))
        return head, {}
    if not 0 <= at <= len(layers) or sits_on not in (None, at):
        known = f"{sits_on}" if sits_on is not None else f"a number from 0 to {len(layers)}"
        raise UserError(
            f"{foreign.tree.path}: its classifier does not sit on layer {at} of the head: give "
            f"classifier={known}"
        )
    starts = tuple(f"layers.{i}." for i in range(at))
    kept = {name: t for name, t in tensors.items() if name.startswith(starts)} if at else {}
    trained = "" if choice.classifier is not None else ", which was never trained"
    foreign.count(f"of the projection head{trained}", len(tensors) - len(kept))
    return ((layers[:at], kept) if at else None), fc


def _untrained(foreign: ForeignTensors, head: Head) -> bool:
    norms = {name: t for name, t in head[1].items() if ".norm." in name}
    start = {"weight": 1.0, "bias": 0.0}
    values = [
        (float_tensor(foreign.tree, name, t), start[kind])
        for name, t in norms.items()
        if (kind := name.rpartition(".")[2]) in start
    ]
    return bool(values) and all(bool((tensor == value).all()) for tensor, value in values)
