"""The command: what it writes, replaces and refuses."""

import pytest

from tests.tools.report.sample_runs import html_of, record, write
from visrep.errors import ConfigError, UserError


def test_an_older_report_is_replaced_and_another_page_is_not(chain):
    first = html_of(chain)
    write(chain, "linear", record(task="linear", value=12.3))
    assert "12.3" in html_of(chain) and "12.3" not in first
    mine = chain / "mine.html"
    mine.write_text("<html>my page</html>")
    with pytest.raises(UserError, match="mine.html"):
        html_of(chain, out=mine)
    assert mine.read_text() == "<html>my page</html>"
    with pytest.raises(ConfigError, match=r"\.html"):
        html_of(chain, out=chain / "report.pdf")
    with pytest.raises(ConfigError, match="min_score"):
        html_of(chain, min_score=50)


def test_a_failed_write_leaves_the_old_report(chain, monkeypatch):
    before = html_of(chain)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    write(chain, "linear", record(task="linear", value=12.3))
    with pytest.raises(UserError, match="No space left"):
        html_of(chain)
    assert (chain / "report.html").read_text(encoding="utf-8") == before
    assert not list(chain.glob(".report*"))
