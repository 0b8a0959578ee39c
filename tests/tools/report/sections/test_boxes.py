"""Boxes over test images."""

import re

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


def test_a_test_image_that_is_gone_is_named(chain, capsys):
    (chain / "image.png").unlink()
    html = html_of(chain)
    assert "image.png" in capsys.readouterr().out and 'class="boxes"' not in html
