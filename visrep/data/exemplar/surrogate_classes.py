"""Surrogate classes of Exemplar-CNN: what their samples are, and batches of them.

Dosovitskiy et al., arXiv 1406.6909. A class is a seed patch; its samples are K
transformed copies, cut from the full image around the seed, so that shifts and turns bring in what
is really there.

Copy k of class i is a function of (seed, i, k): the K copies are a fixed training set, as in the
paper, of which nothing is stored but the seeds. An epoch visits each of the N K samples once, in an
order that is a function of (seed, epoch); batches run on over the ends of epochs.
"""

import itertools
import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any, ClassVar

import torch
from torch import Tensor

from visrep.data.dataset import ImageDataset
from visrep.data.exemplar.keyed_uniforms import keyed_uniforms
from visrep.data.exemplar.seed_patches import Seeds, draw_seeds, log
from visrep.data.exemplar.transformations import (
    Palette,
    contrast_hsv,
    contrast_pca,
    palette_of,
    place,
)
from visrep.data.order import Order
from visrep.data.views.operation import require, tuple_of
from visrep.seeds import derive_seed

COLUMNS = 16  # of a row of uniform numbers: zoom, angle, shift 2, pca 3, hsv 6, hue, spare 2
MOST_COPIES = 2**20


@dataclass(frozen=True)
class Params:
    """What was drawn for n samples, float32 on the CPU.

    zoom n; angle n, radians; shift n x 2, in sides of the patch; pca n x 3, of the components of
    colour; power, factor, offset n x 2, of saturation and value; hue n, turns.
    """

    zoom: Tensor
    angle: Tensor
    shift: Tensor
    pca: Tensor
    power: Tensor
    factor: Tensor
    offset: Tensor
    hue: Tensor


@dataclass(frozen=True, kw_only=True)
class Exemplars:
    """N surrogate classes of K samples; every range is drawn from evenly, for each sample.

    Args:
        mean, std: of the normalisation that comes last, per channel, in units of [0, 1].
        classes: N.
        samples: K.
        size: of a sample in pixels.
        side: of a seed, as a share of its image's short side, drawn evenly in its logarithm.
        shift: largest move on each axis, in sides of the patch.
        zoom: factor of the side.
        rotation: largest turn, in degrees.
        pca: factor of each principal component of colour, of all pixels of all seeds.
        power, factor, offset: in HSV, s becomes s ** power * factor + offset, for S and V each.
        hue: largest turn of the hue; 1 is a whole circle.

    Raises:
        ConfigError: a value out of its range; the message names the key.
    """

    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    classes: int = 8000
    samples: int = 100
    size: int = 32
    side: tuple[float, float] = (1 / 3, 1.0)
    shift: float = 0.2
    zoom: tuple[float, float] = (0.7, 1.4)
    rotation: float = 20.0
    pca: tuple[float, float] = (0.5, 2.0)
    power: tuple[float, float] = (0.25, 4.0)
    factor: tuple[float, float] = (0.7, 1.4)
    offset: tuple[float, float] = (-0.1, 0.1)
    hue: float = 0.1

    antialias: ClassVar[bool] = True
    interpolation: ClassVar[str] = "bilinear"  # of the resizing before a whole image is encoded
    loader: ClassVar[type["ExemplarLoader"]]

    def __post_init__(self) -> None:
        for name, count in (("mean", 3), ("std", 3)):
            object.__setattr__(self, name, tuple_of(name, getattr(self, name), count))
        require(min(self.std) > 0, "std", self.std, "positive numbers")
        for name in ("side", "zoom", "pca", "power", "factor", "offset"):
            low, high = tuple_of(name, getattr(self, name), 2)
            object.__setattr__(self, name, (low, high))
            good = low <= high and (low > 0 or name == "offset")
            require(good, name, [low, high], "[low, high]" + ", positive" * (name != "offset"))
        require(self.side[1] <= 1, "side", list(self.side), "[low, high], positive up to 1")
        for name, least in (("classes", 2), ("samples", 1), ("size", 8)):
            value = getattr(self, name)
            good = isinstance(value, int) and not isinstance(value, bool) and value >= least
            require(good, name, value, f"a whole number, {least} or more")
        require(self.samples < MOST_COPIES, "samples", self.samples, f"less than {MOST_COPIES}")
        for name, most in (("shift", 1.0), ("rotation", 45.0), ("hue", 0.5)):
            value = getattr(self, name)
            good = isinstance(value, int | float) and 0 <= value <= most
            require(good, name, value, f"a number from 0 to {most:g}")

    @property
    def views(self) -> tuple["Exemplars"]:
        """The views of a sample: one."""
        return (self,)

    @property
    def window(self) -> int:
        """Side of the window around a seed that holds whatever a sample can read, in pixels."""
        turn = math.radians(self.rotation)
        half = self.shift + 0.5 * self.zoom[1] * (math.cos(turn) + math.sin(turn))
        margin = max(0, math.ceil((half - 0.5) * self.size) + 1)
        return self.size + 2 * margin

    def draw(self, *, seed: int, classes: Tensor, copies: Tensor) -> Params:
        """Parameters of n samples: a function of the seed and each sample's class and copy.

        Args:
            classes, copies: int64 n.
        """
        rows = (classes * MOST_COPIES + copies).numpy()  # so that it depends on neither N nor K
        key = derive_seed(seed, "transformations")
        uniforms = torch.from_numpy(keyed_uniforms(rows, count=COLUMNS, seed=key))

        def between(column: int, count: int, low: float, high: float) -> Tensor:
            return (low + uniforms[:, column : column + count] * (high - low)).float()

        turn = math.radians(self.rotation)
        return Params(
            zoom=between(0, 1, *self.zoom)[:, 0],
            angle=between(1, 1, -turn, turn)[:, 0],
            shift=between(2, 2, -self.shift, self.shift),
            pca=between(4, 3, *self.pca),
            power=between(7, 2, *self.power),
            factor=between(9, 2, *self.factor),
            offset=between(11, 2, *self.offset),
            hue=between(13, 1, -self.hue, self.hue)[:, 0],
        )

    @torch.no_grad()
    def __call__(self, windows: Tensor, params: Params, palette: Palette) -> list[Tensor]:
        """Make the samples.

        Args:
            windows: uint8 n x 3 x C x C, any device, each with its seed in the middle.
            params: of these n samples.
            palette: of the training set's colours, on that device.

        Returns:
            one tensor, float32 n x 3 x size x size, in channels_last memory format.
        """
        device = windows.device

        def here(drawn: Tensor) -> Tensor:
            return drawn.to(device, non_blocking=True)

        with torch.autocast(device.type, enabled=False):
            x = place(
                windows.float().div_(255.0),
                zoom=here(params.zoom),
                angle=here(params.angle),
                shift=here(params.shift * self.size),
                size=self.size,
            )
            x = contrast_pca(x, here(params.pca), palette).clamp_(0.0, 1.0)
            x = contrast_hsv(
                x,
                power=here(params.power),
                factor=here(params.factor),
                offset=here(params.offset),
                hue=here(params.hue),
            )
            mean, std = torch.tensor([self.mean, self.std]).to(device)[..., None, None]
            x = x.sub_(mean).div_(std)
        return [x.contiguous(memory_format=torch.channels_last)]


class ExemplarLoader:
    """Endless batches of samples of surrogate classes, from any step on.

    Seeds are drawn before the first batch, the same on every process. The arguments are those of
    `visrep.data.loader.Loader`; `workers` has nothing to do, as the windows are in memory.

    Raises:
        ConfigError: the batch does not divide over the processes.
        UserError: too many images are broken, or none has any texture.
    """

    def __init__(
        self,
        dataset: ImageDataset,
        *,
        views: Exemplars,
        batch_size: int,
        seed: int,
        workers: int = 0,
        device: torch.device | str = "cpu",
        max_broken: float = 0.001,
    ) -> None:
        self.dataset = dataset
        self.views = views
        self.seed = seed
        self.device = torch.device(device)
        self.max_broken = max_broken
        size = views.classes * views.samples
        self.order = Order(size, batch_size=batch_size, seed=seed, continuous=True)

    @cached_property
    def seeds(self) -> Seeds:
        """The seeds of all classes; drawn when they are first asked for."""
        views = self.views
        seeds = draw_seeds(
            self.dataset,
            count=views.classes,
            size=views.size,
            window=views.window,
            side=views.side,
            seed=self.seed,
            max_broken=self.max_broken,
        )
        log.info(
            "%d surrogate classes of %d samples each, with seeds from %d of the %d images",
            views.classes,
            views.samples,
            len(seeds.sources.unique()),
            len(self.dataset),
        )
        return seeds

    @cached_property
    def palette(self) -> Palette:
        """Principal components of the colours of all windows, on the device."""
        return palette_of(self.seeds.windows).to(self.device)

    @cached_property
    def windows(self) -> Tensor:
        """The windows on the device."""
        return self.seeds.windows.to(self.device)

    @property
    def steps_per_epoch(self) -> int:
        """Full batches in one pass over all samples, at least 1."""
        return self.order.steps_per_epoch

    def samples_of(self, step: int) -> tuple[Tensor, Tensor]:
        """Classes and copies of the whole batch of `step`, int64 each."""
        chosen = self.order.of(step)
        return chosen % self.views.classes, chosen // self.views.classes

    def iterate(self, start_step: int) -> Iterator[dict[str, Any]]:
        """This process' share of every batch from `start_step` on, for ever.

        Yields:
            views: one tensor n x 3 x size x size, float, on the device; index: n, int64, the
            surrogate classes; size: n; seed: the step's, the same on all processes.
        """
        for step in itertools.count(start_step):
            classes, copies = (part[self.order.slice] for part in self.samples_of(step))
            yield {
                "views": self.samples(classes, copies),
                "index": classes.to(self.device),
                "size": len(classes),
                "seed": derive_seed(self.seed, "step", step),
            }

    def samples(self, classes: Tensor, copies: Tensor) -> list[Tensor]:
        """The named samples: one tensor n x 3 x size x size on the device. Copies beyond K, which
        training never sees, are a validation set."""
        params = self.views.draw(seed=self.seed, classes=classes, copies=copies)
        return self.views(self.windows[classes.to(self.device)], params, self.palette)


Exemplars.loader = ExemplarLoader
