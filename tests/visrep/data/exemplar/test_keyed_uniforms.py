"""Numbers that are looked up: the published stream, independence of the company, evenness."""

import numpy as np

from visrep.data.exemplar.keyed_uniforms import keyed_uniforms


def test_the_published_stream() -> None:
    # SplitMix64 seeded with 1234567 begins with these words.
    words = [6457827717110365317, 3203168211198807973, 9817491932198370423]
    got = keyed_uniforms(np.array([0]), count=3, seed=1234567)[0]
    np.testing.assert_array_equal(got, [(word >> 11) * 2.0**-53 for word in words])


def test_a_row_does_not_depend_on_the_others() -> None:
    rows = np.array([5, 0, 2**35, 7])
    whole = keyed_uniforms(rows, count=4, seed=3)
    for i, row in enumerate(rows):
        np.testing.assert_array_equal(keyed_uniforms(np.array([row]), count=4, seed=3)[0], whole[i])
    assert not np.array_equal(keyed_uniforms(rows, count=4, seed=4), whole)


def test_even_and_unrelated() -> None:
    x = keyed_uniforms(np.arange(20000), count=4, seed=11)
    assert x.min() >= 0 and x.max() < 1
    counts = np.stack([np.histogram(column, bins=10, range=(0, 1))[0] for column in x.T])
    assert abs(counts - 2000).max() < 200  # 4.7 standard deviations
    assert abs(np.corrcoef(x.T) - np.eye(4)).max() < 0.03
    assert abs(np.corrcoef(x[:-1, 0], x[1:, 0])[0, 1]) < 0.03
