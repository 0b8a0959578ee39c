"""Errors of detectors: numbers, links and pictures; what is damaged is left out and named."""

import json
import re

import pytest

from tests.tools.report import sample_runs
from tests.tools.report.sample_runs import flat, html_of
from visrep.tools.report.sections.errors import around


@pytest.fixture
def errors(chain):
    """The chain, whose detectors have the errors of their predictions."""
    sample_runs.errors(chain)
    return chain


def test_errors_of_a_run(errors):
    html = flat(html_of(errors))
    assert html.count("1 of 2 objects found, 2 errors.") == 4  # two nets, two seeds
    assert "no object there</th><td>1</td>" in html
    assert '<th scope="row">dog</th><td>1</td><td>70.0</td>' in html
    # The worst as pictures, of the first pretrained and the first random run.
    assert html.count('aria-label="background in one"') == 2
    assert html.count('aria-label="missed in one"') == 2
    assert "<b>cat 98 %</b>" in html
    found = re.search('aria-label="background in one">(.*?)</svg>', html)[1]
    assert 'class="found" x="60.0" y="5.0" width="10.0" height="10.0"' in found
    links = set(re.findall('<a href="(.*?)"', html))
    assert links == {(errors / "image.png").as_uri()}


def test_fewer_pictures_are_shown_on_demand(errors):
    (path, *_) = errors.glob("detect-pretrained-0/errors.json")
    made = json.loads(path.read_text())
    made["worst"]["background"] *= 5
    path.write_text(json.dumps(made))
    assert html_of(errors).count('aria-label="background in one"') == 6
    assert html_of(errors, images=2).count('aria-label="background in one"') == 3


@pytest.mark.parametrize(
    "change", [{"kinds": {}}, {"worst": {"background": [{}]}}, {"curves": 3}, {"per_class": [1]}]
)
def test_a_damaged_file_is_left_out_and_named(errors, capsys, change):
    path = errors / "detect-random-0/errors.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    html = html_of(errors)
    assert "detect-random-0/errors.json was left out: " in capsys.readouterr().out
    assert html.count('aria-label="background in one"') == 2  # the other seed's


def test_an_image_that_is_gone_is_named(errors, capsys):
    (errors / "image.png").unlink()
    assert "Errors of the detectors" not in html_of(errors).replace("class", "")
    assert "image.png" in capsys.readouterr().out


def test_runs_without_the_file_are_shown_as_before(chain):
    assert "Errors of the detectors" not in html_of(chain)


@pytest.mark.parametrize(
    ("boxes", "region"),
    [
        ([(40, 40, 60, 60)], (33, 33, 68, 68)),  # 20 px, and 0.35 of it on every side
        ([(0, 0, 4, 4)], (0, 0, 25, 25)),
        ([(96, 76, 100, 80)], (76, 56, 100, 80)),
        ([(40, 40, 50, 50), (50, 50, 60, 60)], (33, 33, 68, 68)),
        ([(0, 0, 100, 80)], (0, 0, 100, 80)),
    ],
)
def test_a_picture_shows_all_boxes_and_what_is_around(boxes, region):
    assert around(boxes, height=80, width=100) == region
