"""What `visrep convert` has written, read back and compared: `CheckFailed` if it differs."""

import contextlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType

import torch
from torch import Tensor

from visrep.errors import CheckFailed, UserError
from visrep.seeds import generator
from visrep.weights.containers.tree import OnDemand, Tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.reading import encoder_of

TOLERANCE = 1e-5


@contextlib.contextmanager
def checking(names: Mapping[Path, Path]) -> Iterator[None]:
    """What goes wrong here is a failed check; `names`: temporary -> what the user knows it by."""
    try:
        yield
    except UserError as error:
        text = str(error)
        for temporary, name in names.items():
            text = text.replace(str(temporary), str(name))
        raise CheckFailed(text) from error


def require_equal(
    read_back: Mapping[str, Tensor], written: Mapping[str, Tensor], out: Path
) -> None:
    lost = sorted(set(written) - set(read_back))
    strange = sorted(set(read_back) - set(written))
    if lost or strange:
        which = f"{lost[0]} is lost" if lost else f"{strange[0]} has appeared"
        raise CheckFailed(f"{out}: read back, {len(lost) + len(strange)} tensors differ: {which}")
    for name, tensor in written.items():
        again = read_back[name]  # one at a time: it may be read on demand
        if again.dtype != tensor.dtype or not torch.equal(again, tensor):
            raise CheckFailed(f"{out}: {name} is not the same when it is read back")


def run_in_own_class(file: EncoderFile, written: Tree, out: Path, target: ModuleType) -> str:
    """Compare the features of a net of `target`, torchvision's or timm's format, that `written` is
    loaded into with those of our own net; a line that says what was found, or why there is no such
    net. Only one of the two nets is in memory at a time.

    Raises:
        CheckFailed: they differ.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"):
        own = target.own_class(file)
    if isinstance(own, str):
        return own
    name, net = own
    images = torch.randn(2, 3, 64, 64, generator=generator("check in the target's class"))
    with torch.inference_mode():
        expected = encoder_of(file)(images)
    theirs = OnDemand(written, {k: t for k, t in written.value.items() if k[:3] != "fc."})
    net.load_state_dict(dict(theirs), assign=True)
    with torch.inference_mode():
        given = net.eval()(images)
    difference = float((given - expected).abs().max() / expected.abs().max().clamp_min(1e-30))
    if not difference <= TOLERANCE:
        raise CheckFailed(
            f"{out}: the features of {name} differ by {difference:.2g} of the largest, the limit "
            f"is {TOLERANCE:.0e}"
        )
    advice = "" if file.names("fc") else f"; it has no classifier, so {target.WITHOUT_FC}"
    return f"in {name}: features differ by at most {difference:.1g}{advice}"
