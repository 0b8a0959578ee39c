"""Readings: what of them survives a resume, and what becomes of a file that was cut."""

import json
from pathlib import Path

import pytest
import torch

from tests.processes import run_on_two
from visrep import dist
from visrep.engine import writers
from visrep.engine.writers import JsonLines, Meter, TensorBoard
from visrep.errors import UserError


def meter_with(*values: float) -> Meter:
    meter = Meter(start=0, total=10)
    for value in values:
        meter.add({"loss": torch.tensor(value)})
    return meter


def test_a_meter_goes_on_with_its_sums() -> None:
    whole = meter_with(0.1, 0.2, 0.7)
    begun, resumed = meter_with(0.1, 0.2), Meter(start=2, total=10)
    resumed.load(begun.state())
    resumed.add({"loss": torch.tensor(0.7)})
    assert resumed.read(3)["loss"] == whole.read(3)["loss"]


def resumed_on_two() -> tuple[float, float]:
    mine = [0.1 + dist.rank(), 0.3, 0.7]
    whole, begun, resumed = meter_with(*mine), meter_with(*mine[:2]), meter_with()
    state = begun.state()
    assert state["sums"].shape == (2, 1)
    resumed.load(state)
    resumed.add({"loss": torch.tensor(mine[2])})
    return whole.read(3)["loss"], resumed.read(3)["loss"]


def test_each_process_gets_its_own_sums_back() -> None:
    for whole, resumed in run_on_two(resumed_on_two):
        assert whole == resumed


def test_a_meter_of_two_processes_goes_on_on_one() -> None:
    meter = Meter(start=0, total=9)
    meter.load({"names": ["loss"], "sums": torch.tensor([[1.0], [3.0]]), "count": 2})
    assert meter.read(2)["loss"] == 1.0


def test_rewinding_keeps_what_is_before_and_says_what_is_no_reading(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(writers.log, "propagate", True)
    path = tmp_path / "metrics.jsonl"
    good = [
        '{"step": 1, "loss": 3.0}',
        '{"step": 2, "images_per_s": 2.0}',
        '{"step": 2, "knn": 9.0}',
    ]
    odd = ["[1]", '{"loss": 1}', '{"step": "x"}', "7", '{"step": 3, "lo']
    path.write_text("\n".join([good[0], *odd[:4], *good[1:], '{"step": 3, "loss": 1}', odd[4]]))
    assert JsonLines(path).rewind(2) == {"step": 2, "images_per_s": 2.0}
    assert path.read_text().splitlines() == good
    assert "dropped 5 lines" in caplog.text
    assert JsonLines(path).rewind(-1) == {} and path.read_text() == ""


def test_a_line_that_was_cut_is_not_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    JsonLines(path).write(3, {"loss": 1.0})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 3]


def test_a_folder_that_is_gone_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"cannot write .*metrics\.jsonl: No such file"):
        JsonLines(tmp_path / "gone" / "metrics.jsonl").write(1, {"loss": 1.0})


def test_tensorboard_that_cannot_write_is_left_out_with_a_line(
    tmp_path: Path, monkeypatch, caplog
) -> None:
    monkeypatch.setattr(writers.log, "propagate", True)

    class Full:
        asked = 0

        def add_scalar(self, *_: object) -> None:
            self.asked += 1
            raise OSError(28, "No space left on device")

        def close(self) -> None:
            raise AssertionError("not asked any more")

    board = TensorBoard(tmp_path)
    board.writer = full = Full()
    board.write(1, {"loss": 1.0})
    board.write(2, {"loss": 1.0})
    board.close()
    assert full.asked == 1 and "going on without them" in caplog.text


def test_a_folder_in_place_of_the_readings_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "metrics.jsonl").mkdir()
    with pytest.raises(UserError, match="metrics.jsonl: Is a directory"):
        JsonLines(tmp_path / "metrics.jsonl").rewind(2)
