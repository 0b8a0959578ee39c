"""The table of finetuned nets: a line for each net, a column for each labels and selector."""

import re

from tests.tools.report.sample_runs import flat, html_of, record, write
from visrep.tools.report import pairs, runs


def finetuned(root, name, value, *, weights, labels, selector, seed=0, rate=0.1):
    config = {"selector": selector, "labels": labels, "weights": "w.pth", "optim": {"lr": rate}}
    extra = {"labels": labels, "selector": selector, "finetuned": f"{name:0<64}"}
    about = {"task": "finetune", "config": config, "extra": extra, "seed": seed}
    write(root, name, record(value=value, weights=64 * weights, **about))


def lines_of(html):
    section = html.partition("Few labels: nets by labels and selector")[2].partition("</table>")[0]
    rows = re.findall(r"<tr>(.*?)</tr>", section)
    text = [re.findall(r"<t[hd][^>]*>(.*?)</t[hd]>", row) for row in rows]
    return [[re.sub(r"<[^>]*>", "", cell) for cell in row] for row in text]


def test_nets_by_labels_and_selector(tmp_path):
    for seed, value in enumerate((50.0, 52.0)):
        about = {"weights": "a", "labels": 0.01, "seed": seed}
        finetuned(tmp_path, f"1a{seed}", value, selector=1, **about)
        finetuned(tmp_path, f"0a{seed}", value - 10, selector=0, **about)
    finetuned(tmp_path, "ten", 70.0, weights="a", labels=0.1, selector=1)
    finetuned(tmp_path, "b", 30.0, weights="b", labels=0.01, selector=1)
    finetuned(tmp_path, "fast", 20.0, weights="b", labels=0.01, selector=1, rate=0.2)
    html = flat(html_of(tmp_path))
    heads = re.findall(r'<th scope="col">(.*?)</th>', html)
    assert heads[heads.index("1 %, selector 0") :][:3] == [
        *("1 %, selector 0", "1 %, selector 1", "10 %, selector 1")
    ]
    cells = {tuple(line[1:]) for line in lines_of(html)[1:]}
    assert cells == {
        ("41.0 ± 1.4 (40.0–42.0, n=2)", "51.0 ± 1.4 (50.0–52.0, n=2)", "70.0 (n=1)"),
        ("–", "30.0 (n=1)", "–"),
        ("–", "20.0 (n=1)", "–"),
    }
    assert sum("optim.lr=0.2" in line[0] for line in lines_of(html)) == 1


def test_one_column_is_no_table(tmp_path):
    finetuned(tmp_path, "a", 50.0, weights="a", labels=0.1, selector=1)
    assert "Few labels" not in html_of(tmp_path)


def test_published_shares_of_labels_are_not_averaged(tmp_path):
    """The 1 % and the 10 % of one net stand in lines of their own."""
    published = [
        {"task": "finetune", "dataset": "scenes", "metric": "top1", "value": 57.9, "runs": None,
         "weights": "R50", "source": "a README"}
    ]  # fmt: skip
    pre = record(task="pretrain", metric="loss", weights="a" * 64, extra={"title": "SimCLR v2"})
    config = {"name": "v2", "backbone": {"depth": 50}, "published": published}
    write(tmp_path, "pre", pre, config=config)
    finetuned(tmp_path, "one", 50.0, weights="a", labels=0.01, selector=1)
    finetuned(tmp_path, "ten", 70.0, weights="a", labels=0.1, selector=1)
    html = flat(html_of(tmp_path)).partition("Published beside measured")[2]
    html = html.partition("</table>")[0]
    assert "SimCLR v2, 1 % of labels" in html and "SimCLR v2, 10 % of labels" in html
    assert "60.0" not in html


def test_students_of_two_teachers_are_two_pairs(tmp_path):
    for name, weights, value in (("x", "a", 80.0), ("y", "b", 60.0)):
        finetuned(tmp_path, name, value, weights=weights, labels=0.1, selector=1)
        for role, top1 in (("teacher", value), ("student", value - 1)):
            extra = {"role": role, "teacher": f"{name:0<64}"}
            write(tmp_path, f"d{name}", record(task="distill", value=top1, extra=extra, config={}))
    found = pairs.pairs(runs.collect(tmp_path))
    assert [(pair.teacher.top1.mean, pair.student.top1.mean) for pair in found] == [
        (80.0, 79.0),
        (60.0, 59.0),
    ]
    assert len({pair.setting for pair in found}) == 2
