"""The checkpoint formats that `weights=` understands, one module each.

A module holds NAME, `recognise(tree) -> bool`, which looks at names of keys and metadata only, and
`read(tree, choice) -> EncoderFile`, where `choice` is what the user asks for. To add a format, add
its module and one line to FORMATS. A file must match exactly one: nothing is guessed.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from visrep.errors import UserError
from visrep.weights.containers.pickle_records import Inert, printable
from visrep.weights.containers.torch_files import Tree, tensors_in
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.foreign import Choice
from visrep.weights.formats import (
    barlow_twins,
    byol,
    detectron2,
    huggingface,
    lightly,
    lightly_train,
    moco,
    npid,
    openmmlab,
    simclr_tf,
    simclr_torch,
    simsiam,
    solo_learn,
    swav,
    timm,
    torchvision,
    visrep_encoder,
    vissl,
)


@dataclass(frozen=True)
class Format:
    """A kind of checkpoint: what it is called, how it is told, how it is read."""

    name: str
    recognise: Callable[[Tree], bool]
    read: Callable[[Tree, Choice], EncoderFile]


OURS = Format(visrep_encoder.NAME, visrep_encoder.recognise, visrep_encoder.read)
FORMATS = [
    OURS,
    Format(torchvision.NAME, torchvision.recognise, torchvision.read),
    Format(simclr_tf.NAME, simclr_tf.recognise, simclr_tf.read),
    Format(simclr_torch.NAME, simclr_torch.recognise, simclr_torch.read),
    Format(byol.NAME, byol.recognise, byol.read),
    Format(timm.NAME, timm.recognise, timm.read),
    Format(huggingface.NAME, huggingface.recognise, huggingface.read),
    Format(vissl.NAME, vissl.recognise, vissl.read),
    Format(openmmlab.NAME, openmmlab.recognise, openmmlab.read),
    Format(detectron2.NAME, detectron2.recognise, detectron2.read),
    Format(moco.NAME, moco.recognise, moco.read),
    Format(simsiam.NAME, simsiam.recognise, simsiam.read),
    Format(swav.NAME, swav.recognise, swav.read),
    Format(barlow_twins.NAME, barlow_twins.recognise, barlow_twins.read),
    Format(lightly.NAME, lightly.recognise, lightly.read),
    Format(solo_learn.NAME, solo_learn.recognise, solo_learn.read),
    Format(lightly_train.NAME, lightly_train.recognise, lightly_train.read),
    Format(npid.NAME, npid.recognise, npid.read),
]


def identify(tree: Tree) -> Format:
    """The one format that `tree` has.

    Raises:
        UserError: none or several match; the message lists the prefixes found, with counts.
    """
    if OURS.recognise(tree):
        return OURS  # its metadata say what it is; its names alone are torchvision's
    matches = [kind for kind in FORMATS if kind.recognise(tree)]
    if len(matches) == 1:
        return matches[0]
    found = f"found {prefixes(tree)}"
    if isinstance(tree.value, Inert):
        found += (
            f"; it is a whole {printable(tree.value.name)}: save its state dict alone, with "
            "torch.save(model.state_dict(), ...)"
        )
    if matches:
        names = " and ".join(kind.name for kind in matches)
        raise UserError(f"{tree.path} fits several formats, {names}; {found}")
    known = ", ".join(kind.name for kind in FORMATS)
    raise UserError(f"{tree.path} fits none of the known formats ({known}); {found}")


def prefixes(tree: Tree, *, most: int = 8) -> str:
    """The first parts of the names of all tensors with their counts, the most frequent first."""
    counts = Counter(_prefix(name) for name, _ in tensors_in(tree.value))
    if not counts:
        return "no tensor"
    shown = [f"{name} {count}" for name, count in counts.most_common(most)]
    rest = len(counts) - len(shown)
    return ", ".join(shown) + (f" and {rest} more prefixes" if rest > 0 else "")


def _prefix(name: str) -> str:
    if not name:
        return "a single tensor"
    containers, _, last = name.rpartition("/")
    parts = last.split(".")
    wrappers = 1 if parts[0] in ("module", "model") else 0
    head = ".".join(parts[: wrappers + 1]) + ("." if len(parts) > wrappers + 1 else "")
    return printable(f"{containers}/{head}" if containers else head)
