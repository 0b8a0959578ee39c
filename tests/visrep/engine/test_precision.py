"""Number formats, and the scale that float16 needs."""

import pytest
import torch

from tests.visrep.engine.test_trainer import Stream, assert_same, make
from visrep.engine import trainer
from visrep.engine.precision import autocast_dtype, scaler
from visrep.errors import ConfigError, Diverged

CPU, GPU = torch.device("cpu"), torch.device("cuda")


def test_float16_is_for_a_gpu_and_is_scaled():
    assert autocast_dtype("fp16", GPU) == torch.float16
    assert autocast_dtype("bf16", CPU) == torch.bfloat16 and autocast_dtype("fp32", GPU) is None
    with pytest.raises(ConfigError, match="precision=fp16 is for a GPU: use bf16 or fp32"):
        autocast_dtype("fp16", CPU)
    with pytest.raises(ConfigError, match="choose auto, fp32, bf16 or fp16"):
        autocast_dtype("fp64", CPU)
    assert scaler(torch.float16, CPU).is_enabled()
    assert not scaler(torch.bfloat16, CPU).is_enabled() and not scaler(None, CPU).is_enabled()


@pytest.fixture
def half(monkeypatch):
    """The loop as on a GPU, in float16."""
    monkeypatch.setattr(trainer, "autocast_dtype", lambda *_: torch.float16)


def test_scaled_gradients_lead_where_others_lead(half, monkeypatch):
    scaled = make(total=8)
    scaled.scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)  # no step is out of range
    scaled.fit()
    assert float(scaled.scaler.get_scale()) == 1024
    monkeypatch.undo()
    plain = make(total=8)
    plain.fit()
    there, here = (t.task.net[0].weight for t in (plain, scaled))
    assert torch.allclose(there, here, rtol=0.02, atol=0.002) and not torch.equal(there, here)


class Huge(Stream):
    """Its first batch has a gradient that float16 cannot hold once it is scaled."""

    def iterate(self, start_step):
        for step, batch in enumerate(super().iterate(start_step), start_step):
            yield batch | {"y": batch["y"] * (100 if step == 0 else 1)}


def test_a_step_out_of_range_is_left_out_and_the_scale_goes_with_a_snapshot(half, tmp_path):
    first = make(tmp_path, total=1, batches=Huge(), snapshot_every=1)
    before = first.task.net[0].weight.detach().clone()
    first.fit()
    assert torch.equal(first.task.net[0].weight, before)
    assert float(first.scaler.get_scale()) == 2.0**15
    again = make(tmp_path, total=1, batches=Huge())
    again.fit()
    assert_same(again.state(), first.state())
    assert float(again.scaler.get_scale()) == 2.0**15


def test_a_loss_that_is_not_finite_still_ends_the_run(half, tmp_path):
    class Bad(Stream):
        def iterate(self, start_step):
            for batch in super().iterate(start_step):
                yield batch | {"y": batch["y"] * float("nan")}

    with pytest.raises(Diverged, match="the loss is not finite at step 1"):
        make(tmp_path, total=5, batches=Bad()).fit()
