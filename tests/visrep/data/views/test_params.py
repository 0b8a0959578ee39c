"""What is drawn: torchvision's distributions, from (seed, step, position) alone."""

import itertools
import math
import pickle
from collections import Counter

import numpy as np
import pytest
import torch
from torchvision.transforms import RandomResizedCrop

from visrep.data.views.batch import Views
from visrep.data.views.operations import OURS, Blur
from visrep.data.views.params import ROW
from visrep.data.views.spec import make_view
from visrep.errors import ConfigError

N = 4000


def drawn(n=N, seed=0, step=0, **view):
    views = Views(views=[make_view(size=32, **view)], mean=[0, 0, 0], std=[1, 1, 1])
    return views.draw(seed=seed, step=step, batch=n)


def numbers_of(params, view=0):
    """The numbers of the view's only operation, and the operation."""
    (operation,) = params.views[view].operations
    return operation, params.of(view, operation)[:, 1:]


def distance(a, b):
    """Kolmogorov-Smirnov distance of two samples."""
    a, b = np.sort(a), np.sort(b)
    at = np.concatenate([a, b])
    below_a, below_b = (np.searchsorted(s, at, side="right") / len(s) for s in (a, b))
    return np.abs(below_a - below_b).max()


def from_uniform(values, low, high):
    """Kolmogorov-Smirnov distance from the uniform distribution."""
    values = np.sort((np.asarray(values) - low) / (high - low))
    assert values[0] >= 0 and values[-1] <= 1
    return np.abs(values - np.arange(len(values)) / len(values)).max()


# Exceeded once in 10,000 draws of N each, where the distributions are the same.
TWO_SAMPLES = 2.22 * math.sqrt(2 / N)
ONE_SAMPLE = 2.22 / math.sqrt(N)


@pytest.mark.parametrize(
    ("height", "width", "scale"),
    [(32, 32, (0.08, 1.0)), (375, 500, (0.2, 1.0)), (64, 20, (0.3, 1))],
)
def test_boxes_have_the_distribution_of_torchvision(height, width, scale):
    boxes = drawn(scale=scale).boxes(0, height, width)
    torch.manual_seed(0)
    image = torch.empty(3, height, width)
    expected = np.array(
        [RandomResizedCrop.get_params(image, list(scale), [3 / 4, 4 / 3]) for _ in range(N)]
    )
    for mine, theirs in (
        (boxes[:, 2] * boxes[:, 3], expected[:, 2] * expected[:, 3]),  # area
        (boxes[:, 3] / boxes[:, 2], expected[:, 3] / expected[:, 2]),  # aspect ratio
        (boxes[:, 0], expected[:, 0]),
        (boxes[:, 1], expected[:, 1]),
        (boxes[:, 0] + boxes[:, 2], expected[:, 0] + expected[:, 2]),
        (boxes[:, 1] + boxes[:, 3], expected[:, 1] + expected[:, 3]),
    ):
        assert distance(mine, theirs) < TWO_SAMPLES


def test_boxes_lie_in_the_image():
    top, left, height, width = drawn().boxes(0, 21, 37).T
    assert min(top.min(), left.min()) == 0
    assert min(height.min(), width.min()) > 0
    assert (top + height).max() == 21
    assert (left + width).max() == 37


@pytest.mark.parametrize(
    ("height", "width", "ratio"),
    [(10, 400, (0.75, 4 / 3)), (400, 10, (0.75, 4 / 3)), (17, 90, (1.0, 1.0))],
)
def test_central_crop_where_nothing_fits(height, width, ratio):
    """As torchvision after ten attempts: the whole area asks for a crop that is too long."""
    boxes = drawn(n=5, scale=(0.9, 1.0), ratio=ratio).boxes(0, height, width)
    image = torch.empty(3, height, width)
    expected = RandomResizedCrop.get_params(image, [0.9, 1.0], list(ratio))
    assert (boxes == expected).all()


def test_the_first_attempt_that_fits_is_taken():
    """Of a square, scale 1 needs ratio 1: most attempts fail, so many samples need several."""
    params = drawn(scale=(0.95, 1.0))
    boxes = params.boxes(0, 1000, 1000)
    whole = (boxes == [0, 0, 1000, 1000]).all(axis=1)
    torch.manual_seed(1)
    image = torch.empty(3, 1000, 1000)
    expected = sum(
        RandomResizedCrop.get_params(image, [0.95, 1.0], [0.75, 4 / 3]) == (0, 0, 1000, 1000)
        for _ in range(N)
    )
    assert 0.02 < whole.mean() < 0.98
    assert abs(whole.mean() - expected / N) < 4 * math.sqrt(0.5 / N)


def test_one_box_is_its_row_of_all():
    params = drawn(n=20)
    boxes = params.boxes(0, 33, 57)
    assert [params[i : i + 1].boxes(0, 33, 57).tolist() for i in range(20)] == boxes[
        :, None
    ].tolist()


def test_jitter_has_the_ranges_of_torchvision():
    jitter, numbers = numbers_of(drawn(jitter=(0.4, 1.5, 0.8, 0.2), jitter_p=1.0))
    factors = jitter.factors(numbers)
    ranges = [(0.6, 1.4), (0.0, 2.5), (0.2, 1.8), (-0.2, 0.2)]
    for values, (low, high) in zip(factors.T, ranges, strict=True):
        assert from_uniform(values, low, high) < ONE_SAMPLE


def test_additive_brightness_is_symmetric_about_zero():
    settings = {"jitter": (0.8, 0.8, 0.8, 0.2), "jitter_p": 1.0, "brightness_additive": True}
    jitter, numbers = numbers_of(drawn(**settings))
    factors = jitter.factors(numbers)
    assert from_uniform(factors[:, 0], -0.8, 0.8) < ONE_SAMPLE
    assert from_uniform(factors[:, 1], 0.2, 1.8) < ONE_SAMPLE


def test_every_order_of_the_jitter_is_as_likely():
    jitter, numbers = numbers_of(drawn(jitter=(1, 1, 1, 0.5), jitter_p=1.0))
    orders = Counter(map(tuple, jitter.order(numbers)))
    assert set(orders) == set(itertools.permutations(range(4)))
    expected = N / 24
    chi_square = sum((count - expected) ** 2 / expected for count in orders.values())
    assert chi_square < 58  # 23 degrees of freedom: exceeded once in 10,000


def test_blur_width_is_uniform():
    blur, numbers = numbers_of(drawn(blur_p=1.0))
    assert from_uniform(blur.drawn_sigma(numbers), 0.1, 2.0) < ONE_SAMPLE


@pytest.mark.parametrize("name", OURS)
@pytest.mark.parametrize("p", [0.1, 0.8, 1.0])
def test_share_of_the_samples(name, p):
    params = drawn(**{f"{name}_p": p})
    (operation,) = params.views[0].operations
    index = operation.chosen(params.of(0, operation))
    assert len(set(index.tolist())) == len(index)
    assert abs(len(index) / N - p) <= 4 * math.sqrt(p * (1 - p) / N)


@pytest.mark.parametrize("p", [0.0, 0.1, 0.8, 1.0])
def test_share_of_the_mirrored(p):
    assert abs(drawn(flip_p=p).flip(0).mean() - p) <= 4 * math.sqrt(p * (1 - p) / N)


def test_an_operation_of_probability_0_is_left_out():
    assert make_view(size=32, **{f"{name}_p": 0.0 for name in OURS}).operations == ()


def test_no_two_operations_share_a_column():
    columns = [column for kind in OURS.values() for column in kind.columns]
    assert len(set(columns)) == len(columns) and min(columns) > 40 and max(columns) < ROW
    assert all(len(kind.columns) == 1 + kind.numbers for kind in OURS.values())


def test_operations_and_views_are_drawn_independently():
    """No two columns of the table, nor the same column of two views, are correlated."""
    views = Views(views=[make_view(size=8)] * 2, mean=[0, 0, 0], std=[1, 1, 1])
    table = views.draw(seed=0, step=0, batch=N).uniforms.reshape(N, -1)
    correlation = np.corrcoef(table.T) - np.eye(table.shape[1])
    assert np.abs(correlation).max() < 6 / math.sqrt(N)


def test_a_function_of_seed_and_step():
    assert np.array_equal(drawn(seed=3, step=5).uniforms, drawn(seed=3, step=5).uniforms)
    tables = [drawn(n=50, seed=s, step=t).uniforms for s, t in ((3, 5), (3, 6), (4, 5), (5, 3))]
    for a, b in itertools.combinations(tables, 2):
        assert not np.isin(a, b).any()


def test_the_draws_stay_what_they_are():
    """A run that is resumed with a later version must see the same views."""
    params = drawn(n=3, seed=1, step=2, scale=(0.5, 1.0), blur_p=1.0)
    assert params.boxes(0, 32, 32).tolist() == [[1, 4, 30, 27], [5, 1, 25, 25], [0, 4, 28, 26]]
    blur, numbers = numbers_of(params)
    sigma = blur.drawn_sigma(numbers)
    assert sigma == pytest.approx([1.1129443184, 1.3834878010, 1.4831477387], abs=1e-9)


def test_global_generators_are_neither_read_nor_moved():
    torch.manual_seed(0)
    np.random.seed(0)
    before = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = drawn(n=4).uniforms
    assert torch.equal(torch.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])
    torch.manual_seed(1)
    np.random.seed(1)
    assert np.array_equal(drawn(n=4).uniforms, first)


def test_slices():
    whole = drawn(n=10, jitter=(0.4, 0.4, 0.4, 0.1), jitter_p=0.8)
    part = whole[3:7]
    assert len(part) == 4
    assert np.array_equal(part.boxes(0, 20, 30), whole.boxes(0, 20, 30)[3:7])
    assert np.array_equal(numbers_of(part)[1], numbers_of(whole)[1][3:7])
    assert np.array_equal(part.flip(0), whole.flip(0)[3:7])
    assert np.array_equal(part.uniforms, drawn(n=7).uniforms[3:])  # no matter how large the batch


def test_survives_the_way_to_a_worker():
    params = drawn(n=4)
    again = pickle.loads(pickle.dumps(params))
    assert again.views == params.views
    assert np.array_equal(again.uniforms, params.uniforms)


@pytest.mark.parametrize(("size", "width"), [(224, 23), (96, 9), (64, 7), (32, 3), (10, 1), (1, 1)])
def test_blur_kernel_is_a_tenth_of_the_size(size, width):
    assert Blur().width(size) == width


@pytest.mark.parametrize(
    "wrong",
    [
        {"size": 0},
        {"size": "big"},
        {"scale": (0.5, 0.2)},
        {"scale": (0.0, 1.0)},
        {"scale": (0.5, 1.2)},
        {"scale": 0.5},
        {"ratio": (0, 1)},
        {"interpolation": "nearest"},
        {"interpolation": "bicubic_tf1"},
        {"antialias": "no"},
        {"flip_p": 1.5},
        {"flip_p": "often"},
        {"jitter": (0.4, 0.4, 0.4)},
        {"jitter": (0.4, 0.4, -0.4, 0.1)},
        {"jitter": (0.4, 0.4, 0.4, 0.6)},
        {"gray_p": -0.1},
        {"gray_p": float("nan")},
        {"blur_sigma": (0.0, 2.0)},
        {"blur_kernel": 4},
        {"blur_kernel": 65},
        {"solarize_threshold": 128},
        {"order": ("jitter", "jitter")},
        {"order": ("jitter", "sharpen")},
        {"order": "gray"},
        {"order": ("gray",), "jitter_p": 0.8},
    ],
    ids=str,
)
def test_a_wrong_setting_is_named(wrong):
    name = next(iter(wrong))
    with pytest.raises(ConfigError, match=rf"^views: {name}=.*give .*") as caught:
        make_view(**{"size": 32, **wrong})
    assert "\n" not in str(caught.value)
