"""The benchmark prints and records a ratio of what it measured; no speed is asserted."""

import pytest

from visrep.cli import main
from visrep.results import read

QUICK = ("threads=1", "batch_size=8", "steps=2", "warmup=1", "backbone.width=0.0625")


@pytest.mark.parametrize("what", ["step", "views"])
def test_benchmark(tmp_path, capsys, what):
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", what, *QUICK, f"out={tmp_path}"])
    assert caught.value.code == 0
    assert "ratio" in capsys.readouterr().out
    (record,) = read(tmp_path / "results.jsonl")
    assert record.extra["threads"] == 1
    if what == "step":
        assert record.extra["passes"] == 6  # two views, both trained on
        ratio = record.extra["bare_ms"] / record.extra["whole_ms"]
        assert record.value == pytest.approx(ratio)
    else:
        ratio = record.extra["views_per_s"] / record.extra["torchvision_views_per_s"]
        assert record.value == pytest.approx(ratio)


def test_an_unknown_benchmark_is_named(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        main(["benchmark", "stepp", f"out={tmp_path}"])
    assert caught.value.code == 2 and "what=stepp" in capsys.readouterr().err
