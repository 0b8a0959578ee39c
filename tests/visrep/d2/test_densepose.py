"""DensePose: the config that Detectron2's project gets, and what is said where it is not."""

import builtins
import dataclasses
import importlib.util
import json

import numpy as np
import pytest
import torch
from pycocotools import mask as rle

from tests.oracles.encoders import in_memory
from tests.visrep.data.pictures import write_picture
from visrep.config import compose
from visrep.d2 import densepose, installed, tasks
from visrep.d2.settings import detection_settings
from visrep.data.preprocess import Preprocess
from visrep.engine.run import Run
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detect
from visrep.weights import save_encoder

TASK = "coco_densepose_fpn_s1x"
NARROW = {"depth": 50, "width": 0.0625, "stem": "imagenet"}
project = pytest.mark.skipif(
    importlib.util.find_spec("densepose") is None, reason="the project DensePose is not installed"
)


@pytest.fixture
def without(monkeypatch):
    """As where the project is not installed."""
    original = builtins.__import__

    def importing(name, *rest, **named):
        if name.partition(".")[0] == "densepose":
            raise ModuleNotFoundError("No module named 'densepose'")
        return original(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", importing)


@pytest.fixture
def weights(tmp_path):
    path = tmp_path / "encoder.safetensors"
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_encoder(path, encoder=ResNet(**NARROW), preprocess=preprocess, source={"method": "none"})
    return path


def run_detect(weights, out, *overrides):
    small = [f"weights={weights}", f"out={out}", f"task={TASK}", "iterations=2", "warmup=1"]
    small += ["decay_at=[0.5]", "batch_size=1", "precise_bn=0", "train_sizes=[64]", "test_size=64"]
    small += ["max_size=100", "fpn.box_width=32", "fpn.channels=16"]
    detect.main(compose("detect", [*small, "threads=1", "device=cpu", *overrides])[0])


def test_the_config_has_the_project_s_numbers():
    """Its Base-DensePose-RCNN-FPN and densepose_rcnn_R_50_FPN_s1x, with norms that train."""
    config = detection_settings(in_memory(**NARROW), tasks.recipe_of(TASK), norm="SyncBN")
    model, solver = config["MODEL"], config["SOLVER"]
    assert model["DENSEPOSE_ON"] and model["ROI_HEADS"]["NAME"] == "DensePoseROIHeads"
    assert model["ROI_HEADS"]["NUM_CLASSES"] == 1 and not model["MASK_ON"]
    assert model["ROI_HEADS"]["IN_FEATURES"] == ["p2", "p3", "p4", "p5"]
    assert model["ROI_BOX_HEAD"]["NUM_FC"] == 2 and model["ROI_BOX_HEAD"]["POOLER_RESOLUTION"] == 7
    assert model["ROI_BOX_HEAD"]["POOLER_TYPE"] == "ROIAlign"
    assert model["ROI_DENSEPOSE_HEAD"]["NAME"] == "DensePoseV1ConvXHead"
    assert model["RESNETS"]["NORM"] == model["FPN"]["NORM"] == "SyncBN"
    assert (solver["BASE_LR"], solver["WARMUP_FACTOR"]) == (0.01, 0.1)
    assert (solver["MAX_ITER"], solver["STEPS"]) == (130000, [100000, 120000])
    assert config["DATASETS"]["TEST"] == ["densepose_coco_2014_minival"]
    assert config["INPUT"]["MIN_SIZE_TRAIN"] == list(range(640, 801, 32))


@pytest.mark.detectron2
def test_where_the_project_is_absent_one_line_says_what_to_install(without, weights, tmp_path):
    out = tmp_path / "run"
    with pytest.raises(
        ConfigError, match=r"needs Detectron2's project DensePose.*install it as https://github"
    ):
        run_detect(weights, out)
    assert not out.exists()
    assert "install it as" in tasks.problem(TASK, NARROW)


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("engine=torchvision", "by Detectron2's project DensePose only: engine=detectron2"),
        ("head=c4", "outputs=densepose needs the pyramid"),
        ("batch_size=4 accumulate=4", "does not know accumulate=4: leave it out"),
        ("labels=0.1", "does not know labels=0.1: leave it out"),
    ],
)
def test_what_the_project_cannot_do_is_one_line(weights, tmp_path, monkeypatch, override, message):
    monkeypatch.setattr(installed, "version", lambda: ("0.6", ""))  # it is told first
    with pytest.raises(ConfigError, match=message):
        run_detect(weights, tmp_path / "run", *override.split())


def test_its_results_become_our_metrics():
    results = {
        "bbox": {"AP": 50.0, "APs": float("nan")},
        "densepose_gps": {"AP": 40.0, "AP50": 70.0},
        "densepose_gpsm": {"AP": 45.0, "APl": -1},
        "another": {"AP": 1.0},
    }
    assert densepose.named(results) == {
        "coco_AP": 50,
        "densepose_AP": 40,
        "densepose_AP50": 70,
        "densepose_gpsm_AP": 45,
    }


# Where the project is installed


def surfaces(root):
    """Two pictures of a person each, half of it labelled with points, in the project's layout."""
    (root / "coco" / "annotations").mkdir(parents=True)
    part = np.zeros((256, 256), dtype=np.uint8, order="F")
    part[40:200, 60:180] = 1
    code = rle.encode(part)
    code = {"size": code["size"], "counts": code["counts"].decode()}
    corners = [10, 8, 70, 8, 70, 90, 10, 90]
    draw = np.random.default_rng(0)
    for folder, files in (("train2014", ["train"]), ("val2014", ["valminusminival", "minival"])):
        (root / "coco" / folder).mkdir()
        write_picture(root / "coco" / folder / "a.png", height=100, width=80)
        for file in files:
            annotation = {
                "id": 1,
                "image_id": 1,
                "category_id": 1,
                "bbox": [10, 8, 60, 82],
                "area": 60 * 82,
                "iscrowd": 0,
                "segmentation": [corners],
                "dp_masks": [code] + [[]] * 13,
                "dp_x": draw.uniform(60, 180, 20).tolist(),
                "dp_y": draw.uniform(40, 200, 20).tolist(),
                "dp_I": [1.0] * 20,
                "dp_U": draw.random(20).tolist(),
                "dp_V": draw.random(20).tolist(),
            }
            content = {
                "info": {},
                "images": [{"id": 1, "file_name": "a.png", "height": 100, "width": 80}],
                "categories": [{"id": 1, "name": "person"}],
                "annotations": [annotation],
            }
            path = root / "coco" / "annotations" / f"densepose_{file}2014.json"
            path.write_text(json.dumps(content))
    return root


@project
@pytest.mark.detectron2
def test_the_project_takes_the_config_and_trains(weights, tmp_path, monkeypatch):
    """Without the files of the body's model, which it fetches for mirrors and its evaluation."""
    from densepose.data import dataset_mapper
    from densepose.engine import Trainer
    from densepose.structures import DensePoseTransformData

    size = torch.zeros(24, 256, 256)
    mirrors = DensePoseTransformData({"U_transforms": size, "V_transforms": size}, "cpu")
    monkeypatch.setattr(dataset_mapper.PathManager, "get_local_path", lambda path: path)
    monkeypatch.setattr(dataset_mapper.DensePoseTransformData, "load", lambda _path: mirrors)
    monkeypatch.setattr(
        Trainer, "test", lambda _cls, *_rest: {"densepose_gps": {"AP": 12.5}}, raising=True
    )
    root = surfaces(tmp_path / "data")
    run_detect(weights, tmp_path / "run", f"detection.root={root}")
    losses = [
        json.loads(line) for line in (tmp_path / "run" / "metrics.json").read_text().splitlines()
    ]
    assert losses and all(
        key in losses[0] for key in ("loss_densepose_I", "loss_densepose_U", "loss_cls")
    )
    (record,) = [
        json.loads(line) for line in (tmp_path / "run" / "results.jsonl").read_text().splitlines()
    ]
    assert (record["task"], record["metric"], record["value"]) == (
        "densepose",
        "densepose_AP",
        12.5,
    )
    assert (tmp_path / "run" / "model_final.pth").is_file()


@project
@pytest.mark.detectron2
def test_data_that_are_not_there_are_one_line(weights, tmp_path):
    with pytest.raises(UserError, match=r"densepose_train2014\.json is not there; give the folder"):
        run_detect(weights, tmp_path / "run", f"detection.root={tmp_path}")
    with pytest.raises(ConfigError, match="mine is no data set of DensePose; choose from"):
        densepose.register(tmp_path, ["mine"])


@project
@pytest.mark.detectron2
def test_a_setting_that_the_project_does_not_have_is_one_line(tmp_path):
    recipe = tasks.recipe_of(TASK)
    recipe = dataclasses.replace(
        recipe, detectron2={"MODEL": {"ROI_DENSEPOSE_HEAD": {"NAMES": "x"}}}
    )
    run = Run(out=tmp_path, device=torch.device("cpu"), seed=0, config={}, command="")
    with pytest.raises(ConfigError, match=f"task={TASK}: its detectron2 settings"):
        densepose.configure(in_memory(**NARROW), recipe, run=run, workers=0, snapshot_every=0)
