"""Converted weights in Detectron2's real model: all there, and computing the same?

Detectron2 only warns of tensors that it cannot place, and trains on with random ones.
"""

import contextlib
import importlib.util
import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visrep.d2 import heads
from visrep.d2.backbone import FEATURES, add_visrep_config
from visrep.d2.weights import place_of, places_in
from visrep.data.preprocess import Preprocess
from visrep.errors import CheckFailed
from visrep.seeds import generator
from visrep.weights.containers.tree import float_tensor
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.reading import encoder_of, read_weights

TOLERANCE = 1e-5


@dataclass(frozen=True)
class Report:
    """What `verify` has found in one model; it raises unless all of it holds.

    Attributes:
        version: of Detectron2.
        backbone: the class that ran.
        head: where the encoder sits: `fpn`, `c4` (res5 is the head of regions) or `plain`.
        tensors: number of tensors set, which is all of them.
        in_head: how many of them are in the head of regions.
        differences: res2..res5 -> largest |difference| / largest |value|; a dilated res5, which
            computes something else, has its tensors compared only.
    """

    version: str
    backbone: str
    head: str
    tensors: int
    in_head: int
    differences: dict[str, float]

    def __str__(self) -> str:
        first, *_, last = self.differences
        worst = max(self.differences.values())
        place = f", {self.in_head} of them in the C4 head" if self.in_head else ""
        return (
            f"Detectron2 {self.version} ({self.backbone}): {self.tensors} of {self.tensors} "
            f"tensors set{place}, {first}..{last} differ by at most {worst:.1g} "
            f"(limit {TOLERANCE:.0e})"
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
    """Load `pkl` into the model that `config` (default: the yaml beside it) builds, and compare.

    Every tensor must be set, in backbone and C4 head, the config must give the pixels our
    preprocessing gives, and res2 to res5 must equal those of our own net on fixed images.

    Raises:
        CheckFailed: one of them does not hold.
        UserError: a file cannot be read.
    """
    file = encoder if isinstance(encoder, EncoderFile) else read_weights(encoder)
    config = Path(pkl).with_suffix(".yaml") if config is None else Path(config)
    (report,) = verify_all(pkl, file, [config])
    return report


def verify_all(pkl: str | Path, file: EncoderFile, configs: Sequence[Path]) -> list[Report]:
    """`verify` for several configs; those that place the encoder in the same net share a report.

    Raises:
        CheckFailed: see `verify`.
    """
    images = torch.randn(2, 3, 64, 96, generator=generator("detectron2 check"))
    with torch.inference_mode():  # before there is a model: memory holds one net at a time
        ours = dict(zip(FEATURES, encoder_of(file).feature_maps(images), strict=True))
    reports: dict[str, Report] = {}
    for config in configs:
        cfg = _read(config)
        _check_input(cfg, file, config)
        parts = (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME)
        net = str((cfg.MODEL.BACKBONE, cfg.MODEL.RESNETS, cfg.MODEL.VISREP, parts))
        if net in reports:
            continue
        reports[net] = _verify_in(_build(cfg, config), pkl, images, ours)
    return list(reports.values())


def _verify_in(model: Any, pkl: str | Path, images: Tensor, ours: dict[str, Tensor]) -> Report:
    import detectron2

    head = _head(model)
    places = _load(model, pkl, head)
    return Report(
        version=detectron2.__version__,
        backbone=type(_trunk(model)).__name__,
        head=head,
        tensors=len(places),
        in_head=sum(place.startswith("roi_heads.") for place in places),
        differences=_compare(model, head, pkl, images, ours),
    )


def _read(config: Path) -> Any:
    from detectron2.config import get_cfg

    heads.register()
    cfg = get_cfg()
    add_visrep_config(cfg)
    with _refusals(config):
        cfg.merge_from_file(str(config))
    return cfg


def _build(cfg: Any, config: Path) -> Any:
    """The model on the CPU; its backbone gives out all maps that it computes."""
    from detectron2.modeling import build_model

    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    last = cfg.MODEL.RESNETS.OUT_FEATURES[-1]
    if last in FEATURES:
        cfg.MODEL.RESNETS.OUT_FEATURES = list(FEATURES[: FEATURES.index(last) + 1])
    with _refusals(config), torch.random.fork_rng(devices=[]):
        return build_model(cfg).eval()


@contextlib.contextmanager
def _refusals(config: Path) -> Iterator[None]:
    """What Detectron2 raises on a config is a failed check."""
    try:
        yield
    except (AssertionError, KeyError, ValueError) as error:
        raise CheckFailed(f"{config}: Detectron2 does not take it: {_first_line(error)}") from error


def _head(model: Any) -> str:
    if hasattr(getattr(model, "roi_heads", None), "res5"):
        return "c4"
    return "fpn" if hasattr(model.backbone, "bottom_up") else "plain"


def _trunk(model: Any) -> Any:
    return getattr(model.backbone, "bottom_up", model.backbone)


def _load(model: nn.Module, pkl: str | Path, head: str) -> list[str]:
    """Load with Detectron2's checkpointer; the places of the tensors, if every one is set."""
    from detectron2.checkpoint import DetectionCheckpointer

    tree = read_tree(pkl)
    stored = {place_of(name, head=head): (name, t) for name, t in tree.value["model"].items()}
    state = model.state_dict()
    places = places_in(state, head=head)
    with torch.no_grad():
        for place in places:
            tensor = state[place]
            name, given = stored.get(place, ("", None))
            if given is not None and given.shape != tensor.shape:
                raise CheckFailed(
                    f"{pkl}: {name} is {tuple(given.shape)}, Detectron2's backbone has "
                    f"{tuple(tensor.shape)}"
                )
            tensor.fill_(float("nan"))
    with quiet():
        DetectionCheckpointer(model).load(str(pkl))
    state = model.state_dict()
    unset = [
        place
        for place in places
        if place not in stored or not torch.equal(state[place], float_tensor(tree, *stored[place]))
    ]
    unused = sorted(name for place, (name, _) in stored.items() if place not in places)
    if unset or unused:
        which = f"{unset[0]} is not set" if unset else f"{unused[0]} has no place"
        raise CheckFailed(
            f"{pkl}: Detectron2's backbone has {len(places) - len(unset)} of {len(places)} tensors "
            f"set and leaves {len(unused)} of the file unused: {which}"
        )
    return places


def _check_input(cfg: Any, file: EncoderFile, config: Path) -> None:
    preprocess = replace(Preprocess.from_dict(file.preprocess), size=256, resize=None)
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    mean, std = torch.tensor([cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD])[..., None, None]
    ours = preprocess(pixels)
    same = _relative((pixels - mean) / std, ours) <= TOLERANCE
    if preprocess.channel_order != cfg.INPUT.FORMAT or not same:
        raise CheckFailed(f"{config}: its pixels are not those that the encoder was trained on")


def _compare(
    model: Any, head: str, pkl: str | Path, images: Tensor, ours: dict[str, Tensor]
) -> dict[str, float]:
    with torch.inference_mode():
        theirs = dict(_trunk(model)(images))
        if head == "c4":
            blocks = [
                block for name, block in model.roi_heads.res5.named_children() if name != "norm"
            ]
            theirs["res5"] = nn.Sequential(*blocks)(theirs["res4"])
    differences = {}
    for name, own in ours.items():
        if name == "res5" and head == "plain":  # dilated
            continue
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
