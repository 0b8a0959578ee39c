"""Published numbers beside ours."""

import re

import pytest

from tests.tools.report.sample_runs import Page, flat, html_of, record, write

PAPER = {"task": "linear", "dataset": "ImageNet", "metric": "top1", "value": 67.5, "runs": None}
PAPER |= {"weights": "MoCo v2, 200 epochs", "source": "arXiv 2003.04297, table 1"}


def task(value, metric, **changes):
    entry = {"metric": metric, "value": value, "weights": "MoCo v2", "source": "arXiv 1", "runs": 5}
    return entry | changes


def rows_of(html):
    """The lines of the section's tables: text of each cell."""
    section = html[html.index("<h2>Published") :].partition("</section>")[0]
    lines = re.findall("<tr>(.*?)</tr>", section)
    return [
        [
            " ".join(re.sub("<.*?>", " ", cell).split())
            for cell in re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line)
        ]
        for line in lines
    ]


def test_a_detection_stands_beside_what_its_task_publishes(tmp_path):
    published = [task(82.4, "AP50"), task(57.0, "AP"), task(60.2, "AP50", weights="random", runs=1)]
    config = {"task": "voc_c4", "about": "VOC, 11-point", "published": published, "weights": "x"}
    for init, seed, value in (("pretrained", 0, 41.0), ("pretrained", 1, 43.0), ("random", 0, 9.0)):
        again = {"task": "detection", "dataset": "voc/test", "init": init, "seed": seed}
        write(tmp_path, f"{init}{seed}", record(metric="AP50", value=value, config=config, **again))
    html = flat(html_of(tmp_path))
    Page(html)
    assert "<h3>voc_c4 · detection · voc/test <small>VOC, 11-point</small></h3>" in html
    assert rows_of(html) == [
        ["Weights, numbers in %", "AP50", "AP"],
        ["Pretrained measured here", "42.0 ± 1.4 (41.0–43.0, n=2)", "–"],
        ["Random init measured here", "9.0 (n=1)", "–"],
        ["MoCo v2 published arXiv 1; 5 runs", "82.4", "57.0"],
        ["Random published arXiv 1; 1 run", "60.2", "–"],
    ]


@pytest.mark.parametrize(("dataset", "ours"), [("imagenet/val", "66.1 (n=1)"), ("mine/val", None)])
def test_a_pretraining_stands_beside_what_its_paper_publishes(tmp_path, dataset, ours):
    config = {"name": "moco_v2", "backbone": {"depth": 50}, "published": [PAPER]}
    pre = record(task="pretrain", metric="loss", value=0.5, extra={"title": "MoCo v2"})
    write(tmp_path, "pretrain", pre, config=config)
    write(tmp_path, "linear", record(task="linear", dataset=dataset, value=66.1))
    # Of other weights, so it does not count.
    write(tmp_path, "other", record(task="linear", dataset=dataset, weights="b" * 64, config={}))
    html = flat(html_of(tmp_path))
    assert "MoCo v2 · linear probe · ImageNet" in html
    assert rows_of(html)[1:] == [
        ["MoCo v2 measured here", ours] if ours else ["Not measured here."],
        [
            "MoCo v2, 200 epochs published arXiv 2003.04297, table 1; number of runs not stated",
            "67.5",
        ],
    ]


def test_without_published_numbers_there_is_no_section(chain):
    assert "<h2>Published" not in html_of(chain)


@pytest.mark.parametrize("entry", [{"metric": "AP50"}, "AP50", task("much", "AP50")])
def test_damaged_published_numbers_are_left_out_and_named(tmp_path, capsys, entry):
    config = {"task": "mine", "published": [entry]}
    write(tmp_path, "detect", record(task="detection", metric="AP50", config=config))
    assert "<h2>Published" not in html_of(tmp_path)
    assert "published numbers of mine · detection · scenes/test cannot" in capsys.readouterr().out


def test_two_schedules_of_a_method_stand_apart(tmp_path):
    for name, value in (("short", 64.6), ("long", 69.3)):
        sha = name[0] * 64
        entry = PAPER | {"value": value, "weights": name, "runs": 3}
        config = {"backbone": {"depth": 50}, "published": [entry]}
        pre = record(task="pretrain", metric="loss", weights=sha, extra={"title": "SimCLR"})
        write(tmp_path, name, pre, config=config)
        linear = record(task="linear", dataset="imagenet/val", weights=sha, value=value - 1)
        write(tmp_path, f"linear-{name}", linear)
    assert rows_of(flat(html_of(tmp_path))) == [
        ["Weights, numbers in %", "top-1"],
        ["SimCLR measured here", "68.3 (n=1)"],
        ["Long published arXiv 2003.04297, table 1; 3 runs", "69.3"],
        ["Weights, numbers in %", "top-1"],
        ["SimCLR measured here", "63.6 (n=1)"],
        ["Short published arXiv 2003.04297, table 1; 3 runs", "64.6"],
    ]


def test_damaged_published_numbers_of_a_pretraining_are_named(tmp_path, capsys):
    pre = record(task="pretrain", metric="loss", extra={"title": "SimCLR"})
    write(tmp_path, "pretrain", pre, config={"backbone": {"depth": 50}, "published": ["67.5"]})
    assert "<h2>Published" not in html_of(tmp_path)
    assert "published numbers of SimCLR · None" in capsys.readouterr().out
