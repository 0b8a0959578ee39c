"""Augmented views of a batch, made on its device, with parameters of its own for every sample.

What is drawn is a function of (seed, step, position in the whole batch): a process takes the part
of its samples, so one process and eight see the same views.

    views = Views(views=[View(size=32), View(size=32)], mean=(0.5,) * 3, std=(0.25,) * 3)
    params = views.draw(seed=0, step=7, batch=256)
    first, second = views(images, params)                    # uint8 images of one size
    first, second = views.crop(image, params, i)             # one image of any size, in a worker
"""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from visrep.data.views import image_ops
from visrep.data.views.params import HUE, ROW, Params, View, numbers, require
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
        self.mean = numbers("mean", mean, 3)
        self.std = numbers("std", std, 3)
        require(min(self.std) > 0, "std", std, "positive numbers")

    def draw(self, *, seed: int, step: int, batch: int) -> Params:
        """Parameters of the whole batch of `step`: a function of (seed, step) and the position."""
        # numpy's Philox is specified bit by bit, the same on every machine.
        generator = np.random.Generator(np.random.Philox(key=derive_seed(seed, "views", step)))
        return Params(self.views, generator.random((batch, len(self.views), ROW)))

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
        crops = []
        for v, spec in enumerate(self.views):
            box = params.crop_of(i, v, image.shape[1], image.shape[2])
            size = [spec.size, spec.size]
            mode = InterpolationMode(spec.interpolation)
            crop = tv.resized_crop(image, *box, size, interpolation=mode, antialias=True)
            crops.append(crop.flip(-1) if params[i : i + 1].flip(v)[0] else crop.contiguous())
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
        top, left, height, width = _tensor(boxes, device).unbind(1)
        mirrored = _tensor(params.flip(v), device).bool()
        rows = image_ops.resize_matrix(
            top, height, None, extent=images.shape[2], size=spec.size, filter=spec.interpolation
        )
        columns = image_ops.resize_matrix(
            left, width, mirrored, extent=images.shape[3], size=spec.size, filter=spec.interpolation
        )
        crops = image_ops.apply_matrices(images, rows, columns)
        return crops.clamp_(0.0, 255.0) if spec.interpolation == "bicubic" else crops

    def _finish(self, x: Tensor, params: Params, v: int) -> Tensor:
        """Colour operations and normalisation of n x 3 x size x size, in [0, 1]; x is used up."""
        spec = self.views[v]
        for operation in spec.order:
            if getattr(spec, f"{operation}_p") > 0:
                _APPLY[operation](x, params, v)
        if any(self.mean) or set(self.std) != {1.0}:
            moments = _tensor(np.array([self.mean, self.std]), x.device)[..., None, None]
            x.sub_(moments[0]).div_(moments[1])
        return x


def _jitter(x: Tensor, params: Params, v: int) -> None:
    drawn = params.jitter(v)
    place = (drawn.order == HUE).argmax(axis=1)
    index = np.flatnonzero(drawn.applied)
    index = index[place[index].argsort(kind="stable")]
    bounds = place[index].searchsorted(np.arange(5)).tolist()
    order = drawn.order[index]
    others = order[order != HUE].reshape(-1, 3, 1)
    spec = params.views[v]
    weights = _blend_weights(drawn.factors[index], additive=spec.brightness_additive)
    blends = _tensor(np.take_along_axis(weights, others, axis=1), x.device)
    turns = _tensor(drawn.factors[index, HUE], x.device) if spec.jitter[HUE] > 0 else None
    _replace(x, index, lambda part: image_ops.jitter_(part, blends, turns, bounds))


def _blend_weights(factors: np.ndarray, *, additive: bool) -> np.ndarray:
    """Brightness, contrast and saturation as `image_ops.blend_` wants them: n x 3 x 4."""
    weights = np.zeros((len(factors), 3, 4))
    weights[:, :, 0] = factors[:, :3]
    if additive:
        weights[:, 0, 0] = 1.0
        weights[:, 0, 3] = factors[:, 0]
    weights[:, 1, 2] = 1.0 - factors[:, 1]
    weights[:, 2, 1] = 1.0 - factors[:, 2]
    return weights


def _gray(x: Tensor, params: Params, v: int) -> None:
    index = np.flatnonzero(params.gray(v))
    _replace(x, index, lambda part: image_ops.grayscale(part).expand_as(part))


def _blur(x: Tensor, params: Params, v: int) -> None:
    sigma = params.blur(v)
    index = np.flatnonzero(sigma)
    distance = np.arange(params.views[v].kernel // 2 + 1)
    weights = np.exp(-0.5 * (distance / sigma[index, None]) ** 2)
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(axis=1, keepdims=True)
    kernels = _tensor(weights, x.device)
    _replace(x, index, lambda part: image_ops.gaussian_blur(part, kernels))


def _solarize(x: Tensor, params: Params, v: int) -> None:
    threshold = params.views[v].solarize_threshold
    index = np.flatnonzero(params.solarize(v))
    _replace(x, index, lambda part: image_ops.solarize(part, threshold))


def _invert(x: Tensor, params: Params, v: int) -> None:
    _replace(x, np.flatnonzero(params.invert(v)), lambda part: torch.rsub(part, 1.0))


_APPLY = {
    "jitter": _jitter,
    "gray": _gray,
    "blur": _blur,
    "solarize": _solarize,
    "invert": _invert,
}


def _replace(x: Tensor, index: np.ndarray, operation: Callable[[Tensor], Tensor]) -> None:
    """In place: `operation` on the samples of x that `index` lists."""
    if len(index):
        chosen = torch.from_numpy(index).to(x.device, non_blocking=True)
        x.index_copy_(0, chosen, operation(x.index_select(0, chosen)))


def _tensor(values: np.ndarray, device: torch.device) -> Tensor:
    return torch.from_numpy(values.astype(np.float32)).to(device, non_blocking=True)
