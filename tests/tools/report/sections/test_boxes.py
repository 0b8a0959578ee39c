"""Boxes over test images."""

import json
import re

import pytest

from tests.tools.report.sample_runs import flat, html_of


def test_boxes_are_where_they_were_predicted(chain):
    html = flat(html_of(chain))
    assert html.count('class="boxes"') == 2  # one image, two detectors
    found = re.findall(
        r'<rect class="found" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', html
    )
    assert found == [("11.0", "21.0", "20.0", "31.0")] * 2
    truth = re.findall(
        r'<rect class="truth" x="(.*?)" y="(.*?)" width="(.*?)" height="(.*?)"', html
    )
    assert truth == [("10.0", "20.0", "20.0", "30.0")] * 2
    assert 'viewBox="0 0 100 80"' in html and ">dog 97%</text>" in html and "cat 20%" not in html
    assert "cat 20%" in html_of(chain, min_score=0.1)


@pytest.mark.parametrize(
    "change",
    [
        {"boxes": [["a", 1, 2, 3], [1, 2, 3, 4]]},
        {"boxes": [[1, 2, 3], [1, 2, 3, 4]]},
        {"scores": [0.9]},
        {"labels": [7, 7]},
        {"labels": ["dog", "cat"]},
        {"width": "wide"},
        {"truth": {"labels": [1]}},
    ],
)
def test_a_damaged_prediction_is_left_out_and_named(chain, capsys, change):
    for path in chain.glob("detect-random-*/predictions.json"):
        content = json.loads(path.read_text())
        content["images"][0] |= change
        path.write_text(json.dumps(content))
    assert html_of(chain).count('class="boxes"') == 1
    assert capsys.readouterr().out.count("/predictions.json was left out: ") == 2


def test_without_true_boxes_none_are_explained(chain):
    for path in chain.glob("detect-*/predictions.json"):
        path.write_text(path.read_text().replace('"truth": {', '"truth": null, "x": {'))
    html = flat(html_of(chain))
    assert "ground truth" not in html and html.count('<rect class="found"') == 2


def test_a_test_image_that_is_gone_is_named(chain, capsys):
    (chain / "image.png").unlink()
    html = html_of(chain)
    assert "image.png" in capsys.readouterr().out and 'class="boxes"' not in html
