"""Every operator equals torchvision's on each sample, with parameters that differ by sample."""

import itertools

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as tv
from PIL import Image, ImageFilter
from torchvision.transforms.v2 import InterpolationMode

from tests.oracles.resize import resized
from tests.oracles.views import jittered, photos
from visrep.data.views import image_ops
from visrep.data.views.operations import Jitter

N = 12


@pytest.fixture
def x():
    return photos(N, 24, 28).float() / 255


def uniform(low, high, *shape, seed=1):
    draw = torch.Generator().manual_seed(seed)
    return low + (high - low) * torch.rand(*shape, generator=draw)


def each(operation, images, *parameters):
    """`operation` of torchvision, sample by sample."""
    rows = zip(images, *parameters, strict=True)
    return torch.stack([operation(image, *(float(p) for p in rest)) for image, *rest in rows])


BOXES = [(0, 0, 41, 50), (3, 5, 8, 6), (10, 0, 31, 50), (40, 49, 1, 1), (7, 11, 30, 20)]


@pytest.mark.parametrize("filter", ["bilinear", "bicubic"])
@pytest.mark.parametrize("size", [8, 20, 64])
def test_crop_is_torchvisions_antialiased_resized_crop(filter, size):
    """To 2e-3 of 255 grey levels, enlarging and shrinking, the flip included."""
    images = photos(len(BOXES), 41, 50).float()
    flip = torch.tensor([False, True, True, False, True])
    top, left, height, width = torch.tensor(BOXES, dtype=torch.float32).unbind(1)
    rows = image_ops.resize_matrix(top, height, None, extent=41, size=size, filter=filter)
    columns = image_ops.resize_matrix(left, width, flip, extent=50, size=size, filter=filter)
    made = image_ops.apply_matrices(images, rows, columns)
    for image, box, mirrored, crop in zip(images, BOXES, flip, made, strict=True):
        mode = InterpolationMode(filter)
        expected = tv.resized_crop(image, *box, [size, size], interpolation=mode, antialias=True)
        expected = expected.flip(-1) if mirrored else expected
        torch.testing.assert_close(crop, expected, rtol=0, atol=2e-3)


@pytest.mark.parametrize("kind", image_ops.FILTERS)
@pytest.mark.parametrize("size", [8, 20, 64])
def test_crop_without_antialiasing_is_tensorflows(kind, size):
    """Against the formulas: in a batch, mirrored or not, and one by one."""
    images = photos(len(BOXES), 41, 50)
    flip = torch.tensor([False, True, True, False, True])
    top, left, height, width = torch.tensor(BOXES, dtype=torch.float32).unbind(1)
    kernel = {"size": size, "filter": kind, "antialias": False}
    rows = image_ops.resize_matrix(top, height, None, extent=41, **kernel)
    columns = image_ops.resize_matrix(left, width, flip, extent=50, **kernel)
    made = image_ops.apply_matrices(images.float(), rows, columns).clamp(0, 255)
    for image, box, mirrored, crop in zip(images, BOXES, flip, made, strict=True):
        y, x, h, w = box
        expected = torch.from_numpy(resized(image[:, y : y + h, x : x + w].numpy(), size, kind))
        alone = image_ops.resized(image, box, size=size, filter=kind)
        torch.testing.assert_close(alone.double(), expected, rtol=0, atol=2e-3)
        expected = expected.flip(-1) if mirrored else expected
        torch.testing.assert_close(crop.double(), expected, rtol=0, atol=2e-3)


def test_kernels_by_hand():
    """Half the size: TensorFlow 1 takes every other pixel, TensorFlow 2 lies between two."""
    line = torch.tensor([10.0, 200.0, 30.0, 90.0]).expand(1, 4, 4)
    tf1 = image_ops.resized(line, (0, 0, 4, 4), size=2, filter="bicubic_tf1")
    torch.testing.assert_close(tf1[0, 0], torch.tensor([10.0, 30.0]))
    tf2 = image_ops.resized(line, (0, 0, 4, 4), size=2, filter="bicubic")
    first, last = (9 * 10 + 9 * 200 - 30) / 17, (9 * 30 + 9 * 90 - 200) / 17
    torch.testing.assert_close(tf2[0, 0], torch.tensor([first, last]))


def test_antialiasing_is_what_the_kernels_lack():
    """On fine noise that shrinks to a quarter it leaves a fraction of the contrast."""
    noise = (torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0)) * 255).round()
    whole = (0, 0, 64, 64)
    with_it = tv.resize(noise, [16, 16], interpolation=InterpolationMode.BICUBIC, antialias=True)
    for kind in image_ops.FILTERS[1:]:
        without = image_ops.resized(noise, whole, size=16, filter=kind)
        assert without.std() > 2.5 * with_it.std()


def test_crop_of_the_same_size_copies_the_pixels():
    images = photos(2, 16, 16).float()
    start, length = torch.tensor([2.0, 5.0]), torch.tensor([8.0, 8.0])
    matrix = image_ops.resize_matrix(start, length, None, extent=16, size=8, filter="bilinear")
    made = image_ops.apply_matrices(images, matrix, matrix)
    assert torch.equal(made[0], images[0, :, 2:10, 2:10])
    assert torch.equal(made[1], images[1, :, 5:13, 5:13])


def test_crop_by_a_half_is_exact():
    """The weights are dyadic, so the sums are exact in both implementations."""
    images = photos(3, 32, 32).float()
    start, length = torch.zeros(3), torch.full((3,), 32.0)
    matrix = image_ops.resize_matrix(start, length, None, extent=32, size=16, filter="bilinear")
    expected = tv.resize(images, [16, 16], antialias=True)
    assert torch.equal(image_ops.apply_matrices(images, matrix, matrix), expected)


def test_grayscale(x):
    expected = tv.rgb_to_grayscale(x)
    torch.testing.assert_close(image_ops.grayscale(x), expected, rtol=0, atol=1e-6)


def blended(images, **columns):
    weights = torch.zeros(len(images), 4)
    for name, values in columns.items():
        weights[:, ["own", "gray", "mean", "offset"].index(name)] = torch.as_tensor(values)
    return image_ops.blend_(images.clone(), weights)


@pytest.mark.parametrize(
    ("operation", "weights"),
    [
        (tv.adjust_brightness, lambda f: {"own": f}),
        (tv.adjust_contrast, lambda f: {"own": f, "mean": 1 - f}),
        (tv.adjust_saturation, lambda f: {"own": f, "gray": 1 - f}),
        (lambda image, d: (image + d - 1).clamp(0, 1), lambda f: {"own": 1.0, "offset": f - 1}),
    ],
    ids=["brightness", "contrast", "saturation", "additive"],
)
def test_blends(x, operation, weights):
    factor = uniform(0.0, 2.0, N)
    expected = each(operation, x, factor)
    torch.testing.assert_close(blended(x, **weights(factor)), expected, rtol=0, atol=1e-6)


def test_neutral_blend_changes_nothing(x):
    assert torch.equal(blended(x, own=1.0), x)


def test_hue(x):
    shift = uniform(-0.5, 0.5, N)
    shift[:3] = torch.tensor([-0.5, 0.0, 0.5])
    expected = each(tv.adjust_hue, x, shift)
    # Of the 1.5e-6 seen, torchvision's own rounding is the larger part (see the next test).
    torch.testing.assert_close(image_ops.adjust_hue(x, shift), expected, rtol=0, atol=2e-6)


def test_hue_is_nearer_to_the_formula_than_torchvision(x):
    """HSV in float64, sector by sector."""
    shift = uniform(-0.5, 0.5, N)
    red, green, blue = x.double().unbind(1)
    top, low = x.double().amax(1), x.double().amin(1)
    chroma = (top - low).clamp(min=1e-30)
    hue = torch.where(green == top, 2 + (blue - red) / chroma, 4 + (red - green) / chroma)
    hue = torch.where(red == top, (green - blue) / chroma, hue) + 6 * shift[:, None, None]
    exact = torch.stack(
        [low + (top - low) * (((hue + turn) % 6 - 3).abs() - 1).clamp(0, 1) for turn in (0, 4, 2)],
        dim=1,
    )
    mine = (image_ops.adjust_hue(x, shift) - exact).abs()
    theirs = (each(tv.adjust_hue, x, shift) - exact).abs()
    assert mine.max() < 1.2e-6
    assert mine.mean() < theirs.mean()


def test_hue_of_pure_and_grey_colours():
    """The corners and ties of the formula: every mix of 0, 1/2 and 1."""
    levels = list(itertools.product([0.0, 0.5, 1.0], repeat=3))
    image = torch.tensor(levels).T.reshape(1, 3, 3, 9)
    for turn in (-0.5, -0.3, -1 / 6, 0.0, 0.1, 1 / 3, 0.5):
        made = image_ops.adjust_hue(image, torch.tensor([turn]))
        torch.testing.assert_close(made, tv.adjust_hue(image, turn), rtol=0, atol=1e-6)


def test_known_hue():
    red = torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1)
    for turn, color in ((1 / 3, [0, 1, 0]), (-1 / 3, [0, 0, 1]), (0.5, [0, 1, 1])):
        made = image_ops.adjust_hue(red, torch.tensor([turn])).flatten()
        torch.testing.assert_close(made, torch.tensor(color).float(), rtol=0, atol=1e-6)


def test_jitter_in_all_24_orders():
    images = photos(24, 16, 16).float() / 255
    # Sorted by the place of hue (3), as `jitter_` wants them.
    orders = sorted(itertools.permutations(range(4)), key=lambda order: order.index(3))
    factors = uniform(0.2, 1.8, 24, 4)
    factors[:, 3] = uniform(-0.5, 0.5, 24, seed=2)
    single = torch.zeros(24, 3, 4)  # brightness, contrast, saturation
    single[:, :, 0] = factors[:, :3]
    single[:, 1, 2] = 1 - factors[:, 1]
    single[:, 2, 1] = 1 - factors[:, 2]
    others = torch.tensor([[place for place in order if place != 3] for order in orders])
    blends = single.gather(1, others[:, :, None].expand(-1, -1, 4))
    bounds = [0, 6, 12, 18, 24]
    made = image_ops.jitter_(images.clone(), blends, factors[:, 3], bounds)
    jitter = Jitter(p=1.0, strength=(0.8, 0.8, 0.8, 0.5))
    for image, order, factor, result in zip(images, orders, factors, made, strict=True):
        expected = jittered(image, order, factor, jitter)
        torch.testing.assert_close(result, expected, rtol=0, atol=5e-6, msg=str(order))


@pytest.mark.parametrize("width", [1, 3, 9, 23])
def test_blur(x, width):
    sigma = uniform(0.1, 2.0, N)
    distance = torch.arange(width // 2 + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (distance / sigma[:, None].double()) ** 2)
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(dim=1, keepdim=True)
    expected = each(lambda image, s: tv.gaussian_blur(image, [width] * 2, [s] * 2), x, sigma)
    made = image_ops.gaussian_blur(x, weights.float())
    torch.testing.assert_close(made, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_blur_is_close_to_pillows(sigma):
    """MoCo blurs with Pillow's approximation by boxes: within 4 grey levels, 1 on average."""
    image = photos(1, 64, 64)[0]
    picture = Image.fromarray(image.permute(1, 2, 0).numpy())
    pillow = np.asarray(picture.filter(ImageFilter.GaussianBlur(sigma))).astype(np.float32)
    weights = torch.exp(-0.5 * (torch.arange(12) / sigma) ** 2)[None]
    weights /= weights[:, :1] + 2 * weights[:, 1:].sum(dim=1, keepdim=True)
    made = image_ops.gaussian_blur(image[None].float(), weights)[0].permute(1, 2, 0).numpy()
    inner = np.abs(made - pillow)[8:-8, 8:-8]
    assert inner.max() < 4
    assert inner.mean() < 1


@pytest.mark.parametrize("threshold", [0.5, 128 / 255])
def test_solarize(x, threshold):
    assert torch.equal(image_ops.solarize(x, threshold), tv.solarize(x, threshold))
    assert (image_ops.solarize(torch.tensor([0.3, 0.7]), 0.5) - 0.3).abs().max() < 1e-6
