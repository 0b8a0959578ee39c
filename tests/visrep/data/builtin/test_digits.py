"""Scans, colours and the geometry of a stamped digit."""

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from visrep.data.builtin import digits


def test_no_scan_is_in_both_splits_and_none_is_lost():
    train, test = digits.scans("train"), digits.scans("test")
    assert sorted([*train.ids.tolist(), *test.ids.tolist()]) == list(range(1797))
    # As pictures too: the set must not hold one scan under two numbers.
    seen = {scan.numpy().tobytes() for scan in train.ink}
    assert not any(scan.numpy().tobytes() in seen for scan in test.ink)


def test_splits_are_stratified_and_labelled_as_in_scikit_learn():
    original = load_digits()
    for split, share in (("train", 0.75), ("test", 0.25)):
        pool = digits.scans(split)
        assert pool.labels.tolist() == original.target[pool.ids.numpy()].tolist()
        assert torch.equal(pool.ink * 16, torch.from_numpy(original.images[pool.ids]).float())
        expected = np.bincount(original.target) * share
        assert np.abs(np.bincount(pool.labels) - expected).max() <= 1


def test_contrast_is_the_mean_absolute_difference():
    black, white = torch.zeros(3), torch.ones(3)
    assert digits.contrast(black, white) == 1
    assert digits.contrast(black, torch.tensor([0.0, 0.0, 1.0])).item() == pytest.approx(1 / 3)
    assert digits.contrast(torch.tensor([0.2, 0.9, 0.5]), torch.tensor([0.5, 0.5, 0.5])).item() == (
        pytest.approx(0.7 / 3)
    )


@pytest.mark.parametrize("grey", [0.0, 0.3, 0.5, 1.0])
def test_colours_stand_out_and_are_varied(grey):
    behind = torch.full((500, 3), grey)
    colours = digits.visible_colours(np.random.default_rng(0), behind)
    assert colours.shape == (500, 3) and colours.min() >= 0 and colours.max() <= 1
    assert digits.contrast(colours, behind).min() >= digits.MIN_CONTRAST
    assert len(colours.unique(dim=0)) > 250


def test_a_colour_is_found_even_if_no_draw_is_far_enough():
    class Unlucky:
        def random(self, shape):
            return np.full(shape, 0.5)

    behind = torch.tensor([[0.5, 0.5, 0.5], [0.6, 0.4, 0.5]])
    colours = digits.visible_colours(Unlucky(), behind)
    assert digits.contrast(colours, behind).min() >= digits.MIN_CONTRAST


def test_background_is_a_crop_of_a_photograph():
    rng = np.random.default_rng(3)
    crops = [digits.background(rng, 20, 30, (1.0, 3.0)) for _ in range(40)]
    assert all(crop.shape == (3, 20, 30) for crop in crops)
    assert min(c.min() for c in crops) >= 0 and max(c.max() for c in crops) <= 1
    assert torch.stack(crops).mean(dim=(1, 2, 3)).std() > 0.05, "both photographs, many places"


def test_a_digit_has_the_height_and_place_that_it_is_given():
    """Stamped sixteen times as large, so that whole pixels do not matter."""
    pool = digits.scans("train")
    ink = pool.ink[:40]
    degrees = torch.linspace(-25, 25, 40)
    heights = torch.linspace(20, 28, 40)
    stencils = digits.Stencils(ink, degrees)
    centres = torch.tensor([[18.0, 16.0]]).expand(40, 2)
    fine = stencils.stamp(heights * 16, centres * 16, (32 * 16, 40 * 16)) >= 0.5
    for mask, height, ratio in zip(fine, heights, stencils.width_per_height, strict=True):
        rows, columns = mask.any(dim=1).nonzero().flatten(), mask.any(dim=0).nonzero().flatten()
        assert (rows[-1] - rows[0] + 1).item() / 16 == pytest.approx(height.item(), abs=0.5)
        width = (columns[-1] - columns[0] + 1).item() / 16
        assert width == pytest.approx((height * ratio).item(), abs=0.5)
        assert (rows[0] + rows[-1] + 1).item() / 32 == pytest.approx(16, abs=0.3)
        assert (columns[0] + columns[-1] + 1).item() / 32 == pytest.approx(18, abs=0.3)


def test_positive_angles_turn_counter_clockwise():
    bar = torch.zeros(1, 8, 8)
    bar[0, :, 3:5] = 1  # upright
    for degrees, tips_are_right in ((20.0, False), (-20.0, True)):
        stencil = digits.Stencils(bar, torch.tensor([degrees]))
        opacity = stencil.stamp(torch.tensor([24.0]), torch.tensor([[16.0, 16.0]]), (32, 32))[0]
        columns = torch.arange(32).float()
        tip, foot = opacity[5:8].sum(dim=0), opacity[24:27].sum(dim=0)
        tip_x, foot_x = (tip * columns).sum() / tip.sum(), (foot * columns).sum() / foot.sum()
        assert abs(tip_x - foot_x) > 4
        assert (tip_x > foot_x) == tips_are_right


def test_credits_name_both_authors_and_the_licence():
    for word in ("danielbuechele", "vultilion", "CC BY 2.0", "scikit-learn"):
        assert word in digits.CREDITS
