"""Nearest neighbours of test images."""

import re

from tests.tools.report.sample_runs import html_of


def test_neighbours_of_the_same_class_are_marked(chain):
    html = html_of(chain)
    row = html[html.index('<div class="queries">') :]
    row = row[: row.index("</section>")]
    assert re.findall('<figure class="(.*?)"', row) == ["query", "same", "other"]
    assert "0.91" in row and "0.75" in row
