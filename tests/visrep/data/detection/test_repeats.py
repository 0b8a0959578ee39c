"""Images of rare classes more often: factors by hand and as Detectron2's, orders of epochs."""

import pytest
import torch

from visrep.data.detection import Box, ImageRecord
from visrep.data.detection.repeats import longest_epoch, repeat_factors, repeated_order
from visrep.seeds import epoch_order


def records(*classes):
    return [
        ImageRecord("x.jpg", str(i), 8, 8, [Box((0.0, 0.0, 4.0, 4.0), c) for c in held])
        for i, held in enumerate(classes)
    ]


MIXED = records([0, 0, 1], [0], [0, 2], [0], [1], [0], [0], [0])


def test_factors_by_hand():
    # Of eight images class 1 is in two and class 2 in one: sqrt(0.5 * 8 / 2) and sqrt(0.5 * 8).
    expected = [2**0.5, 1, 2, 1, 2**0.5, 1, 1, 1]
    assert repeat_factors(MIXED, 0.5).tolist() == pytest.approx(expected)
    assert repeat_factors(MIXED, 0.01).tolist() == [1] * 8


@pytest.mark.detectron2
@pytest.mark.parametrize("threshold", [0.001, 0.3, 0.7])
def test_factors_are_detectron2s(threshold):
    from detectron2.data.samplers import RepeatFactorTrainingSampler

    from visrep.d2.data import dataset_dict

    theirs = RepeatFactorTrainingSampler.repeat_factors_from_category_frequency(
        [dataset_dict(record) for record in MIXED], threshold
    )
    assert torch.equal(repeat_factors(MIXED, threshold), theirs)


def test_an_epoch_holds_each_image_as_often_as_its_factor_says():
    factors = torch.tensor([1.0, 2.25, 1.5, 3.0])
    assert longest_epoch(factors) == 9
    counts = torch.zeros(4)
    for epoch in range(400):
        order = repeated_order(factors, seed=3, epoch=epoch)
        held = torch.bincount(order, minlength=4)
        assert held[0] == 1 and held[1] in (2, 3) and held[2] in (1, 2) and held[3] == 3
        counts += held
    assert counts[1] / 400 == pytest.approx(2.25, abs=0.1)
    assert counts[2] / 400 == pytest.approx(1.5, abs=0.1)


def test_orders_are_functions_of_seed_and_epoch():
    factors = repeat_factors(MIXED, 0.5)
    first = repeated_order(factors, seed=1, epoch=0)
    assert torch.equal(first, repeated_order(factors, seed=1, epoch=0))
    for seed, epoch in ((1, 1), (2, 0)):
        assert not torch.equal(first, repeated_order(factors, seed=seed, epoch=epoch))
    plain = repeated_order(torch.ones(8), seed=1, epoch=0)
    assert torch.equal(plain, epoch_order(8, seed=1, epoch=0))
