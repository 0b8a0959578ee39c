"""Augmented views of a batch, made on its device, with parameters of its own for every sample.

What is drawn is a function of (seed, step, position in the whole batch): a process takes the part
of its samples, so one process and eight see the same views.

    views = Views(views=[View(size=32), View(size=32)], mean=(0.5,) * 3, std=(0.25,) * 3)
    params = views.draw(seed=0, step=7, batch=256)
    first, second = views(images, params)                    # uint8 images of one size
    first, second = views.crop(image, params, i)             # one image of any size, in a worker
"""

from collections.abc import Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from visrep.data.views import image_ops
from visrep.data.views.operation import on, require, tuple_of
from visrep.data.views.params import ROW, Params, View
from visrep.seeds import derive_seed

__all__ = ["Params", "View", "Views"]

# Values of one view that a CPU works on at a time, so that passes over them stay in its cache.
CACHED = 2**20


class Views:
    """Draws and makes V views of every image of a batch.

    Args:
        views: how each view is drawn.
        mean, std: of the normalisation that comes last, per channel, in units of [0, 1].

    Raises:
        ConfigError: no view, or a mean or std that is not three numbers, std positive.
    """

    def __init__(
        self, *, views: Sequence[View], mean: Sequence[float], std: Sequence[float]
    ) -> None:
        require(len(views) > 0, "views", list(views), "one view or more")
        self.views = tuple(views)
        kinds = {(o.name, type(o)) for view in self.views for o in view.operations}
        names = sorted(name for name, _ in kinds)
        require(len(set(names)) == len(names), "order", names, "each class a name of its own")
        self.mean = tuple_of("mean", mean, 3)
        self.std = tuple_of("std", std, 3)
        require(min(self.std) > 0, "std", std, "positive numbers")

    def draw(self, *, seed: int, step: int, batch: int) -> Params:
        """Parameters of the whole batch of `step`: a function of (seed, step) and the position."""

        def table(columns: int, *name: str) -> np.ndarray:
            # numpy's Philox is specified bit by bit, the same on every machine.
            key = derive_seed(seed, "views", step, *name)
            generator = np.random.Generator(np.random.Philox(key=key))
            return generator.random((batch, len(self.views), columns))

        others = {o.name: o for view in self.views for o in view.operations if not o.columns}
        own = {name: table(1 + o.numbers, name) for name, o in others.items()}
        return Params(self.views, table(ROW), own)

    def crop(self, image: Tensor, params: Params, i: int) -> list[Tensor]:
        """Crop, resize and mirror one image as `params` says for sample i.

        For images of unequal size, in a worker process; `__call__` takes the stacked results. They
        are rounded to whole grey levels, within 1 of what `__call__` computes from whole images;
        bicubic weights can overshoot black and white, which is clipped between the passes over
        columns and rows here, as in Pillow, and after both there.

        Args:
            image: uint8 3 x H x W.

        Returns:
            V tensors, uint8 3 x size x size.
        """
        crops, mine = [], params[i : i + 1]
        for v, spec in enumerate(self.views):
            box = mine.boxes(v, image.shape[1], image.shape[2])[0].tolist()
            if spec.antialias:
                size, mode = [spec.size, spec.size], InterpolationMode(spec.interpolation)
                crop = tv.resized_crop(image, *box, size, interpolation=mode, antialias=True)
            else:
                crop = image_ops.resized(image, box, size=spec.size, filter=spec.interpolation)
                crop = crop.round_().to(torch.uint8)
            crops.append(crop.flip(-1) if mine.flip(v)[0] else crop.contiguous())
        return crops

    @torch.no_grad()
    def __call__(self, images: Tensor | Sequence[Tensor], params: Params) -> list[Tensor]:
        """Make the views.

        Args:
            images: uint8 n x 3 x H x W, any device; or V batches that `crop` has cut, uint8
                n x 3 x size x size.
            params: of these n samples.

        Returns:
            V tensors, float32 n x 3 x size x size, in channels_last memory format.
        """
        whole = isinstance(images, Tensor)
        batches = [images] if isinstance(images, Tensor) else list(images)
        n = len(params)
        if any(len(b) != n for b in batches) or len(batches) != (1 if whole else len(self.views)):
            raise ValueError(f"{[len(b) for b in batches]} images for {n} samples of parameters")
        if any(batch.dtype != torch.uint8 for batch in batches):
            raise ValueError(f"images are uint8, not {batches[0].dtype}")
        device = batches[0].device
        made = [
            torch.empty(
                (n, 3, view.size, view.size), device=device, memory_format=torch.channels_last
            )
            for view in self.views
        ]
        size = max(view.size for view in self.views)
        step = n if device.type == "cuda" else max(1, CACHED // (3 * size**2))
        with torch.autocast(device.type, enabled=False):
            for some in (slice(start, start + step) for start in range(0, n, step)):
                pixels = [batch[some].float() for batch in batches]
                for v, view in enumerate(made):
                    crop = self._crop(pixels[0], params[some], v) if whole else pixels[v]
                    view[some] = self._finish(crop.div_(255.0), params[some], v)
        return made

    def _crop(self, images: Tensor, params: Params, v: int) -> Tensor:
        """Crop, resize and mirror n x 3 x H x W at once; the values stay in 0 to 255."""
        spec, device = self.views[v], images.device
        boxes = params.boxes(v, images.shape[2], images.shape[3])
        top, left, height, width = on(device, boxes).unbind(1)
        mirrored = on(device, params.flip(v)).bool()
        matrix = partial(
            image_ops.resize_matrix,
            size=spec.size,
            filter=spec.interpolation,
            antialias=spec.antialias,
        )
        rows = matrix(top, height, None, extent=images.shape[2])
        columns = matrix(left, width, mirrored, extent=images.shape[3])
        crops = image_ops.apply_matrices(images, rows, columns)
        return crops if spec.interpolation == "bilinear" else crops.clamp_(0.0, 255.0)

    def _finish(self, x: Tensor, params: Params, v: int) -> Tensor:
        """Colour operations and normalisation of n x 3 x size x size, in [0, 1]; x is used up."""
        for operation in self.views[v].operations:
            operation(x, params.of(v, operation))
        if any(self.mean) or set(self.std) != {1.0}:
            moments = on(x.device, np.array([self.mean, self.std]))[..., None, None]
            x.sub_(moments[0]).div_(moments[1])
        return x
