"""The complete Detectron2 config of a run, and programs of Detectron2's that take it."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from tests.transfer.detection.shapes import shapes
from visrep import results
from visrep.cli import main
from visrep.data.preprocess import Preprocess
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detector_file, prediction
from visrep.weights import save_encoder

pytestmark = pytest.mark.detectron2
SMALL = [
    *("task=coco_fpn_boxes_1x", "engine=detectron2", "fpn.channels=16", "fpn.box_width=32"),
    *("test_size=48", "train_sizes=[48]", "max_size=80", "fpn.anchor_sizes=[4]", "precise_bn=0"),
    *("threads=1", "batch_size=2", "warmup=1", "detections_per_image=20", "roi_batch=16"),
]


def coco(folder, *, images, seed):
    """shapes() in COCO's layout; returns the settings that name it."""
    parts = {"train": images, "test": images}
    settings = []
    for number, (part, count) in enumerate(parts.items()):
        data = shapes(folder / part, images=count, seed=seed + number)
        boxes = [(i, box) for i, record in enumerate(data.records) for box in record.boxes]
        content = {
            "images": [
                {
                    "id": i,
                    "file_name": Path(record.file).name,
                    "height": record.height,
                    "width": record.width,
                }
                for i, record in enumerate(data.records)
            ],
            "categories": [{"id": 7, "name": "square"}, {"id": 3, "name": "disc"}],
            "annotations": [
                {
                    "id": n,
                    "image_id": image,
                    "category_id": (7, 3)[box.category],
                    "bbox": [box.xyxy[0], box.xyxy[1], *np.subtract(box.xyxy[2:], box.xyxy[:2])],
                    "area": float(np.prod(np.subtract(box.xyxy[2:], box.xyxy[:2]))),
                    "iscrowd": 0,
                }
                for n, (image, box) in enumerate(boxes, 1)
            ],
        }
        (folder / f"{part}.json").write_text(json.dumps(content))
        settings += [
            f"detection.{part}.annotations={folder / f'{part}.json'}",
            f"detection.{part}.image_root={folder / part}",
        ]
    return settings


@pytest.fixture
def weights(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "encoder.safetensors"
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    net = ResNet(depth=18, width=0.125, stem="small")
    save_encoder(path, encoder=net, preprocess=preprocess, source={"method": "none"})
    return path


def detect(*words):
    with pytest.raises(SystemExit) as end:
        main(["detect", *map(str, words)])
    return end.value.code or 0


def executed(text):
    """What the lines at the top of a config make, run as a user would."""
    code = [line[6:] for line in text.splitlines() if line.startswith("#     ")]
    names: dict = {}
    exec("\n".join(code), names)
    return names["cfg"]


def test_detectron2s_programs_take_the_config_and_the_final_model(
    weights, tmp_path, monkeypatch, capsys
):
    from detectron2.data import build_detection_test_loader
    from detectron2.engine import DefaultPredictor
    from detectron2.evaluation import COCOEvaluator, inference_on_dataset

    data, out = coco(tmp_path, images=6, seed=0), tmp_path / "run"
    own = ["SOLVER.MAX_ITER", "12", "MODEL.RPN.NMS_THRESH", "0.6", "eval_every=12"]
    own += [f"detection.val={{annotations: {tmp_path}/train.json, image_root: {tmp_path}/train}}"]
    assert not detect(f"weights={weights}", f"out={out}", *SMALL, *data, *own), capsys.readouterr()
    text = (out / "detectron2.yaml").read_text()
    monkeypatch.chdir(out)
    cfg = executed(text)
    assert cfg.MODEL.RPN.NMS_THRESH == 0.6 and cfg.SOLVER.MAX_ITER == 12
    assert str(out / "model_final.pth") == cfg.MODEL.WEIGHTS
    best = yaml.safe_load(detector_file.read(out / "model_best.pth").config)
    assert best["MODEL"]["WEIGHTS"] == str(out / "model_best.pth")
    assert set(yaml.safe_load(text)) == set(cfg)  # complete: no key is left to a default
    predictor = DefaultPredictor(cfg)
    kept = prediction.load(out / "predictions.json")
    for id_, ours in kept.items():
        pixels = np.array(Image.open(tmp_path / "test" / f"{int(id_):03d}.png").convert("RGB"))
        theirs = predictor(pixels[:, :, ::-1])["instances"]  # it takes BGR
        assert len(theirs) == len(ours.boxes) > 0
        assert torch.allclose(theirs.pred_boxes.tensor, ours.boxes, atol=0.01)
        assert torch.allclose(theirs.scores, ours.scores, atol=1e-4)
    name = cfg.DATASETS.TEST[0]
    evaluator = COCOEvaluator(name, ("bbox",), False, output_dir=str(tmp_path / "evaluated"))
    found = inference_on_dataset(predictor.model, build_detection_test_loader(cfg, name), evaluator)
    records = {r.metric: r.value for r in results.read(out / "results.jsonl")}
    assert found["bbox"]["AP50"] == pytest.approx(records["coco_AP50"], abs=0.01)


def test_a_dry_run_shows_the_config_that_the_run_writes(weights, tmp_path, capsys):
    data, out = coco(tmp_path, images=4, seed=3), tmp_path / "run"
    words = [f"weights={weights}", f"out={out}", *SMALL, *data, "iterations=2"]
    assert not detect(*words, "--dry-run")
    settings, _, shown = capsys.readouterr().out.partition("---\n")
    assert yaml.safe_load(settings)["iterations"] == 2 and not out.exists()
    assert shown.startswith("# Detectron2's config of this run, complete")
    assert not detect(*words)
    assert yaml.safe_load(shown) == yaml.safe_load((out / "detectron2.yaml").read_text())
    capsys.readouterr()
    assert not detect(*words[:2], *SMALL, "detection.root=nowhere", "--dry-run")
    assert "# Detectron2's config hangs on the weights and data: " in capsys.readouterr().out
    assert not detect("task=scenes", "out=x", "--dry-run")  # what is typed so far is shown
    assert "give weights=" in capsys.readouterr().out
    assert detect(*words, "SOLVER.GAMA", "0.5", "--dry-run") == 2
    assert "SOLVER.GAMA" in capsys.readouterr().err


def test_convert_writes_configs_for_the_users_own_data(weights, tmp_path, monkeypatch, capsys):
    from detectron2.data import DatasetCatalog, MetadataCatalog
    from detectron2.modeling import build_model

    data = coco(tmp_path, images=4, seed=5)
    words = ["convert", f"weights={weights}", "to=detectron2", "norm=BN", f"out={tmp_path}/x.pkl"]

    def convert(*more):
        with pytest.raises(SystemExit) as end:
            main([*words, *more])
        return end.value.code or 0

    assert convert("task=coco_fpn_1x", "detection=coco", *data) == 2
    assert "task=coco_fpn_1x: it learns masks, and in visrep/train no object" in (
        capsys.readouterr().err
    )
    assert convert("task=scenes_fcn", "detection=scenes_semantic") == 2
    assert "detection: these data have no boxes to learn" in capsys.readouterr().err
    assert not (tmp_path / "x.pkl").exists()
    assert not convert("task=scenes", "detection=coco", *data), capsys.readouterr().err
    monkeypatch.chdir(tmp_path)
    for file in ("x.yaml", "x.scenes.yaml"):
        text = (tmp_path / file).read_text()
        assert "from visrep.d2 import data" in text
        for name in ("visrep/train", "visrep/test"):
            if name in DatasetCatalog.list():
                DatasetCatalog.remove(name)
                MetadataCatalog.remove(name)
        cfg = executed(text)
        assert cfg.MODEL.ROI_HEADS.NUM_CLASSES == 2
        assert (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST) == ("visrep/train", "visrep/test")
        assert len(DatasetCatalog.get("visrep/train")) == 4
        assert MetadataCatalog.get("visrep/test").thing_classes == ["disc", "square"]
    cfg.MODEL.DEVICE = "cpu"
    assert build_model(cfg).roi_heads.num_classes == 2
    assert convert("task=scenes", "overwrite=true") == 2
    assert "name yours, as with detection=voc detection.root=DIR" in capsys.readouterr().err
