"""Converted weights in Detectron2's real backbone: all there, and computing the same?

Detectron2 only warns of tensors that it cannot place, and trains on with random ones.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from transfer.d2_backbone import FEATURES, add_visrep_config
from visrep.data.preprocess import Preprocess
from visrep.errors import CheckFailed
from visrep.seeds import generator
from visrep.weights import EncoderFile, read_weights
from visrep.weights.detectron2 import native
from visrep.weights.reading import encoder_of
from visrep.weights.torch_files import float_tensor, read_tree

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Report:
    """What `verify` has found; it raises unless all of it holds.

    Attributes:
        version: of Detectron2.
        backbone: the class that ran.
        tensors: number of tensors set, which is all of them.
        differences: res2..res5 -> largest |difference| / largest |value|.
    """

    version: str
    backbone: str
    tensors: int
    differences: dict[str, float]

    def __str__(self) -> str:
        worst = max(self.differences.values())
        return (
            f"Detectron2 {self.version} ({self.backbone}): {self.tensors} of {self.tensors} "
            f"tensors set, res2..res5 differ by at most {worst:.1g} (limit {TOLERANCE:.0e})"
        )


def unavailable() -> str | None:
    """Why Detectron2 cannot be used here, as a clause; None if it can."""
    if importlib.util.find_spec("detectron2") is None:
        return "Detectron2 is not installed"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of its use of torch.jit.script
            import detectron2.modeling  # noqa: F401
    except Exception as error:  # a broken build raises anything
        return f"Detectron2 cannot be imported ({_first_line(error)})"
    return None


def verify(
    pkl: str | Path, encoder: str | Path | EncoderFile, *, config: str | Path | None = None
) -> Report:
    """Load `pkl` into the backbone that `config` (default: the yaml beside it) builds, and compare.

    Every tensor must be set, the config must give the pixels our preprocessing gives, and res2 to
    res5 must equal those of our own net on fixed images.

    Raises:
        CheckFailed: one of them does not hold.
        UserError: a file cannot be read.
    """
    import detectron2
    from detectron2.config import get_cfg
    from detectron2.modeling import build_backbone

    file = encoder if isinstance(encoder, EncoderFile) else read_weights(encoder)
    config = Path(pkl).with_suffix(".yaml") if config is None else Path(config)
    cfg = get_cfg()
    if not native(file.backbone):
        add_visrep_config(cfg)
    try:
        cfg.merge_from_file(str(config))
        with torch.random.fork_rng(devices=[]):
            backbone = build_backbone(cfg)
    except (AssertionError, KeyError, ValueError) as error:
        raise CheckFailed(f"{config}: Detectron2 does not take it: {_first_line(error)}") from error
    net = getattr(backbone, "bottom_up", backbone)
    tensors = _load(net, pkl)
    _check_pixels(cfg, file, config)
    differences = _compare(net, file, pkl)
    return Report(detectron2.__version__, type(net).__name__, tensors, differences)


def _load(net: nn.Module, pkl: str | Path) -> int:
    """Load with Detectron2's checkpointer; the number of tensors, if every one is set."""
    from detectron2.checkpoint import DetectionCheckpointer

    tree = read_tree(pkl)
    stored = tree.value["model"]
    with torch.no_grad():
        for name, tensor in net.state_dict().items():
            if name in stored and stored[name].shape != tensor.shape:
                raise CheckFailed(
                    f"{pkl}: {name} is {stored[name].shape}, Detectron2's backbone has "
                    f"{tuple(tensor.shape)}"
                )
            if tensor.is_floating_point():
                tensor.fill_(float("nan"))
    with quiet():
        DetectionCheckpointer(net).load(str(pkl))
    state = {k: v for k, v in net.state_dict().items() if not k.endswith("num_batches_tracked")}
    unset = [
        name
        for name, tensor in state.items()
        if name not in stored or not torch.equal(tensor, float_tensor(tree, name, stored[name]))
    ]
    unused = sorted(set(stored) - set(state))
    if unset or unused:
        which = f"{unset[0]} is not set" if unset else f"{unused[0]} has no place"
        raise CheckFailed(
            f"{pkl}: Detectron2's backbone has {len(state) - len(unset)} of {len(state)} tensors "
            f"set and leaves {len(unused)} of the file unused: {which}"
        )
    return len(state)


def _check_pixels(cfg: Any, file: EncoderFile, config: Path) -> None:
    preprocess = replace(Preprocess.from_dict(file.preprocess), size=256, resize=None)
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    mean, std = torch.tensor([cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD])[..., None, None]
    ours = preprocess(pixels)
    same = _relative((pixels - mean) / std, ours) <= TOLERANCE
    if preprocess.channel_order != cfg.INPUT.FORMAT or not same:
        raise CheckFailed(f"{config}: its pixels are not those that the encoder was trained on")


def _compare(net: nn.Module, file: EncoderFile, pkl: str | Path) -> dict[str, float]:
    images = torch.randn(2, 3, 64, 96, generator=generator("detectron2 check"))
    net.eval()
    with torch.inference_mode():
        theirs = net(images)
        ours = encoder_of(file).feature_maps(images)
    differences = {}
    for name, own in zip(FEATURES, ours, strict=True):
        if theirs[name].shape != own.shape:
            raise CheckFailed(
                f"{pkl}: {name} is {tuple(theirs[name].shape)} in Detectron2 and "
                f"{tuple(own.shape)} here"
            )
        differences[name] = _relative(theirs[name], own)
    worst = max(differences, key=lambda name: differences[name])
    if not all(value <= TOLERANCE for value in differences.values()):
        raise CheckFailed(
            f"{pkl}: {worst} differs by {differences[worst]:.2g} of its largest value in "
            f"Detectron2's backbone, the limit is {TOLERANCE:.0e}"
        )
    return differences


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _relative(a: Tensor, b: Tensor) -> float:
    """max |a - b| / max |b|, NaN if there is one."""
    scale = b.abs().max().clamp_min(torch.finfo(b.dtype).tiny)
    return float((a - b).abs().max() / scale)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the checkpointers' warnings: what they warn of is counted here."""
    names = ("fvcore.common.checkpoint", "detectron2.checkpoint.c2_model_loading")
    levels = {name: logging.getLogger(name).level for name in names}
    try:
        for name in names:
            logging.getLogger(name).setLevel(logging.CRITICAL)
        yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
