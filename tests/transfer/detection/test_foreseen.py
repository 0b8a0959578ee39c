"""The forecast of a detector: its largest batch, and a training that is the same with it."""

import json
import logging

import pytest
import torch

from tests.transfer.detection.shapes import shapes, small_recipe
from tests.transfer.detection.test_engine_d2 import PREPROCESS, encoder
from visrep.data.images import BrokenImage
from visrep.engine import forecast
from visrep.engine.run import Run
from visrep.errors import UserError
from visrep.transfer.detection import engine_d2, engine_tv, foreseen

BOTH = [
    (engine_tv, "torchvision"),
    pytest.param(engine_d2, "detectron2", marks=pytest.mark.detectron2),
]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("shapes"), images=10, seed=0)


def train(module, out, data, *, asked, **settings):
    out.mkdir()
    config = {"forecast": asked}
    run = Run(out=out, device=torch.device("cpu"), seed=0, config=config, command="")
    detector = module.train(
        encoder=encoder(),
        preprocess=PREPROCESS,
        dataset=data,
        recipe=small_recipe(iterations=3, rpn_batch=8, roi_batch=4, **settings),
        run=run,
        workers=0,
        precision="fp32",
        snapshot_every=0,
        log_every=1,
    )
    losses = [json.loads(line)["loss"] for line in (out / "metrics.jsonl").open()]
    return losses, {name: value.clone() for name, value in detector.state().items()}


@pytest.mark.parametrize(("module", "name"), BOTH)
def test_a_foreseen_training_is_the_training(module, name, data, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(forecast, "LEAST", 3)
    plain = train(module, tmp_path / "plain", data, asked=False)
    logging.getLogger("visrep").propagate = True
    with caplog.at_level(logging.INFO, logger="visrep"):
        told = train(module, tmp_path / "told", data, asked=True)
    assert plain[0] == told[0]
    assert all(torch.equal(plain[1][key], value) for key, value in told[1].items())
    assert caplog.text.count("min for 3 steps") == 1
    monkeypatch.setattr(forecast, "available", lambda device: 100_000)
    with pytest.raises(UserError, match="accumulate=2 takes it in parts"):
        train(module, tmp_path / "small", data, asked=True)
    assert not (tmp_path / "small/metrics.jsonl").exists()
    single = {"batch_size": 4, "accumulate": 4}
    with pytest.raises(UserError, match="lower train_sizes= or max_size="):
        train(module, tmp_path / "single", data, asked=True, **single)


def test_the_largest_images_of_one_orientation_are_taken(data):
    recipe = small_recipe(train_sizes=[32, 48])
    broken = data.records[0].id

    def read(record):
        if record.id == broken:
            raise BrokenImage(record.file, "spoilt")
        return record

    found = foreseen.largest(data.records, recipe, count=3, read=read)
    upright = {record.width >= record.height for record in found}
    assert len(found) == 3 and len(upright) == 1 and broken not in {r.id for r in found}
    assert len(foreseen.largest(data.records[:2], recipe, count=3, read=lambda r: r)) == 3


def test_short_runs_are_not_foreseen(tmp_path):
    run = Run(tmp_path, torch.device("cpu"), 0, {"forecast": True}, "")
    assert not foreseen.wanted(run, small_recipe(iterations=49))
    assert foreseen.wanted(run, small_recipe(iterations=50))
    run.config["forecast"] = False
    assert not foreseen.wanted(run, small_recipe(iterations=50))
