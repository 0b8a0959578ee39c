"""The transformations against plain loops and known values."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles import exemplar as oracle
from tests.oracles.views import photos
from visrep.data.exemplar.transformations import (
    Palette,
    contrast_hsv,
    contrast_pca,
    palette_of,
    place,
)

N = 6


def images(count: int = N, size: int = 12) -> Tensor:
    return photos(count, size, size).float() / 255


def drawn(low: float, high: float, *shape: int, seed: int = 0) -> Tensor:
    return low + (high - low) * torch.rand(*shape, generator=torch.Generator().manual_seed(seed))


def neutral(count: int = N) -> dict[str, Tensor]:
    return {
        "power": torch.ones(count, 2),
        "factor": torch.ones(count, 2),
        "offset": torch.zeros(count, 2),
        "hue": torch.zeros(count),
    }


def test_neutral_parameters_change_nothing() -> None:
    x = images()
    torch.testing.assert_close(contrast_pca(x, torch.ones(N, 3), palette_of(photos(9, 8, 8))), x)
    torch.testing.assert_close(contrast_hsv(x, **neutral()), x)


@pytest.mark.parametrize("turns", [1.0, -1.0, 2.0])
def test_a_whole_turn_of_the_hue_is_the_identity(turns: float) -> None:
    x = images()
    got = contrast_hsv(x, **neutral() | {"hue": torch.full((N,), turns)})
    torch.testing.assert_close(got, x, atol=2e-6, rtol=0)
    third = contrast_hsv(x, **neutral() | {"hue": torch.full((N,), 1 / 3)})
    torch.testing.assert_close(third, x[:, [2, 0, 1]], atol=2e-6, rtol=0)  # red becomes green


def test_power_2_makes_a_saturation_of_a_half_a_quarter() -> None:
    x = torch.tensor([0.8, 0.6, 0.4])[:, None, None].expand(1, 3, 2, 2)  # S = 0.5, V = 0.8
    power = torch.tensor([[2.0, 1.0]])
    got = contrast_hsv(x, **neutral(1) | {"power": power})[0, :, 0, 0]
    torch.testing.assert_close(got, torch.tensor([0.8, 0.7, 0.6]))  # low = 0.8 (1 - 0.25)
    got = contrast_hsv(x, **neutral(1) | {"factor": torch.tensor([[1.0, 0.5]])})[0, :, 0, 0]
    torch.testing.assert_close(got, torch.tensor([0.4, 0.3, 0.2]))
    got = contrast_hsv(x, **neutral(1) | {"offset": torch.tensor([[0.0, 0.9]])})[0, :, 0, 0]
    torch.testing.assert_close(got, torch.tensor([1.0, 0.75, 0.5]))  # V is clipped at 1


def test_hsv_equals_the_standard_library() -> None:
    x = images()
    x[0, :, 0, :4] = torch.tensor([[0, 1, 0.5, 1], [0, 1, 0.5, 0], [0, 1, 0.5, 0.0]])
    given = {
        "power": drawn(0.25, 4, N, 2, seed=1),
        "factor": drawn(0.7, 1.4, N, 2, seed=2),
        "offset": drawn(-0.1, 0.1, N, 2, seed=3),
        "hue": drawn(-0.1, 0.1, N, seed=4),
    }
    got = contrast_hsv(x, **given)
    for i in range(N):
        one = {name: value[i].double().numpy() for name, value in given.items()}
        for row in range(12):
            for column in range(12):
                want = oracle.hsv_contrast(x[i, :, row, column].double().numpy(), one)
                np.testing.assert_allclose(got[i, :, row, column], want, atol=3e-6)


def test_each_principal_component_has_its_own_factor() -> None:
    palette = palette_of(photos(20, 16, 16))
    x = images()
    factors = torch.tensor([[2.0, 1.0, 1.0], [1.0, 0.5, 1.0], [1.0, 1.0, 2.0]] * 2)
    got = contrast_pca(x, factors, palette)
    for i in range(N):
        before, after = (
            torch.einsum("chw,cd->dhw", y[i] - palette.mean[:, None, None], palette.axes)
            for y in (x, got)
        )
        torch.testing.assert_close(after, before * factors[i, :, None, None], atol=3e-6, rtol=1e-5)
    # A shared factor would be a plain contrast about the mean: it is not.
    assert (
        got[0] - palette.mean[:, None, None] - 2 * (x[0] - palette.mean[:, None, None])
    ).abs().max() > 0.05


def test_the_palette_is_that_of_all_pixels() -> None:
    some = photos(30, 9, 7)
    palette = palette_of(some, block=7)
    pixels = some.permute(1, 0, 2, 3).reshape(3, -1).double().numpy() / 255
    np.testing.assert_allclose(palette.mean, pixels.mean(axis=1), atol=1e-6)
    covariance = np.cov(pixels, bias=True)
    turned = palette.axes.double().numpy().T @ covariance @ palette.axes.double().numpy()
    spread = np.diag(turned)
    np.testing.assert_allclose(turned, np.diag(spread), atol=1e-7)
    assert spread[0] > spread[1] > spread[2]


def test_the_untouched_square_is_the_middle_of_the_window() -> None:
    x = images(size=20)
    still = {"zoom": torch.ones(N), "angle": torch.zeros(N), "shift": torch.zeros(N, 2)}
    torch.testing.assert_close(place(x, size=12, **still), x[:, :, 4:16, 4:16])
    moved = place(x, size=12, **still | {"shift": torch.tensor([[2.0, -3.0]] * N)})
    torch.testing.assert_close(moved, x[:, :, 1:13, 6:18])  # x to the right, y downwards
    quarter = place(x, size=12, **still | {"angle": torch.full((N,), torch.pi / 2)})
    torch.testing.assert_close(quarter, x[:, :, 4:16, 4:16].rot90(1, (2, 3)), atol=1e-5, rtol=0)


def test_place_reads_where_plain_loops_read() -> None:
    x = images(size=26)
    given = {"zoom": drawn(0.7, 1.4, N), "angle": drawn(-0.3, 0.3, N, seed=1)}
    shift = drawn(-2, 2, N, 2, seed=2)
    got = place(x, size=10, shift=shift, **given)
    none = {"pca": np.ones(3), "power": np.ones(2), "factor": np.ones(2), "offset": np.zeros(2)}
    for i in range(N):
        one = {name: value[i].double().numpy() for name, value in given.items()}
        one |= none | {"shift": shift[i].double().numpy() / 10, "hue": np.array(0.0)}
        want = oracle.sample(x[i], 10, one, np.zeros(3), np.eye(3))
        torch.testing.assert_close(got[i].double(), want, atol=2e-5, rtol=0)


def test_a_palette_moves_with_its_images() -> None:
    palette = Palette(torch.zeros(3), torch.eye(3)).to(torch.device("meta"))
    assert palette.mean.is_meta and palette.axes.is_meta
