"""The papers' operations: what a drawn number means. Pixels are compared in test_batch."""

import numpy as np
import pytest
import torch

from visrep.data.views.operations import OURS, Blur, Jitter, Solarize
from visrep.errors import ConfigError


@pytest.mark.parametrize("name", OURS)
def test_of_no_sample_nothing_changes(name):
    operation = OURS[name](p=0.5)
    x = torch.rand(3, 3, 8, 8)
    before = x.clone()
    operation(x, np.full((3, 1 + operation.numbers), 0.9))
    assert torch.equal(x, before)


def test_factors_span_their_ranges():
    jitter = Jitter(p=1.0, strength=(0.4, 1.5, 0.8, 0.2))
    numbers = np.stack([np.zeros(8), np.ones(8)])
    low, high = jitter.factors(numbers)
    assert low == pytest.approx([0.6, 0.0, 0.2, -0.2])
    assert high == pytest.approx([1.4, 2.5, 1.8, 0.2])
    additive = Jitter(p=1.0, strength=(0.4, 1.5, 0.8, 0.2), additive=True)
    assert additive.factors(numbers)[:, 0] == pytest.approx([-0.4, 0.4])
    assert np.array_equal(additive.factors(numbers)[:, 1:], jitter.factors(numbers)[:, 1:])


def test_the_chosen_of_a_jitter_are_sorted_by_the_place_of_hue():
    jitter = Jitter(p=0.7, strength=(0.4, 0.4, 0.4, 0.1))
    uniforms = np.random.default_rng(0).random((200, 9))
    index = jitter.chosen(uniforms)
    assert sorted(index) == np.flatnonzero(uniforms[:, 0] < 0.7).tolist()
    place = np.argsort(jitter.order(uniforms[index, 1:]), axis=1)[:, 3]
    assert set(place) == {0, 1, 2, 3} and np.array_equal(place, np.sort(place))


def test_blur_ranges():
    assert Blur(sigma=(0.5, 1.5)).drawn_sigma(np.array([[0.0], [0.5]])).tolist() == [0.5, 1.0]
    assert Blur(kernel=5).width(224) == 5
    with pytest.raises(ConfigError, match="blur_kernel=65: give an odd width below 64"):
        Blur(kernel=65).check(32)


def test_a_message_names_the_key_of_the_yaml():
    for make, key in (
        (lambda: Jitter(strength=(1, 1, 1, 1)), "jitter"),
        (lambda: Blur(sigma=(2, 1)), "blur_sigma"),
        (lambda: Solarize(threshold=128), "solarize_threshold"),
    ):
        with pytest.raises(ConfigError, match=f"^views: {key}="):
            make()
