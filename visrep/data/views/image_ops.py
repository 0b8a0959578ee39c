"""Image operators on a batch, with parameters of its own for every sample.

n images are `n x 3 x H x W`, float, in [0, 1] unless said otherwise. Given the same parameters each
operator gives torchvision's result to float precision, and a sample's result does not depend on
the samples beside it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

LUMA = (0.2989, 0.587, 0.114)
# How an image is resized; the last is the bicubic of TensorFlow 1, which never antialiases.
FILTERS = ("bilinear", "bicubic", "bicubic_tf1")


def resize_matrix(
    start: Tensor,
    length: Tensor,
    flip: Tensor | None,
    *,
    extent: int,
    size: int,
    filter: str,
    antialias: bool = True,
) -> Tensor:
    """The resize of one axis, as one matrix per sample: n x size x extent.

    Row i holds the weights of the `extent` input pixels in output pixel i. With `antialias` the
    filter is stretched by length / size where that shrinks the image, as Pillow and torchvision do;
    without it, an output pixel is made of the four pixels (or two) around its place, see `taps`.

    Args:
        start, length: the crop on this axis in pixels, float32 n.
        filter: one of `FILTERS`; bicubic_tf1 without `antialias` only.
        flip: which samples to mirror on this axis, bool n; None for none.
    """
    if not antialias:
        source, weights = taps(start, length, flip, size=size, filter=filter)
        return weights.new_zeros(len(start), size, extent).scatter_add_(2, source, weights)
    scale = (length / size)[:, None, None]
    target = _targets(len(start), flip, size=size, device=start.device)
    source = torch.arange(extent, device=start.device) - start[:, None, None]  # n x 1 x extent
    inside = ((source >= 0) & (source < length[:, None, None])).to(start.dtype)
    distance = (source + 0.5) - scale * (target + 0.5)
    distance = distance.div_(scale.clamp(min=1.0)).abs_()
    weights = _triangle(distance) if filter == "bilinear" else _cubic(distance)
    weights = weights.mul_(inside)
    return weights.div_(weights.sum(dim=-1, keepdim=True))


def taps(
    start: Tensor, length: Tensor, flip: Tensor | None, *, size: int, filter: str
) -> tuple[Tensor, Tensor]:
    """A resize of one axis without antialiasing: which pixels an output pixel takes, and how much.

    TensorFlow's `tf.image.resize` (bilinear, bicubic): pixels have their centre at one half, the
    cubic is Keys' with a = -1/2, and pixels outside the crop count for nothing. Its
    `tf.compat.v1.image.resize_bicubic` (bicubic_tf1): output pixel i lies at i * length / size, a
    is -3/4, and the crop's last pixel stands for all beyond it. TensorFlow has the weights from a
    table of 1,024 places; these are exact.

    Args:
        start, length, flip, size, filter: as for `resize_matrix`.

    Returns:
        Positions on the axis, int64 n x size x 4, those outside the crop moved to its edge; and
        their weights, float32.
    """
    corner = filter == "bicubic_tf1"
    half = 0.0 if corner else 0.5
    target = _targets(len(start), flip, size=size, device=start.device)
    start, length = start[:, None, None], length[:, None, None]
    place = (length / size) * (target + half) - half  # within the crop, n x size x 1
    source = place.floor() + torch.arange(-1, 3, device=start.device)
    distance = (place - source).abs_()
    if filter == "bilinear":
        weights = _triangle(distance)
    else:
        weights = _cubic(distance, a=-0.75 if corner else -0.5)
    if not corner:
        weights = weights.mul_((source >= 0) & (source < length))
        weights = weights.div_(weights.sum(dim=-1, keepdim=True))
    return torch.minimum(source.clamp_(min=0), length - 1).add_(start).long(), weights


def resized(images: Tensor, box: Sequence[int], *, size: int, filter: str) -> Tensor:
    """One crop of all images, resized without antialiasing; it reads the pixels of `taps` only.

    Args:
        images: ... x H x W, values of 0 to 255 of any type.
        box: top, left, height and width of the crop.

    Returns:
        ... x size x size, float32, clipped to 0 to 255.
    """
    top, left, height, width = torch.tensor(box, dtype=torch.float32, device=images.device)[:, None]
    rows, row_weights = taps(top, height, None, size=size, filter=filter)
    columns, column_weights = taps(left, width, None, size=size, filter=filter)
    tall = made = images.new_zeros((), dtype=torch.float32)
    for row, weight in zip(rows[0].unbind(1), row_weights[0].unbind(1), strict=True):
        tall = tall + images[..., row, :] * weight[:, None]
    for column, weight in zip(columns[0].unbind(1), column_weights[0].unbind(1), strict=True):
        made = made + tall[..., column] * weight
    return made.clamp_(0.0, 255.0)


def _targets(n: int, flip: Tensor | None, *, size: int, device: torch.device) -> Tensor:
    """Output pixels 0 to size - 1, the other way round where `flip`: n x size x 1."""
    target = torch.arange(size, device=device).expand(n, size)
    if flip is not None:
        target = torch.where(flip[:, None], size - 1 - target, target)
    return target[:, :, None]


def _triangle(distance: Tensor) -> Tensor:
    return torch.rsub(distance, 1.0).clamp_(min=0.0)


def _cubic(distance: Tensor, *, a: float = -0.5) -> Tensor:
    """Keys' cubic filter; both pieces are 0 at the ends of their interval."""
    near = distance.clamp(max=1.0)
    far = distance.clamp(1.0, 2.0)
    return (((a + 2) * near - (a + 3)) * near * near + 1.0).add_(
        ((a * far - 5 * a) * far + 8 * a) * far - 4 * a
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
