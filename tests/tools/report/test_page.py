"""The page: whole, safe, self-contained, every number with its origin."""

import json
import re

import pytest

from tests.tools.report.sample_runs import (
    Page,
    encoded,
    flat,
    html_of,
    predictions,
    record,
    write,
)
from visrep.tools.report import runs as report_runs


def test_page_is_whole_and_needs_nothing_from_elsewhere(chain):
    html = html_of(chain)
    page = Page(html)
    names = {tag for tag, _ in page.tags}
    assert not names & {"script", "link", "iframe", "object", "embed", "base"}
    for _, attributes in page.tags:
        for name in ("src", "href", "srcset", "data", "action"):
            assert (attributes.get(name) or "data:").startswith("data:")
        assert not [name for name in attributes if name.startswith("on")]
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style
    assert "prefers-color-scheme: dark" in style and "max-width: 640px" in style
    assert '<meta name="viewport" content="width=device-width, initial-scale=1">' in html
    titles = re.findall("<h2>(.*?)</h2>", html)
    assert titles == [
        "Random init against pretrained",
        "Teacher against student",
        "Training",
        "Augmented views",
        "Boxes on test images",
        "Nearest neighbours",
        "How each number was made",
    ]
    assert "missing" not in html.split("</style>")[1]


def test_the_numbers_on_the_page(chain):
    html = flat(html_of(chain))
    assert "<h1>SimCLR on scenes</h1>" in html
    assert "ResNet-18, width × 0.25, small stem" in html
    assert '31.0 ± 1.4 <span class="range">(30.0–32.0, n=2)</span>' in html
    assert '71.0 <span class="range">(n=1)</span>' in html
    assert '<b class="up">+40.0</b>' in html
    assert "raw pixels, no net: 46.0" in html
    assert "statistics reestimated (31.0; 27.0 initial)" in html
    assert '81.0 ± 1.0 <span class="range">(80.0–82.0, n=3)</span>' in html
    assert '<b class="up">+1.0</b><span class="range">ranges overlap</span>' in html
    assert "−0.5 points" in html
    assert "<td>0.70 M</td><td>0.17 M</td><td>25 %</td>" in html
    assert "<td>0.40 ms</td><td>0.40 ms</td><td>100 %</td>" in html
    assert "CC BY 2.0" in html


def test_every_record_is_shown_with_its_origin(chain):
    html = html_of(chain)
    made = html[html.index("How each number was made") :]
    for each in report_runs.collect(chain).records:
        assert f"<b>{each.value:.4g}</b>" in made
        assert each.weights == "none" or f"weights {each.weights[:12]}" in made
        assert f"seed {each.seed}" in made and f"engine {each.engine}" in made
    assert "(VOC 11-point)" in made and "<code>visrep knn</code>" in made
    assert "2026-11-24 10:00:00 UTC" in made


def test_names_from_users_are_escaped(tmp_path):
    root = tmp_path / "runs"
    given = set()

    def evil(name):
        given.add(name)
        return f"<script>{name}</script>\"onload='x"

    hurt = {"dataset": evil("dataset"), "command": evil("command"), "engine": evil("engine")}
    config = {"backbone": {"depth": evil("depth"), "stem": evil("stem")}}
    extra = {"title": evil("title"), "form": evil("form"), evil("key"): evil("value")}
    quoted = {
        "value": 1,
        "weights": evil("weights"),
        "source": evil("source"),
        "runs": evil("runs"),
    }
    task = {"task": evil("task"), "about": evil("about")}
    task |= {"published": [quoted | {"metric": evil("published")}]}
    folder = "<b>x"
    pretrain = record(task="pretrain", metric=evil("metric"), **hurt, extra=extra)
    write(root, folder, pretrain, config=config)
    for init in ("pretrained", "random"):
        detection = record(task="detection", init=init, **hurt, extra=extra, config=task)
        write(root, f"{folder}{init}", detection)
    write(root, "f", record(task="finetune", **hurt, extra={"labels": evil("labels")}))
    write(root, "d", record(task="distill", extra={"role": "student"}, **hurt))
    predictions(root / f"{folder}pretrained", tmp_path / "x.png")
    path = root / f"{folder}pretrained" / "predictions.json"
    content = json.loads(path.read_text())
    content |= {"dataset": evil("images"), "classes": [evil("cat"), evil("class")]}
    content["images"][0]["id"] = evil("id")
    path.write_text(json.dumps(content))
    near = {"image": encoded(), "label": evil("label"), "similarity": 0.5}
    content = {"queries": [near | {"neighbours": [near]}]}
    (root / f"{folder}pretrained" / "neighbours.json").write_text(json.dumps(content))
    (root / f"{folder}pretrained" / "env.txt").write_text(evil("environment"))
    html = html_of(root)
    assert "<script" not in html and "<b>x" not in html
    for name in given - {"cat"}:  # the cat's score is too low
        assert f"&lt;script&gt;{name}&lt;/script&gt;" in html, name
    for _, attributes in Page(html).tags:
        assert not [name for name in attributes if name.startswith("on")]


def test_what_is_missing_is_left_out_with_a_line(tmp_path):
    write(tmp_path / "runs", "knn", record())
    html = html_of(tmp_path / "runs")
    assert html.count('class="missing"') == 5
    assert "<h1>Results in runs</h1>" in html
    assert "70.0" in html and "CC BY" in html
    Page(html)
    other = write(tmp_path / "other", "knn", record(dataset="mine/test")).parent
    assert "CC BY" not in html_of(other)


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "{}",
        '{"dataset": "d", "classes": [], "images": [{}]}',
        '{"queries": [{"label": "1", "image": "!", "neighbours": []}]}',
        '{"queries": [{"label": "1", "image": "aGk=", "neighbours": []}]}',
        '{"queries": 3}',
    ],
)
def test_damaged_pictures_are_left_out_and_named(chain, content, capsys):
    for name in ("detect-pretrained-0/predictions.json", "knn/neighbours.json"):
        (chain / name).write_text(content)
    (chain / "pretrain" / "views.png").write_text("no image")
    html = html_of(chain)
    Page(html)
    assert "Left out: " in html and "knn/neighbours.json was left out" in html
    said = capsys.readouterr().out
    assert "knn/neighbours.json was left out" in said
    assert "detect-pretrained-0/predictions.json was left out" in said
    assert "views.png" in said and "+40.0" in html
