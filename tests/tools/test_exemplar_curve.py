"""`visrep exemplar_curve`: its points, its picture, and a whole curve on tiny nets."""

from pathlib import Path

import pytest
from PIL import Image

from tests.small_data import composed, write_folder
from visrep import results
from visrep.config import compose
from visrep.errors import ConfigError
from visrep.tools import exemplar_curve as curve

Point = curve.Point


def settings(*overrides: str):
    return compose("exemplar_curve", ["out=unused", *overrides])[0]


def test_points_are_two_lines_through_the_fixed_one() -> None:
    cfg = settings("classes=[50,8000,100]", "samples=[1,100]")
    assert curve.points_of(cfg) == [
        Point(50, 100), Point(100, 100), Point(8000, 1), Point(8000, 100),
    ]  # fmt: skip
    full = {point.classes for point in curve.points_of(settings())}
    assert min(full) == 50 and max(full) == 32000
    for bad in ("classes=[0]", "samples=[-1]", "steps=0"):
        with pytest.raises(ConfigError, match="above 0"):
            curve.points_of(settings(bad))


def test_the_picture_holds_the_values_it_is_given() -> None:
    values = {Point(50, 100): 40.0, Point(8000, 100): 60.0, Point(8000, 1): 30.0}
    figure = curve.draw(values, 25.0, fixed=Point(8000, 100), title="data")
    over_classes, over_samples = figure.axes
    assert over_classes.lines[0].get_xydata().tolist() == [[50, 40], [8000, 60]]
    assert over_samples.lines[0].get_xydata().tolist() == [[1, 30], [100, 60]]
    assert list(over_classes.lines[1].get_ydata()) == [25.0, 25.0]
    assert over_classes.get_xscale() == "log" and "100 samples" in over_classes.get_xlabel()
    figure.draw_without_rendering()
    assert [tick.get_text() for tick in over_classes.get_xticklabels(which="both")] == [
        "50", "8,000",
    ]  # fmt: skip


TINY = (
    *("classes=[4]", "samples=[2]", "fixed.classes=6", "fixed.samples=3", "steps=2", "threads=1"),
    "pretrain=['backbone=resnet18_small','backbone.width=0.0625','batch_size=8','views.size=16']",
    "svm=['costs=[1]','folds=2']",
)


def test_a_curve_and_its_continuation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    root, out = write_folder(tmp_path / "data", train=24, test=12), tmp_path / "curve"
    cfg = composed("exemplar_curve", root, f"out={out}", *TINY)
    curve.main(cfg)
    records = results.read(out / "results.jsonl")
    found = [(r.extra.get("classes"), r.extra.get("samples"), r.init) for r in records]
    assert found == [(4, 3, "pretrained"), (6, 2, "pretrained"), (None, None, "random")]
    assert {r.task for r in records} == {"exemplar_curve"} and {r.metric for r in records} == {
        "top1"
    }
    assert len({r.weights for r in records}) == 3
    with Image.open(out / "curve.png") as picture:
        assert picture.size[0] > 1000
    assert "untrained" in capsys.readouterr().out
    point = results.read(out / "classes00004-samples003" / "svm-pretrained" / "results.jsonl")[0]
    assert point.value == records[0].value and point.extra["output"] == "layers"

    def never(cfg: object) -> None:
        raise AssertionError("made again")

    (out / "classes00006-samples002" / "svm-pretrained" / "results.jsonl").unlink()
    monkeypatch.setattr(curve.train, "main", never)
    curve.main(cfg)  # only what is missing is made
    again = results.read(out / "results.jsonl")
    assert [r.value for r in again] == [r.value for r in records]
    cfg.steps = 3
    with pytest.raises(ConfigError, match="steps"):
        curve.main(cfg)
