"""The cards of key results."""

import re

from tests.tools.report.sample_runs import flat, html_of, record, write


def cards_of(html):
    cards = re.findall('<article class="card">(.*?)</article>', flat(html))
    return [" ".join(re.sub("<.*?>", " ", card).split()) for card in cards]


def test_a_card_holds_the_gain_and_what_it_comes_from(chain):
    assert cards_of(html_of(chain)) == [
        "kNN top-1 +40.0 points over random init raw pixels 46.0 random init 31.0 pretrained 71.0",
        "10 % of labels top-1 +30.0 points over random init random init 51.0 pretrained 81.0",
        "Detection AP50 +1.0 points over random init random init 60.5 pretrained 61.5",
        "Student top-1 −0.5 points from its teacher teacher 83.0 student 82.5 "
        "0.70 M → 0.17 M parameters 2.80 MB → 0.70 MB 0.40 → 0.40 ms per image",
    ]


def test_without_a_random_side_a_card_holds_the_value(tmp_path):
    write(tmp_path, "knn", record())
    assert cards_of(html_of(tmp_path)) == ["kNN top-1 70.0 % pretrained 70.0"]


def test_latency_is_that_of_an_engine_which_ran_both(chain):
    for sha, engine, value in (("t", "torch", 9.0), ("s", "torch", 3.0), ("t", "alone", 1.0)):
        own = {"weights": sha * 64, "engine": engine, "time": "2026-11-23T10:00:00+00:00"}
        write(chain, "export", record(task="export", metric="latency_ms", value=value, **own))
    assert cards_of(html_of(chain))[-1].endswith(" 9.00 → 3.00 ms per image")


def test_a_card_names_its_net_where_there_are_several(tmp_path):
    for name, sha, value in (("a", "a", 70.0), ("b", "b", 80.0)):
        write(
            tmp_path, name, record(value=value, weights=sha * 64, config={"weights": f"{name}.pth"})
        )
    assert cards_of(html_of(tmp_path)) == ["kNN top-1 a.pth 70.0 % pretrained 70.0"]


def test_keypoints_and_pixels_have_their_own_metrics(tmp_path):
    for task, metrics in (("keypoints", ("AP50", "keypoint_AP50")), ("semantic", ("pACC", "mIoU"))):
        for value, metric in enumerate(metrics, start=40):
            write(tmp_path, task, record(task=task, metric=metric, value=value, dataset="mine"))
    assert cards_of(html_of(tmp_path)) == [
        "Keypoints keypoint AP50 41.0 % pretrained 41.0",
        "Classes of pixels mIoU 41.0 % pretrained 41.0",
    ]
