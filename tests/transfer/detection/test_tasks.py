"""Every task of boxes and masks through `visrep detect`, on small data in the usual layout."""

import pytest
import torch

from tests.fake_datasets import write_cityscapes, write_coco, write_lvis, write_voc
from visrep import results
from visrep.config import compose
from visrep.d2.tasks import recipe_of, stated
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError
from visrep.groups import choices
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detect
from visrep.weights import save_encoder

TASKS = [
    task
    for task in choices("task")
    if task != "scenes" and stated(task).outputs in ("boxes", "masks")
]
SMALL = [
    *("iterations=2", "warmup=1", "batch_size=2", "threads=1"),
    *("train_sizes=[64]", "test_size=64", "max_size=128"),
    *("rpn_batch=16", "roi_batch=8", "mask_width=8", "score_threshold=0.0"),
    *("c4.box_pool=4", "c4.rpn_pre_nms=[40,40]", "c4.rpn_post_nms=[16,16]"),
    *("fpn.channels=16", "fpn.box_width=32"),
    *("fpn.rpn_pre_nms=[40,40]", "fpn.rpn_post_nms=[16,16]"),
]
ENGINES = ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("data")
    for write in (write_voc, write_coco, write_lvis, write_cityscapes):
        write(root)
    return root


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "encoder.safetensors"
    torch.manual_seed(0)
    preprocess = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)
    save_encoder(
        path,
        encoder=ResNet(depth=50, width=0.0625, stem="imagenet"),
        preprocess=preprocess,
        source={"method": "none"},
    )
    return path


def run(weights, out, task, *overrides):
    still = ["precise_bn=0"] if recipe_of(task).precise_bn == 0 else ["precise_bn=1"]
    given = [f"weights={weights}", f"out={out}", f"task={task}", *SMALL, *still, *overrides]
    detect.main(compose("detect", given)[0])
    return {record.metric: record for record in results.read(out / "results.jsonl")}


VOC = {"AP", "AP50", "AP75", "AP_area", "AP50_area", "AP75_area"}
COCO = {"coco_AP", "coco_AP50", "coco_AP75"}
MASKS = {"mask_AP", "mask_AP50", "mask_AP75"}
LVIS = {"lvis_AP", "lvis_AP50", "lvis_AP75", "lvis_APr", "lvis_APc", "lvis_APf"}
RARITIES = {"mask_APr", "mask_APc", "mask_APf"}


def expected(task):
    """The metrics, and the form of mask AP."""
    if task.startswith("lvis"):
        return LVIS | MASKS | RARITIES, "LVIS segm"
    if task.startswith("cityscapes"):
        return VOC | COCO | {"mask_AP", "mask_AP50"}, "Cityscapes segm"
    masks = recipe_of(task).masks
    return VOC | COCO | (MASKS if masks else set()), "COCO segm" if masks else ""


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("task", TASKS)
def test_a_task_runs_with_the_folder_of_its_data_alone(root, weights, tmp_path, task, engine):
    given = [task, f"detection.root={root}", f"engine={engine}"]
    if engine == "torchvision" and recipe_of(task).beyond:
        with pytest.raises(ConfigError, match="settings that only Detectron2 knows"):
            run(weights, tmp_path / "run", *given)
        return
    records = run(weights, tmp_path / "run", *given)
    metrics, form = expected(task)
    sizes = {"AP_small", "AP_medium", "AP_large"}
    assert {m for m in records if not any(m.endswith(size) for size in sizes)} == metrics
    assert all(0 <= record.value <= 100 for record in records.values())
    assert {record.engine for record in records.values()} == {engine}
    assert {record.extra["recipe"] for record in records.values()} == {task}
    if form:
        assert records["mask_AP"].extra["form"] == form
    if task.startswith("lvis"):
        assert not set(records) & VOC


def test_a_kept_detector_is_measured_by_the_same_rules(root, weights, tmp_path, monkeypatch):
    monkeypatch.setenv("DETECTRON2_DATASETS", str(root))
    first = run(weights, tmp_path / "run", "lvis1_fpn_1x", "engine=torchvision")
    given = [f"detector={tmp_path / 'run'}", "detection=lvis1", f"out={tmp_path / 'again'}"]
    detect.main(compose("detect", [*given, "threads=1"])[0])
    again = {r.metric: r for r in results.read(tmp_path / "again/results.jsonl")}
    assert {m: r.value for m, r in again.items()} == {m: r.value for m, r in first.items()}
    assert again["mask_APr"].extra["form"] == "LVIS segm"
