"""Where a loss lies between collapsed and apart."""

import pytest

from visrep.engine.levels import Levels


def test_a_cross_entropy_comes_down_from_its_collapsed_level() -> None:
    levels = Levels(loss_collapsed=8.0, knob="")
    assert not levels.minimal
    assert [levels.nearness(x) for x in (9.0, 8.0, 2.0, 0.0)] == pytest.approx([1.125, 1, 0.25, 0])


def test_a_collapse_may_minimise_the_loss() -> None:
    byol = Levels(loss_collapsed=0.0, loss_apart=4.0, knob="")
    assert byol.minimal
    assert [byol.nearness(x) for x in (8.0, 4.0, 1.0, 0.0)] == pytest.approx([-1, 0, 0.75, 1])
    simsiam = Levels(loss_collapsed=-1.0, loss_apart=0.0, knob="")
    assert simsiam.minimal and simsiam.nearness(-0.9) == pytest.approx(0.9)
