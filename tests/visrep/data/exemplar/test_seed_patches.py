"""Seeds: in proportion to the squared gradient, at all scales, with the real surroundings."""

import numpy as np
import pytest
import torch
from torch import Tensor

from tests.oracles import exemplar as oracle
from visrep.data.dataset import MemoryImages
from visrep.data.exemplar.seed_patches import cut_window, draw_seeds, mean_energy, pick
from visrep.data.images import BrokenImage
from visrep.errors import UserError


def dataset(images: Tensor) -> MemoryImages:
    return MemoryImages(name="made/train", images=images)


def noisy(count: int = 12, side: int = 48, *, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(40, 256, (count, 3, side, side), generator=draw).to(torch.uint8)


def seeds_of(images: Tensor, **settings: object) -> object:
    given = {"count": 8, "size": 16, "window": 36, "side": (0.4, 1.0), "seed": 0, "max_broken": 0.0}
    return draw_seeds(dataset(images), **given | settings)


def test_energy_equals_plain_loops() -> None:
    image = torch.rand(3, 9, 11, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(mean_energy(image, 4), oracle.energy(image, 4))
    assert mean_energy(image, 9).shape == (1, 3)
    ramp = torch.arange(10.0).expand(3, 10, 10)  # a slope of 1 in each channel
    torch.testing.assert_close(mean_energy(ramp, 5), torch.full((6, 6), 3.0).double())


def test_pick_is_in_proportion() -> None:
    energy = torch.tensor([[0.0, 1.0, 0.0], [3.0, 0.0, 4.0]]).double()
    uniforms = (np.arange(800) + 0.5) / 800
    found = [pick(energy, float(u)) for u in uniforms]
    counts = {place: found.count(place) for place in set(found)}
    assert counts == {(0, 1): 100, (1, 0): 300, (1, 2): 400}
    assert pick(energy, 0.0) == (0, 1) and pick(energy, 1 - 1e-16) == (1, 2)


def test_positions_follow_the_gradient() -> None:
    """The right part of an image has three times the contrast: nine times the seeds."""
    draw = torch.Generator().manual_seed(1)
    signs = torch.randint(0, 2, (1, 16, 64), generator=draw).float() * 2 - 1
    strength = torch.where(torch.arange(64) < 32, 20.0, 60.0)
    image = (128 + signs * strength).expand(3, -1, -1).to(torch.uint8)
    seeds = seeds_of(image.expand(600, -1, -1, -1), count=600, side=(1.0, 1.0), window=16)
    left = seeds.places[:, 0]
    assert set(seeds.places[:, 2].tolist()) == {16.0}
    energy = mean_energy(image.float() / 255, 16)[0]
    share = energy / energy.sum()
    for part in (slice(0, 16), slice(16, 32), slice(33, 49)):
        want = float(share[part].sum())
        got = float(((left >= part.start) & (left < part.stop)).float().mean())
        assert got == pytest.approx(want, abs=4 * (want * (1 - want) / 600) ** 0.5)
    assert (left >= 33).float().mean() > 5 * (left < 16).float().mean()


def test_flat_places_are_never_taken() -> None:
    """The sky trap: three quarters of each image are one colour."""
    images = noisy(20)
    images[:, :, :, :36] = 90
    seeds = seeds_of(images, count=60, side=(0.3, 0.4))
    right = seeds.places[:, 0] + seeds.places[:, 2]
    assert (right > 35).all()
    spread = seeds.windows[:, :, 10:26, 10:26].float().flatten(1).std(dim=1)
    assert spread.min() > 1


def test_scales_vary_evenly_in_their_logarithm() -> None:
    sides = seeds_of(noisy(50), count=400, side=(0.25, 1.0)).places[:, 2] / 48
    assert sides.min() >= 0.25 - 1e-6 and sides.max() <= 1 + 1e-6
    for low, high in ((0.25, 0.354), (0.354, 0.5), (0.5, 0.707), (0.707, 1.001)):
        share = ((sides >= low) & (sides < high)).float().mean().item()
        assert share == pytest.approx(0.25, abs=0.09)


def test_windows_show_the_image_around_and_its_mirror_beyond() -> None:
    """Every pixel says where it is from: red its column, green its row."""
    rows, columns = torch.meshgrid(torch.arange(40), torch.arange(60), indexing="ij")
    image = torch.stack([100 + 2 * columns, 100 + 2 * rows, torch.full_like(rows, 200)])
    window = cut_window(image.float() / 255, top=5, left=40, size=16, window=36)
    want_x = torch.tensor([i if i < 60 else 118 - i for i in range(30, 66)])
    want_y = torch.tensor([abs(i) for i in range(-5, 31)])
    assert torch.equal(window[0].int(), (100 + 2 * want_x).int().expand(36, 36))
    assert torch.equal(window[1].int(), (100 + 2 * want_y).int()[:, None].expand(36, 36))
    assert window.min() >= 100  # nothing black


def test_the_middle_of_a_window_is_the_named_patch() -> None:
    images = noisy(10)
    seeds = seeds_of(images, side=(1 / 3, 1 / 3))  # 16 px of 48: no resizing
    for window, source, (left, top, side) in zip(
        seeds.windows, seeds.sources, seeds.places.int().tolist(), strict=True
    ):
        assert side == 16
        patch = images[source, :, top : top + 16, left : left + 16]
        assert torch.equal(window[:, 10:26, 10:26], patch)


def test_images_take_turns_and_a_smaller_number_is_a_part() -> None:
    images = noisy(6)
    many, few = seeds_of(images, count=15), seeds_of(images, count=7)
    assert (
        sorted(many.sources[:6].tolist()) == sorted(many.sources[6:12].tolist()) == list(range(6))
    )
    assert torch.equal(many.windows[:7], few.windows)
    assert torch.equal(many.places[:7], few.places)
    twins = [many.places[(many.sources == i)] for i in range(3)]
    assert all(not torch.equal(two[0], two[1]) for two in twins)  # other places of an image
    other = seeds_of(images, count=7, seed=1)
    assert not torch.equal(other.windows, few.windows)


def test_flat_images_are_passed_over_and_only_flat_ones_refused() -> None:
    images = noisy(6)
    images[[1, 4]] = 77
    assert set(seeds_of(images, count=12).sources.tolist()) == {0, 2, 3, 5}
    with pytest.raises(UserError, match="no texture"):
        seeds_of(torch.full((3, 3, 48, 48), 9, dtype=torch.uint8))


class PartlyBroken(MemoryImages):
    def __getitem__(self, i: int) -> Tensor:
        if i == 2:
            raise BrokenImage("two.png", "cut short")
        return super().__getitem__(i)


def test_broken_images_are_passed_over_up_to_a_share() -> None:
    data = PartlyBroken(name="made/train", images=noisy(6))
    given = {"count": 9, "size": 16, "window": 36, "side": (0.4, 1.0), "seed": 0}
    assert 2 not in draw_seeds(data, max_broken=0.2, **given).sources
    with pytest.raises(UserError, match="two.png"):
        draw_seeds(data, max_broken=0.1, **given)


def test_images_of_any_shape() -> None:
    for shape in ((3, 20, 90), (3, 90, 20), (3, 16, 16), (3, 17, 200)):
        image = torch.randint(0, 256, (1, *shape), generator=torch.Generator().manual_seed(3))
        seeds = seeds_of(image.to(torch.uint8), count=3)
        left, top, side = seeds.places.unbind(1)
        slack = 0.6 * side / 16  # the resized image has a whole number of pixels
        assert (left >= 0).all() and (left + side <= shape[2] + slack).all()
        assert (top >= 0).all() and (top + side <= shape[1] + slack).all()
