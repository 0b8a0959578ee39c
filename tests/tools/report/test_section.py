"""The contract of a section, and a stranger's."""

import subprocess
import sys
from types import ModuleType

import pytest

from tests.tools.report.sample_runs import Page, html_of
from visrep import plugins
from visrep.errors import ConfigError
from visrep.tools.report import section

SECTION = '''
"""Which seeds were used."""

TITLE = "Seeds & <such>"
ORDER = 15


def render(context):
    seeds = sorted({record.seed for record in context.runs.records})
    return context.fill("seeds.html", seeds=seeds, word="<i>")
'''
TEMPLATE = '<p class="seeds">{{ seeds | join(", ") }} {{ word }} {{ 0.1 | share }}</p>\n'


@pytest.fixture
def stranger(monkeypatch):
    """Makes a module of a stranger's that `plugins=` has named."""
    monkeypatch.setattr(plugins, "_loaded", {})

    def make(**members: object) -> None:
        module = ModuleType("theirs")
        vars(module).update({"TITLE": "Theirs", "ORDER": 15, "__file__": "/theirs.py"} | members)
        plugins._loaded["theirs"] = module

    return make


def test_ours_are_the_files_of_the_folder_in_their_order():
    folder = section.TEMPLATES.parent / "sections"
    ours = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    names = [module.__name__.rpartition(".")[2] for module in section.found()]
    assert set(names) == ours and names[:2] == ["headline", "gains"] and names[-1] == "origins"


def test_a_section_of_one_file_and_its_template_is_added_from_outside(chain, tmp_path):
    (tmp_path / "my_section.py").write_text(SECTION)
    (tmp_path / "seeds.html").write_text(TEMPLATE)
    command = ("report", "plugins=my_section", f"runs={chain}")
    done = subprocess.run(
        (sys.executable, "-m", "visrep", *command), cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    html = (chain / "report.html").read_text(encoding="utf-8")
    Page(html)
    assert '<h2>Seeds &amp; &lt;such&gt;</h2><p class="seeds">0, 1 &lt;i&gt; 10 %</p>' in html
    theirs, before, after = map(html.index, ("Seeds &amp;", "Random init against", "Teacher"))
    assert before < theirs < after


@pytest.mark.parametrize(
    ("members", "named"),
    [
        ({"TITLE": None}, "theirs: TITLE must be a str"),
        ({"ORDER": "first"}, "theirs: ORDER must be a number"),
        ({"render": "<p>"}, "theirs: render must be a function"),
        ({"render": lambda context: "<p>"}, "theirs: render returns str; it must be what"),
        ({"render": lambda context: context.fill("no.html")}, "/ holds no template no.html"),
    ],
)
def test_what_breaks_the_contract_is_named_in_one_line(chain, stranger, members, named):
    stranger(**{"render": lambda context: None} | members)
    with pytest.raises(ConfigError) as caught:
        html_of(chain)
    assert named in str(caught.value)
    assert not (chain / "report.html").exists()


def test_a_section_may_leave_itself_out(chain, stranger):
    before = html_of(chain)
    stranger(render=lambda context: None)
    assert html_of(chain) == before
