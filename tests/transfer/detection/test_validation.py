"""Measuring on the way: it changes nothing, keeps the best by the validation part, and resumes."""

import json
import shutil

import pytest
import torch

from tests.transfer.detection.shapes import shapes, small_recipe
from tests.transfer.detection.test_engine_d2 import PREPROCESS, encoder
from visrep.config import compose
from visrep.engine.run import Run
from visrep.errors import ConfigError, UserError
from visrep.transfer.detection import detect, detector_file, engine_d2, engine_tv, parts
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.validation import Validation

BOTH = ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]
SETTINGS = {"iterations": 5, "precise_bn": 2, "rpn_batch": 8, "roi_batch": 4}


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("train"), images=10, seed=0)


@pytest.fixture(scope="module")
def val(tmp_path_factory):
    return shapes(tmp_path_factory.mktemp("val"), images=4, seed=2, name="shapes/val")


def train(engine, out, data, val, *, every=2, **settings):
    """A detector after a few iterations, measured on the way where `every` is not 0."""
    out.mkdir(exist_ok=True)
    run = Run(out=out, device=torch.device("cpu"), seed=0, config={"resume": "auto"}, command="")
    recipe = small_recipe(**{**SETTINGS, "score_threshold": 0.0, **settings})
    module = {"torchvision": engine_tv, "detectron2": engine_d2}[engine]
    net = encoder()

    def made(detector, best):
        return DetectorFile(
            best=best,
            engine=engine,
            recipe=detector_file.plain_recipe(recipe),
            backbone=net.spec,
            preprocess=PREPROCESS.to_dict(),
            classes=list(data.classes),
            encoder="0" * 64,
            init="pretrained",
            config=detector.config.dump() if engine == "detectron2" else "",
            tensors=detector.state(),
        )

    validation = Validation(run=run, dataset=val, recipe=recipe, every=every, file=made)
    detector = module.train(
        encoder=net,
        preprocess=PREPROCESS,
        dataset=data,
        recipe=recipe,
        run=run,
        workers=0,
        precision="fp32",
        snapshot_every=1,
        log_every=1,
        validation=validation if every else None,
    )
    return {name: value.clone() for name, value in detector.state().items()}


def lines(out):
    """Measured on the way: step -> metrics."""
    read = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    found = [line for line in read if "val_coco_AP" in line]
    assert len({line["step"] for line in found}) == len(found)
    return {line.pop("step"): line for line in found}


def same(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("engine", BOTH)
def test_a_measured_training_is_the_training(engine, data, val, tmp_path):
    plain = train(engine, tmp_path / "plain", data, val, every=0)
    measured = train(engine, tmp_path / "measured", data, val)
    assert same(plain, measured)
    curve = lines(tmp_path / "measured")
    assert list(curve) == [2, 4, 5]
    assert {"val_AP50", "val_AP", "val_coco_AP", "val_coco_AP50"} <= set(curve[2])
    best = detector_file.read(tmp_path / "measured" / detector_file.BEST[engine]).best
    values = {step: line["val_coco_AP"] for step, line in curve.items()}
    first = min(step for step, value in values.items() if value == max(values.values()))
    assert best == {
        "iteration": first,
        "metric": "coco_AP",
        "value": values[first],
        "dataset": "shapes/val",
    }
    assert not (tmp_path / "plain" / detector_file.BEST[engine]).exists()


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_that_is_cut_measures_and_ends_alike(engine, accumulate, data, val, tmp_path):
    """From either of the two snapshots that are kept: one measured since, and that of the end."""
    given = {"batch_size": 4, "accumulate": accumulate}
    whole = train(engine, tmp_path / "whole", data, val, **given)
    curve = lines(tmp_path / "whole")
    best = detector_file.read(tmp_path / "whole" / detector_file.BEST[engine])
    kept = sorted((tmp_path / "whole/snapshots").iterdir())
    assert [path.name for path in kept] == ["step-000000004.pt", "step-000000005.pt"]
    for snapshot in kept:
        cut = tmp_path / snapshot.stem
        shutil.copytree(tmp_path / "whole", cut)
        for other in (cut / "snapshots").iterdir():
            if other.name != snapshot.name:
                other.unlink()
        assert same(train(engine, cut, data, val, **given), whole)
        assert lines(cut) == curve
        again = detector_file.read(cut / detector_file.BEST[engine])
        assert (again.sha256, again.best) == (best.sha256, best.best)


def test_the_better_one_is_kept_and_of_equals_the_earlier(val, tmp_path):
    run = Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="")
    recipe = small_recipe(outputs="masks")

    def made(value, best):
        return DetectorFile(
            best=best,
            engine="torchvision",
            recipe=detector_file.plain_recipe(recipe),
            backbone={},
            preprocess={},
            classes=["square", "disc"],
            encoder="0" * 64,
            init="random",
            tensors={"value": torch.tensor([value])},
        )

    validation = Validation(run=run, dataset=val, recipe=recipe, every=1, file=made)
    assert validation.metric == "mask_AP"
    for step, value in ((1, 3.0), (2, 5.0), (3, 5.0), (4, 4.0), (2, 5.0)):
        validation._keep(value, step, value)
    best = detector_file.read(tmp_path / "detector_best.safetensors")
    assert best.best["iteration"] == 2 and best.tensors["value"].item() == 5.0
    assert detector_file.find(tmp_path) is None, "the last one is another file"


def test_nothing_is_measured_on_the_test_part_instead(tmp_path):
    def main(*given):
        overrides = ["weights=x", f"out={tmp_path / 'run'}", "task=scenes", *given]
        detect.main(compose("detect", overrides)[0])

    with pytest.raises(ConfigError, match="eval_every=5 measures on detection.val, and there is"):
        main("eval_every=5")
    with pytest.raises(ConfigError, match="detection.val is measured on every eval_every="):
        main("detection=voc", "detection.val={split: val}")
    with pytest.raises(ConfigError, match="eval_every=-1"):
        main("eval_every=-1")
    assert not (tmp_path / "run").exists()


def test_the_validation_part_is_looked_at_like_the_test_part(data, val, tmp_path, monkeypatch):
    from omegaconf import OmegaConf

    asked = []

    def made(node, **arguments):
        asked.append(dict(node))
        return val

    monkeypatch.setattr(parts, "instantiate", made)
    nodes = {"test": {"split": "test", "root": "r"}, "val": {"split": "val"}, "classes": None}
    cfg = OmegaConf.create({"detection": nodes, "outputs": "boxes", "max_broken": 0.0})
    assert parts.read_val(cfg, data, val).records == val.records
    assert asked == [{"split": "val", "root": "r"}], "what it does not state is the test part's"
    path = tmp_path / "broken.png"
    path.write_bytes(b"no image")
    monkeypatch.setattr(val.records[0], "file", str(path))
    with pytest.raises(UserError, match=r"1 of 4 images cannot be read"):
        parts.read_val(cfg, data, val)
    cfg.detection.val = None
    monkeypatch.setattr(parts, "instantiate", lambda node: node)
    assert parts.read_val(cfg, data, val) is None
