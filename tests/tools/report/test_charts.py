"""Where a chart's points, ticks and levels are."""

import pytest

from visrep.tools.report import charts


def laid_out(points, **levels):
    series = [charts.Series(name="a", points=points)]
    return charts.chart(series, title="t", y_label="%", levels=levels)


def test_chart_puts_points_where_the_axes_say():
    chart = laid_out([(0.0, 10.0), (50.0, 20.0), (100.0, 40.0)], level=20.0)
    ((kind, [(x0, y0), (x1, y1), (x2, y2)]),) = chart.curves
    assert kind == "pretrained" and (x0, x2) == (charts.LEFT, charts.RIGHT)
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert 2 * (y0 - y1) == pytest.approx(y1 - y2) and y1 < y0  # up is more
    assert charts.TOP < y2 < y0 < charts.BOTTOM
    assert chart.levels == [(y1, y1 - 5, "level", 20.0)]
    at = {value: y for y, value in chart.rows}
    assert at[20.0] == pytest.approx(y1) and at[40.0] == pytest.approx(y2)
    assert {value: x for x, value in chart.columns}[50.0] == pytest.approx(x1)


def test_labels_of_near_levels_stand_on_either_side_of_them():
    chart = laid_out([(0.0, 0.0), (1.0, 100.0)], low=50.0, high=51.0)
    (high, above, *_), (low, below, *_) = chart.levels
    assert high < low and above < high and below > low


def test_shares_stand_by_their_logarithms_with_their_deviations():
    points = [(1.0, 10.0), (10.0, 20.0), (100.0, 40.0)]
    series = [charts.Series(name="a", points=points, kind="random", deviations=[0.0, 2.0, 1.0])]
    chart = charts.chart(
        series, title="t", y_label="AP", x_label="share", levels={}, logarithmic=True
    )
    ((_, [(x0, _), (x1, y1), (x2, y2)]),) = chart.curves
    assert (x0, x2) == (charts.LEFT, charts.RIGHT) and x1 - x0 == pytest.approx(x2 - x1)
    assert [value for _, value in chart.columns] == [1.0, 10.0, 100.0]
    (_, at, high, low), (_, _, top, _) = chart.whiskers  # none where the deviation is 0
    assert (at, high + low) == (x1, pytest.approx(2 * y1)) and high < y1 < low
    assert charts.TOP < top < y2  # a bar stays inside
    assert (high - low) / (y2 - y1) == pytest.approx(4 / 20)


def test_long_curves_are_thinned_and_keep_their_end():
    chart = laid_out([(float(step), step % 7 + 1.0) for step in range(5000)])
    ((_, shown),) = chart.curves
    assert 200 < len(shown) <= charts.MOST_POINTS + 1
    assert (shown[0][0], shown[-1][0]) == (charts.LEFT, charts.RIGHT)


@pytest.mark.parametrize(
    ("low", "high"), [(0.0, 1.0), (1.83, 4.7), (0, 2800), (-3.0, -1.0), (1e-6, 3e-6), (5.0, 5.0)]
)
def test_ticks_are_inside_and_few(low, high):
    found = charts.ticks(low, high)
    assert 1 <= len(found) <= 6
    assert all(low - 1e-9 <= tick <= high + 1e-9 for tick in found)


def test_a_histogram_has_powers_of_ten_and_one_is_seen():
    counts = {("right", "a"): [0, 1], ("wrong", "b"): [100, 10]}
    chart = charts.histogram([0.0, 0.5, 1.0], counts, title="t")
    assert [(kind, round(x)) for kind, x, *_ in chart.bars] == [
        ("a", round((charts.LEFT + charts.RIGHT) / 2)),
        ("b", round(charts.LEFT + chart.bars[1][3])),
        ("b", round((charts.LEFT + charts.RIGHT) / 2 + chart.bars[2][3])),
    ]
    one, hundred, ten = (height for *_, height in chart.bars)
    assert 0 < one < ten < hundred < charts.BOTTOM - charts.TOP
    assert ten - one == pytest.approx(hundred - ten)
    assert [value for _, value in chart.rows] == [1, 10, 100]
    assert {value: x for x, value in chart.columns}[1.0] == charts.RIGHT
    assert all(top + height == pytest.approx(charts.BOTTOM) for *_, top, _, height in chart.bars)
    assert charts.histogram([0, 1], {("right", "a"): [0]}, title="t").bars == []
