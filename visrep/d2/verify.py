"""Converted weights in Detectron2's real model: all there, and computing the same?

Detectron2 only warns of tensors that it cannot place, and trains on with random ones.
"""

import contextlib
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from visrep.d2 import agreement, densepose, heads
from visrep.d2.agreement import TOLERANCE, trunk_of
from visrep.d2.backbone import add_visrep_config
from visrep.d2.lint import config as lint_config
from visrep.d2.lint import weights as lint_weights
from visrep.d2.lint.finding import FATAL, WARNING
from visrep.d2.lint.linter import lint
from visrep.d2.weights import head_in, place, place_of, places_in
from visrep.data.preprocess import Preprocess
from visrep.errors import CheckFailed
from visrep.nn.resnet import ResNet
from visrep.weights.containers.tree import float_tensor
from visrep.weights.containers.weights_files import read_tree
from visrep.weights.encoder_file import EncoderFile
from visrep.weights.reading import encoder_of, read_weights


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
    images = agreement.fixed_images()
    # Before there is a model: memory holds one net at a time.
    ours = agreement.features(encoder_of(file), images)
    reports: dict[str, Report] = {}
    for config in configs:
        cfg = _read(config)
        _check_input(cfg, Preprocess.from_dict(file.preprocess), str(config))
        parts = (cfg.MODEL.META_ARCHITECTURE, cfg.MODEL.ROI_HEADS.NAME)
        net = str((cfg.MODEL.BACKBONE, cfg.MODEL.RESNETS, cfg.MODEL.VISREP, parts))
        if net in reports:
            continue
        reports[net] = _verify_in(_build(cfg, config), pkl, images, ours)
    return list(reports.values())


def place_verified(
    model: nn.Module, cfg: Any, encoder: ResNet, preprocess: Preprocess
) -> list[str]:
    """Put `encoder` into the model of Detectron2's `cfg`, and look at it before it is trained.

    Returns lines that say what was found: the tensors set, the features, what the linter says of
    the resolved config.

    Raises:
        ConfigError: a tensor has no place, or one of the backbone stays unset.
        CheckFailed: the features are others than the encoder's, or the linter has a fatal finding.
    """
    count = place(model, encoder)
    _check_input(cfg, preprocess, "Detectron2's config")
    images, ours = agreement.features_on(encoder, next(model.parameters()).device)
    agreement.differences(model, images, ours)
    config = lint_config.from_text(cfg.dump())
    weights = lint_weights.of_encoder(encoder.spec, preprocess, cfg.MODEL.WEIGHTS)
    found = lint(config, weights)
    for finding in found:
        if finding.severity == FATAL:
            raise CheckFailed(
                f"Detectron2's config, {finding.check}: {finding.what}; {finding.consequence}"
            )
    warnings = [finding.check for finding in found if finding.severity == WARNING]
    told = f"warnings: {', '.join(warnings)}" if warnings else "no warnings"
    return [
        f"{count} of {count} tensors set; features equal to {TOLERANCE:.0e}",
        f"linter: nothing fatal, {told}",
    ]


def _verify_in(model: Any, pkl: str | Path, images: Tensor, ours: dict[str, Tensor]) -> Report:
    import detectron2

    head = head_in(model)
    places = _load(model, pkl, head)
    try:
        differences = agreement.differences(model, images, ours)
    except CheckFailed as error:
        raise CheckFailed(f"{pkl}: {error}") from error
    return Report(
        version=detectron2.__version__,
        backbone=type(trunk_of(model)).__name__,
        head=head,
        tensors=len(places),
        in_head=sum(place.startswith("roi_heads.") for place in places),
        differences=differences,
    )


def _read(config: Path) -> Any:
    from detectron2.config import get_cfg

    heads.register()
    cfg = get_cfg()
    add_visrep_config(cfg)
    if "DENSEPOSE_ON" in config.read_text(encoding="utf-8"):
        densepose.extend(cfg)
    with _refusals(config):
        cfg.merge_from_file(str(config))
    return cfg


def _build(cfg: Any, config: Path) -> Any:
    """The model on the CPU."""
    from detectron2.modeling import build_model

    cfg = cfg.clone()
    cfg.MODEL.DEVICE = "cpu"
    with _refusals(config), torch.random.fork_rng(devices=[]):
        return build_model(cfg).eval()


@contextlib.contextmanager
def _refusals(config: Path) -> Iterator[None]:
    """What Detectron2 raises on a config is a failed check."""
    try:
        yield
    except (AssertionError, KeyError, ValueError) as error:
        raise CheckFailed(f"{config}: Detectron2 does not take it: {_first_line(error)}") from error


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


def _check_input(cfg: Any, preprocess: Preprocess, where: str) -> None:
    preprocess = replace(preprocess, size=256, resize=None)
    pixels = torch.arange(256, dtype=torch.uint8).expand(3, 256, 256)
    mean, std = torch.tensor([cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD])[..., None, None]
    same = agreement.relative((pixels - mean) / std, preprocess(pixels)) <= TOLERANCE
    if preprocess.channel_order != cfg.INPUT.FORMAT or not same:
        raise CheckFailed(f"{where}: its pixels are not those that the encoder was trained on")


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


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
