"""`visrep svm` end to end: one label for an image, and VOC's several."""

from pathlib import Path

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from tests.small_data import composed, pictures
from visrep import results
from visrep.errors import ConfigError
from visrep.transfer.frozen import svm


def run(root: Path, out: str, *overrides: str) -> list[results.Record]:
    place = root.parent / out
    weights = f"weights={root.parent / 'encoder.safetensors'}"
    svm.main(composed("svm", root, weights, f"out={place}", *overrides))
    return results.read(place / "results.jsonl")


def test_records_of_every_output(root: Path) -> None:
    for output, dimensions in (("pooled", 32), ("head", 8), ("layers", 240)):
        (record,) = run(root, output, f"output={output}", "costs=[0.1,1]", "normalize=standard")
        assert (record.task, record.metric, record.dataset) == ("svm", "top1", "data/test")
        assert record.extra["dimensions"] == dimensions and record.extra["output"] == output
        assert record.extra["cost"] in (0.1, 1) and record.extra["folds"] == 3
        assert 0 <= record.extra["held_out_top1"] <= 100
    assert record.value > 60  # the class is the brightest channel, which maxima see
    (fresh,) = run(root, "fresh", "output=layers", "init=random", "costs=[1]")
    assert fresh.init == "random" and fresh.weights != record.weights


def test_the_test_set_has_no_part_in_the_choice(root: Path) -> None:
    (one,) = run(root, "one", "costs=[0.01,1]")
    files = sorted((root / "test").rglob("*.png"))
    for path in files[: len(files) // 2]:
        Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(path)
    (other,) = run(root, "other", "costs=[0.01,1]")
    for key in ("cost", "held_out_top1"):
        assert one.extra[key] == other.extra[key]
    assert one.value != other.value


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("output=best", "output=best"),
        ("init=imagenet", "init=imagenet"),
        ("normalize=max", "normalize=max"),
        ("costs=[]", "costs="),
        ("costs=[-1]", "costs="),
        ("folds=1", "folds=1"),
        ("positive_weight=0", "positive_weight=0"),
    ],
)
def test_wrong_settings_leave_no_folder(root: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        run(root, "never", override)
    assert not (root.parent / "never").exists()


CLASSES = ("bird", "cat")


def write_voc07(root: Path) -> Path:
    """Birds are bright in red, cats in green; some are both, some neither, some not counted."""
    for folder in ("JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for split, count, seed in (("trainval", 48, 1), ("test", 24, 2)):
        images, _ = pictures(count, seed=seed)
        images = (images.float() * 0.5).to(torch.uint8)
        lines: dict[str, list[str]] = {name: [] for name in CLASSES}
        for i, image in enumerate(images):
            for channel, name in enumerate(CLASSES):
                present = bool(i >> channel & 1)
                image[channel] += 90 * present
                # An image that is not counted shows the opposite: to count it would cost points.
                target = 0 if i % 6 == 5 else 1 if present else -1
                if target == 0:
                    image[channel] += 90 * (not present)
                lines[name].append(f"{split}{i:03d} {target:2d}")
            pixels = image.permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{split}{i:03d}.png")
        for name in CLASSES:
            path = root / "ImageSets/Main" / f"{name}_{split}.txt"
            path.write_text("\n".join(lines[name]) + "\n")
    return root


def run_voc(root: Path, voc: Path, out: str, *overrides: str) -> list[results.Record]:
    weights = f"weights={root.parent / 'encoder.safetensors'}"
    place = root.parent / out
    cfg = composed("svm", root, weights, f"out={place}", "output=layers", *overrides)
    node = {"_target_": "visrep.data.voc_labels.voc_labels", "root": str(voc)}
    cfg.data = OmegaConf.create(
        {"train": {**node, "split": "trainval"}, "test": {**node, "split": "test"}}
    )
    svm.main(cfg)
    return results.read(place / "results.jsonl")


def test_several_labels_give_average_precision_per_class(root: Path) -> None:
    voc = write_voc07(root.parent / "VOC2007")
    area, points = run_voc(root, voc, "voc", "costs=[1,10]", "size=16")
    assert (area.metric, points.metric) == ("mAP", "mAP_11point")
    assert area.dataset == "VOC2007/test"
    for record in (area, points):
        assert set(record.extra["per_class"]) == set(CLASSES)
        assert record.value == pytest.approx(np.mean(list(record.extra["per_class"].values())))
        assert set(record.extra["costs"]) == set(CLASSES)
        assert record.extra["positive_weight"] == 2.0
    assert area.value > 80  # half of the images have a class, so chance is 50


def test_a_class_too_small_for_the_folds_is_named(root: Path) -> None:
    voc = write_voc07(root.parent / "VOC2007")
    path = voc / "ImageSets/Main/cat_trainval.txt"
    lines = [line.split()[0] + " -1" for line in path.read_text().splitlines()]
    lines[0] = lines[0].replace("-1", "1")
    path.write_text("\n".join(lines))
    with pytest.raises(ConfigError, match="class cat has 1 positive and 47 negative"):
        run_voc(root, voc, "few", "size=16", "costs=[1]")
