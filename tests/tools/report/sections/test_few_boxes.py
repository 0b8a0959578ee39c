"""The chart of AP over the share of labelled images."""

import re

from tests.tools.report.sample_runs import flat, html_of, record, write


def detected(
    root, name, value, *, init, share=1.0, seed=0, metric="AP", engine="torchvision", **own
):
    extra = {"form": "VOC 11-point"}
    if share != 1:
        extra |= {"labels": share, "share": share, "draw": seed, "label_images": 5}
    config = {"weights": "w.pth", "labels": share, "draw": seed, **own}
    about = {"task": "detection", "metric": metric, "config": config, "extra": extra}
    write(root, name, record(value=value, init=init, seed=seed, engine=engine, **about))


def test_ap_is_drawn_over_the_share(tmp_path):
    for seed in range(2):
        for init, gain in (("random", 0), ("pretrained", 10)):
            for share in (0.01, 0.1, 1.0):
                value = 20 + gain + 10 * share + seed
                detected(tmp_path, f"{init}{share}{seed}", value, init=init, share=share, seed=seed)
    html = flat(html_of(tmp_path)).partition("Few labels: detection")[2].partition("</section>")[0]
    curves = re.findall(r'<polyline class="curve (\w+)" points="([^"]*)"', html)
    assert [kind for kind, _ in curves] == ["random", "pretrained"]
    heights = [[float(at.split(",")[1]) for at in points.split()] for _, points in curves]
    assert all(len(line) == 3 and line[0] > line[1] > line[2] for line in heights)
    assert all(low > high for low, high in zip(*heights, strict=True))
    assert len(re.findall(r'<path class="curve', html)) == 6  # the deviations of two seeds
    assert ">labelled images, %<" in html
    assert [tick for tick in ("1", "10", "100") if f">{tick}</text>" in html] == ["1", "10", "100"]


def test_engines_are_apart_and_one_share_is_no_chart(tmp_path):
    for engine in ("torchvision", "detectron2"):
        detected(tmp_path, f"{engine}1", 40.0, init="random", engine=engine)
    assert "Few labels: detection" not in html_of(tmp_path)
    detected(tmp_path, "few", 20.0, init="random", share=0.1)
    html = flat(html_of(tmp_path)).partition("Few labels: detection")[2].partition("</section>")[0]
    assert html.count("<svg") == 1 and "torchvision" in html and "detectron2" not in html


def test_the_table_names_the_share(tmp_path):
    detected(tmp_path, "few", 20.0, init="random", share=0.1)
    detected(tmp_path, "all", 40.0, init="random")
    html = flat(html_of(tmp_path))
    assert "Detection, 10 % of labels" in html and "Detection <b>AP</b>" in html


def test_another_task_with_all_labels_takes_no_curve_away(tmp_path):
    for share in (0.1, 1.0):
        detected(tmp_path, f"c4 {share}", 20 + share, init="random", share=share, head="c4")
    detected(tmp_path, "dc5", 30.0, init="random", head="dc5")
    html = flat(html_of(tmp_path)).partition("Few labels: detection")[2].partition("</section>")[0]
    assert html.count("<svg") == 1 and "head=c4" in html and "head=dc5" not in html
