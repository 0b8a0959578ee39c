"""Image operators on a batch, with parameters of its own for every sample.

n images are `n x 3 x H x W`, float, in [0, 1] unless said otherwise. Given the same parameters each
operator gives torchvision's result to float precision, and a sample's result does not depend on
the samples beside it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)


def resize_matrix(
    start: Tensor,
    length: Tensor,
    flip: Tensor | None,
    *,
    extent: int,
    size: int,
    filter: str,
) -> Tensor:
    """The antialiased resize of one axis, as one matrix per sample: n x size x extent.

    Row i holds the weights of the `extent` input pixels in output pixel i. The filter is stretched
    by length / size where that shrinks the image, as Pillow and torchvision do.

    Args:
        start, length: the crop on this axis in pixels, float32 n.
        filter: bilinear or bicubic.
        flip: which samples to mirror on this axis, bool n; None for none.
    """
    scale = (length / size)[:, None, None]
    target = torch.arange(size, device=start.device)
    target = target.expand(len(start), size)
    if flip is not None:
        target = torch.where(flip[:, None], size - 1 - target, target)
    target = target[:, :, None]  # n x size x 1
    source = torch.arange(extent, device=start.device) - start[:, None, None]  # n x 1 x extent
    inside = ((source >= 0) & (source < length[:, None, None])).to(start.dtype)
    distance = (source + 0.5) - scale * (target + 0.5)
    distance = distance.div_(scale.clamp(min=1.0)).abs_()
    weights = _triangle(distance) if filter == "bilinear" else _cubic(distance)
    weights = weights.mul_(inside)
    return weights.div_(weights.sum(dim=-1, keepdim=True))


def _triangle(distance: Tensor) -> Tensor:
    return torch.rsub(distance, 1.0).clamp_(min=0.0)


def _cubic(distance: Tensor) -> Tensor:
    """Keys' cubic filter with a = -1/2; both pieces are 0 at the ends of their interval."""
    near = distance.clamp(max=1.0)
    far = distance.clamp(1.0, 2.0)
    return ((1.5 * near - 2.5) * near * near + 1.0).add_(
        ((-0.5 * far + 2.5) * far - 4.0) * far + 2.0
    )


def blur_matrix(kernels: Tensor, *, size: int) -> Tensor:
    """Convolution of one axis with reflection at the borders, as a matrix: n x size x size.

    Args:
        kernels: n x (r + 1), the weights at distance 0 to r < size of a symmetric kernel.
    """
    n, beyond = kernels.shape
    weights = torch.nn.functional.pad(kernels, (0, 1))  # 0 at every distance beyond r
    axis = torch.arange(size, device=kernels.device)
    i, j = axis[:, None], axis
    direct = (i - j).abs()
    top = torch.where(j > 0, i + j, beyond)
    bottom = torch.where(j < size - 1, 2 * (size - 1) - i - j, beyond)
    near, before, after = (
        weights.index_select(1, distance.clamp(max=beyond).flatten()).view(n, size, size)
        for distance in (direct, top, bottom)
    )
    return near.add_(before).add_(after)


def apply_matrices(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """rows @ image @ columns^T for every sample and channel: n x 3 x h x w.

    On a GPU the products have the precision of `torch.set_float32_matmul_precision`; TF32 rounds
    weights and sums to 11 bits, less than half a grey level.

    Args:
        rows: n x h x H.
        columns: n x w x W.
    """
    n, channels, height, width = images.shape
    flat = images.reshape(n, channels * height, width)
    narrow = torch.bmm(flat, columns.transpose(1, 2)).view(n, channels, height, -1)
    return torch.matmul(rows[:, None], narrow)


def grayscale(images: Tensor) -> Tensor:
    """Luma of ITU-R 601: n x 1 x H x W."""
    red, green, blue = images.unbind(1)
    gray = red.mul(LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return gray.unsqueeze(1)


def blend_(images: Tensor, weights: Tensor) -> Tensor:
    """In place: own * image + gray * its luma + mean * its mean luma + offset, clipped to [0, 1].

    Args:
        weights: n x 4: own, gray, mean, offset. Brightness is (f, 0, 0, 0), or (1, 0, 0, d) where
            it is additive; saturation (f, 1 - f, 0, 0); contrast (f, 0, 1 - f, 0).
    """
    own, gray, mean, offset = weights[:, :, None, None, None].unbind(1)
    luma = grayscale(images)
    rest = luma.mean(dim=(1, 2, 3), keepdim=True).mul_(mean).add_(offset)
    rest = torch.addcmul(rest, luma, gray)
    return torch.addcmul(rest, images, own, out=images).clamp_(0.0, 1.0)


def adjust_hue(images: Tensor, shift: Tensor) -> Tensor:
    """Turn the hue of HSV by `shift` turns, n, each in [-0.5, 0.5].

    A channel of HSV is low + chroma * ramp(hue): the ramp is 1 within 1/6 turn of the channel's own
    hue, 0 beyond 1/3, linear between; only its argument changes.
    """
    red, green, blue = images.unbind(1)
    top, low = images.amax(dim=1), images.amin(dim=1)
    chroma = top - low
    # Hue times 6 chroma, counted from the channel that is largest; red before green before blue.
    hue = torch.lerp(
        (red - green).add_(chroma, alpha=4.0),
        (blue - red).add_(chroma, alpha=2.0),
        green.clone().eq_(top),
    )
    hue = torch.lerp(hue, green - blue, red.clone().eq_(top))
    hue = hue.div_(chroma.clamp(min=1e-12).mul_(6.0)).add_(shift[:, None, None])
    own_hue = torch.tensor([0.0, -1 / 3, 1 / 3]).to(images.device, non_blocking=True)
    turns = hue.unsqueeze(1) + own_hue[:, None, None]  # n x 3 x H x W
    away = turns.sub_(turns.round()).abs_()
    ramp = torch.rsub(away, 2.0, alpha=6.0).clamp_(0.0, 1.0)
    return torch.addcmul(low.unsqueeze(1), ramp, chroma.unsqueeze(1))


def jitter_(images: Tensor, blends: Tensor, shift: Tensor | None, bounds: Sequence[int]) -> Tensor:
    """In place: brightness, contrast, saturation and hue, in an order of each sample's own.

    The samples are sorted by the place of hue in their order, `bounds[p]:bounds[p + 1]` having it
    at place p. So the blends that come before hue, and those after, are runs of samples, and hue is
    one pass over all.

    Args:
        blends: n x 3 x 4, the three other operations in each sample's order, as for `blend_`.
        shift: n, for `adjust_hue`; None for no hue.
        bounds: 5 integers.
    """
    for place in range(3):
        late = slice(bounds[place + 1], None)
        if bounds[place + 1] < len(images):
            blend_(images[late], blends[late, place])
    if shift is not None:
        images.copy_(adjust_hue(images, shift))
    for place in range(3):
        early = slice(0, bounds[place + 1])
        if bounds[place + 1] > 0:
            blend_(images[early], blends[early, place])
    return images


def gaussian_blur(images: Tensor, kernels: Tensor) -> Tensor:
    """Separable blur, reflecting at the borders; `kernels` as for `blur_matrix`."""
    height, width = images.shape[2:]
    rows = blur_matrix(kernels, size=height)
    columns = rows if width == height else blur_matrix(kernels, size=width)
    return apply_matrices(images, rows, columns)


def solarize(images: Tensor, threshold: float) -> Tensor:
    """Invert the values at or above `threshold`."""
    return torch.where(images >= threshold, 1.0 - images, images)
