"""A folder as it comes: one picture of every odd kind, through every command that reads images."""

from pathlib import Path

import pytest

from tests.small_data import tiny_net
from tests.transfer.detection.shapes import small_recipe
from tests.visrep.data.pictures import voc_object, write_odd_pictures
from visrep import config, results
from visrep.data.dataset import ImageFiles
from visrep.data.detection import read_voc
from visrep.data.folders import folder
from visrep.data.images import image_size
from visrep.data.loader import Loader
from visrep.data.preprocess import Preprocess
from visrep.data.views.spec import make_views
from visrep.data.voc_labels import voc_labels
from visrep.distill import finetune
from visrep.engine.extraction import batches
from visrep.pretrain import train
from visrep.transfer.detection import detect
from visrep.transfer.detection.batches import TrainingBatches
from visrep.transfer.frozen import knn, linear
from visrep.weights import save_encoder

PREPROCESS = Preprocess(size=28, resize=32, mean=(0.5,) * 3, std=(0.25,) * 3)


@pytest.fixture
def classes(tmp_path, monkeypatch):
    """train/ and test/, in each two classes of the same odd pictures."""
    monkeypatch.setenv("VISREP_CACHE", str(tmp_path / "cache"))
    for place in ("train/a", "train/b", "test/a", "test/b"):
        write_odd_pictures(tmp_path / "classes" / place)
    return tmp_path / "classes"


@pytest.fixture
def boxes(tmp_path):
    """A VOC folder; the one box of an image is the whole of it.

    In VOC's numbers a box of one pixel has no area, so that picture has no object.
    """
    root = tmp_path / "VOC"
    names = write_odd_pictures(root / "JPEGImages")
    for place in ("Annotations", "ImageSets/Main"):
        (root / place).mkdir(parents=True)
    ids = [Path(name).stem for name in names if name != "deep_colour.tif"]
    for name in names:
        height, width = image_size(root / "JPEGImages" / name)
        text = voc_object("thing", 1, 1, width, height)
        (root / f"Annotations/{Path(name).stem}.xml").write_text(f"<annotation>{text}</annotation>")
    for split in ("trainval", "test"):
        (root / f"ImageSets/Main/{split}.txt").write_text("\n".join(ids))
    return root


def test_as_views_of_pretraining(tmp_path):
    names = write_odd_pictures(tmp_path)
    data = folder(str(tmp_path))
    assert isinstance(data, ImageFiles) and len(data) == len(names)
    views = make_views(copies=2, size=24, mean=[0.0] * 3, std=[1.0] * 3, interpolation="bicubic")
    loader = Loader(data, views=views, batch_size=len(names), seed=0, max_broken=0)
    batch = next(loader.iterate(0))
    assert sorted(batch["index"].tolist()) == list(range(len(names)))
    for view in batch["views"]:
        assert view.shape == (len(names), 3, 24, 24)
        assert (view.flatten(1).amax(dim=1) > 0).all()


def test_as_input_of_a_frozen_encoder(tmp_path):
    names = write_odd_pictures(tmp_path)
    data = folder(str(tmp_path))
    ((seen, index),) = batches(data, PREPROCESS, batch_size=64)
    assert index.tolist() == list(range(len(names)))
    assert seen.shape == (len(names), 3, 28, 28)
    assert (seen.flatten(1).amax(dim=1) > -2).all()  # none is black


def test_as_images_of_several_labels(boxes):
    data = voc_labels(str(boxes), split="test")
    assert len(data) == len({data.file(i) for i in range(len(data))})
    assert all(data[i].max() > 0 for i in range(len(data)))


def test_as_training_images_of_a_detector(boxes):
    recipe = small_recipe(train_sizes=[32], max_size=100, flip=False, batch_size=1)
    batches_of_ours = TrainingBatches(read_voc(boxes, "trainval"), recipe=recipe, seed=0)
    for place in range(len(batches_of_ours.records)):
        image, target, broken = batches_of_ours.sample(place)
        height, width = image.shape[1:]
        assert not broken
        assert target["boxes"].tolist() == [[0, 0, width, height]] and max(height, width) <= 100


NET = "backbone=resnet18_small_w8"


def commands(classes, boxes, weights, out):
    """One line for each command that reads images."""
    images = ["data=imagefolder", f"data.root={classes}", "threads=1", "workers=0"]
    small = ["task=scenes", "iterations=2", "warmup=1", "threads=1", "workers=0"]
    detection = ["detection=voc", f"detection.root={boxes}", *small]
    given = f"weights={weights}"
    quick = ["steps=2", "batch_size=8", "knn.times=0", "optim.warmup_epochs=0"]
    return {
        "pretrain": (train, ["method=simclr_small", NET, *quick, *images]),
        "knn": (knn, [given, "k=3", *images]),
        "linear": (linear, [given, "epochs=1", *images]),
        "finetune": (finetune, [given, "selector=0", "epochs=1", "batch_size=8", *images]),
        "torchvision": (detect, [given, "engine=torchvision", *detection]),
        "detectron2": (detect, [given, "engine=detectron2", *detection]),
    }


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [
        *("pretrain", "knn", "linear", "finetune", "torchvision"),
        pytest.param("detectron2", marks=pytest.mark.detectron2),
    ],
)
def test_through_a_whole_command(name, classes, boxes, tmp_path):
    weights = tmp_path / "encoder.safetensors"
    save_encoder(weights, encoder=tiny_net(), preprocess=PREPROCESS, source={"method": "none"})
    module, settings = commands(classes, boxes, weights, tmp_path)[name]
    out = tmp_path / "out"
    command = "detect" if module is detect else name
    cfg, _ = config.compose(command, [f"out={out}", "device=cpu", *settings])
    module.main(cfg)
    if name == "pretrain":
        assert (out / "encoder.safetensors").exists()
    else:
        assert all(record.value >= 0 for record in results.read(out / "results.jsonl"))
