"""The evaluation transform: torchvision's, in the order and units that the encoder file states."""

import json

import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from tests.oracles.resize import resized
from tests.oracles.views import photos
from visrep.data.preprocess import Preprocess
from visrep.data.views.image_ops import FILTERS
from visrep.errors import UserError
from visrep.weights.formats.simclr_torch import preprocess as simclr_preprocess

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def standard(**changes):
    return Preprocess(**{"size": 28, "resize": 32, "mean": MEAN, "std": STD, **changes})


@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic"])
@pytest.mark.parametrize(("height", "width"), [(60, 45), (45, 61), (32, 32), (20, 90)])
def test_equals_torchvision(interpolation, height, width):
    reference = v2.Compose(
        [
            v2.Resize(32, interpolation=v2.InterpolationMode(interpolation), antialias=True),
            v2.CenterCrop(28),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(list(MEAN), list(STD)),
        ]
    )
    images = photos(3, height, width)
    made = standard(interpolation=interpolation)(images)
    assert made.shape == (3, 3, 28, 28)
    torch.testing.assert_close(made, reference(images), rtol=0, atol=1e-6)
    # A batch of one size at once gives what one image gives.
    torch.testing.assert_close(standard(interpolation=interpolation)(images[1]), made[1])


@pytest.mark.parametrize("kind", FILTERS)
@pytest.mark.parametrize(("height", "width"), [(60, 45), (45, 61), (20, 90), (7, 7)])
def test_without_antialiasing_it_is_tensorflows_central_square(kind, height, width):
    """7/8 of the short side, not rounded to grey levels; a batch gives what one image gives."""
    images = photos(2, height, width)
    plain = {"mean": (0, 0, 0), "std": (1, 1, 1), "interpolation": kind, "antialias": False}
    made = standard(**plain)(images)
    side = int(np.rint(0.875 * min(height, width)))
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    for image, one in zip(images.numpy(), made, strict=True):
        square = image[:, top : top + side, left : left + side]
        expected = torch.from_numpy(resized(square, 28, kind)) / 255
        torch.testing.assert_close(one.double(), expected, rtol=0, atol=1e-5)
    assert torch.equal(standard(**plain)(images[1]), made[1])


@pytest.mark.parametrize(
    ("height", "width", "side", "top", "left"),
    [
        (375, 500, 328, 24, 86),
        (500, 375, 328, 86, 24),
        (256, 256, 224, 16, 16),
        (333, 500, 291, 21, 105),
    ],
)
def test_the_square_of_simclrs_evaluation(height, width, side, top, left):
    """Only the square's pixels are read, all others may be anything."""
    evaluation = simclr_preprocess()
    inside = photos(1, height, width)
    other = 255 - inside
    other[..., top : top + side, left : left + side] = inside[
        ..., top : top + side, left : left + side
    ]
    assert torch.equal(evaluation(inside), evaluation(other))
    for y, x in ((top, left), (top, left + side - 1)):  # of the square's corners, one is read
        other[..., y, x] = 255 - other[..., y, x]
    assert not torch.equal(evaluation(inside), evaluation(other))
    assert evaluation(inside).shape == (1, 3, 224, 224)


def test_a_file_without_the_key_is_antialiased():
    stated = standard().to_dict()
    assert stated.pop("antialias") is True
    assert Preprocess.from_dict(stated) == standard()


def test_images_as_they_are():
    images = photos(2, 28, 28)
    plain = standard(resize=None, mean=(0, 0, 0), std=(1, 1, 1))
    assert torch.equal(plain(images), images.float() / 255)


def test_another_size_is_refused_with_both_sizes():
    with pytest.raises(UserError, match="30 x 28 pixels.*28 x 28"):
        standard(resize=None)(photos(1, 30, 28))


def test_caffe_style():
    """Blue first, values to 255, as old Detectron weights want them."""
    images = photos(2, 28, 28)
    caffe = Preprocess(
        size=28,
        resize=None,
        mean=(103.53, 116.28, 123.675),
        std=(1.0, 1.0, 1.0),
        channel_order="BGR",
        range=(0, 255),
    )
    expected = images.flip(1).float() - torch.tensor([103.53, 116.28, 123.675])[:, None, None]
    torch.testing.assert_close(caffe(images), expected, rtol=0, atol=1e-4)


def test_a_range_about_zero():
    images = torch.tensor([0, 255]).to(torch.uint8).view(1, 1, 2).expand(3, 2, 2).contiguous()
    made = Preprocess(size=2, resize=None, mean=(0, 0, 0), std=(1, 1, 1), range=(-1, 1))(images)
    assert made[0, 0].tolist() == [-1.0, 1.0]


def test_the_input_is_left_alone():
    images = photos(1, 28, 28)
    before = images.clone()
    standard(resize=None)(images)
    assert torch.equal(images, before)


@pytest.mark.parametrize(
    "preprocess", [standard(), standard(resize=None, channel_order="BGR", range=(0, 255))]
)
def test_round_trip_through_json(preprocess):
    text = json.dumps(preprocess.to_dict())
    assert Preprocess.from_dict(json.loads(text)) == preprocess


def test_optional_keys_may_be_absent():
    short = {"size": 28, "resize": 32, "mean": list(MEAN), "std": list(STD)}
    assert Preprocess.from_dict(short) == standard()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 0}, "size=0"),
        ({"size": "28"}, "size=28"),
        ({"size": True}, "size=True"),
        ({"resize": 3.5}, "resize=3.5"),
        ({"resize": 20}, "resize=20 is below size=28"),
        ({"mean": [0.5]}, "mean="),
        ({"mean": "red"}, "mean=red"),
        ({"mean": [0, 0, float("nan")]}, "mean="),
        ({"std": [1, 1, 0]}, "std="),
        ({"std": None}, "std=None"),
        ({"interpolation": "nearest"}, "bilinear or bicubic"),
        ({"interpolation": "bicubic_tf1"}, "needs antialias=false"),
        ({"antialias": "no"}, "antialias=no"),
        ({"channel_order": "GRB"}, "RGB or BGR"),
        ({"range": [1, 0]}, "range="),
        ({"padding": "torch"}, "unknown key padding"),
    ],
    ids=str,
)
def test_a_wrong_value_is_one_line(change, message):
    with pytest.raises(UserError, match=message) as caught:
        Preprocess.from_dict({**standard().to_dict(), **change})
    assert str(caught.value).startswith("preprocess: ")
    assert "\n" not in str(caught.value)


def test_missing_keys_and_no_mapping():
    with pytest.raises(UserError, match="missing key mean, size"):
        Preprocess.from_dict({"resize": 32, "std": [1, 1, 1]})
    with pytest.raises(UserError, match="mapping"):
        Preprocess.from_dict([1, 2])
