"""Long thin images are cut first, and look as if they had been resized whole."""

import pytest
import torch
from torchvision.transforms.v2 import InterpolationMode
from torchvision.transforms.v2 import functional as tv

from tests.oracles.views import photos
from visrep.data import central_crop as module
from visrep.data.central_crop import central_crop


def whole(images, *, resize, size, interpolation):
    mode = InterpolationMode(interpolation)
    return tv.center_crop(tv.resize(images, [resize], interpolation=mode, antialias=True), [size])


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(
    ("height", "width"),
    [(2, 600), (600, 2), (1, 333), (7, 601), (3, 100), (40, 3001), (5, 81), (600, 9700)],
)
def test_values_are_those_of_the_whole(interpolation, height, width):
    noise = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8)
    for resize, size in ((64, 56), (32, 32), (300, 40)):
        settings = {"resize": resize, "size": size, "interpolation": interpolation}
        made = central_crop(noise, **settings)
        away = (made.int() - whole(noise, **settings).int()).abs()
        assert made.dtype == torch.uint8 and made.shape == (2, 3, size, size)
        assert away.max() <= 2 and (away > 0).float().mean() < 0.1
        assert torch.equal(central_crop(noise[0], **settings), made[0])


@pytest.mark.parametrize(("height", "width"), [(30, 41), (20, 320), (320, 20), (32, 32)])
def test_ordinary_images_are_torchvision_s_to_the_bit(height, width):
    settings = {"resize": 32, "size": 28, "interpolation": "bilinear"}
    images = photos(2, height, width)
    assert torch.equal(central_crop(images, **settings), whole(images, **settings))


def test_only_what_the_crop_needs_is_touched(monkeypatch):
    """Of 6,000 pixels those in the middle, and matrices of their size."""
    extents = []
    real = module.resize_matrix
    monkeypatch.setattr(
        module, "resize_matrix", lambda *a, **k: extents.append(k["extent"]) or real(*a, **k)
    )
    image = torch.zeros(3, 2, 6000, dtype=torch.uint8)
    image[..., :2990], image[..., 3010:] = 255, 255
    made = central_crop(image, resize=256, size=224, interpolation="bicubic")
    assert max(extents) <= 12 and made.max() == 0
