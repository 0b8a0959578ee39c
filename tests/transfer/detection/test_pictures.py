"""Detectors on folders of pictures: what is drawn and written, and what is refused."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from tests.transfer.detection.shapes import shapes, small_recipe
from visrep.config import compose
from visrep.data.preprocess import Preprocess
from visrep.errors import ConfigError, UserError
from visrep.nn.resnet import ResNet
from visrep.transfer.detection import detect, detector_file, prediction
from visrep.transfer.detection.detector_file import DetectorFile
from visrep.transfer.detection.drawing import colour_of, drawn
from visrep.transfer.detection.masks import to_rle
from visrep.transfer.detection.pictures import above, read_pictures
from visrep.transfer.detection.prediction import Prediction
from visrep.transfer.detection.tv_detector import Detector

PREPROCESS = Preprocess(size=32, resize=None, mean=(0.5,) * 3, std=(0.25,) * 3)


def keep(folder: Path, *, outputs: str = "masks", score_threshold: float = 0.0, **settings) -> Path:
    """An untrained detector of squares and discs, which finds much where nothing is."""
    recipe = small_recipe(
        outputs=outputs, score_threshold=score_threshold, detections_per_image=10, **settings
    )
    torch.manual_seed(0)
    encoder = ResNet(depth=18, width=0.125, stem="small")
    net = Detector(encoder=encoder, classes=2, recipe=recipe, preprocess=PREPROCESS, seed=0)
    file = DetectorFile(
        engine="torchvision",
        recipe=detector_file.plain_recipe(recipe),
        backbone=encoder.spec,
        preprocess=PREPROCESS.to_dict(),
        classes=["square", "disc"],
        encoder="0" * 64,
        init="random",
        tensors=net.state(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    return detector_file.save(folder, file)


@pytest.fixture
def photos(tmp_path):
    """Pictures of several kinds, one of them broken."""
    folder = tmp_path / "photos"
    shapes(folder, images=3, seed=0)
    (folder / "more").mkdir()
    grey = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 56), dtype=np.uint8))
    grey.save(folder / "more" / "000.png")
    grey.save(folder / "more" / "000.jpg")
    (folder / "broken.jpg").write_bytes(b"no picture")
    return folder


def run(detector, photos, out, *overrides):
    given = [f"detector={detector}", f"images={photos}", f"out={out}", "threads=1", *overrides]
    detect.main(compose("detect", given)[0])


BOTH = ["torchvision", pytest.param("detectron2", marks=pytest.mark.detectron2)]


@pytest.mark.parametrize("engine", BOTH)
def test_a_folder_is_predicted_and_drawn(tmp_path, photos, capsys, engine):
    kept, out = keep(tmp_path / "kept"), tmp_path / "out"
    run(kept, photos, out, f"engine={engine}", "max_broken=0.2", "score=0.3")
    said = capsys.readouterr().out
    assert "left out, cannot be read: 1 (" in said and "broken.jpg)" in said
    names = {p.relative_to(out / "pictures").as_posix() for p in (out / "pictures").rglob("*.*")}
    assert names == {"000.jpg", "001.jpg", "002.jpg", "more/000.png.jpg", "more/000.jpg.jpg"}
    written = json.loads((out / "detections.json").read_text())
    sizes = {one["file_name"]: (one["height"], one["width"]) for one in written["images"]}
    assert sizes["000.png"] == (64, 48) and sizes["more/000.jpg"] == (40, 56)
    assert [one["name"] for one in written["categories"]] == ["square", "disc"]
    found = prediction.load(out / "predictions.json")
    assert set(found) == set(sizes) and sum(len(p.scores) for p in found.values()) > 0
    assert len(written["annotations"]) == sum(len(p.scores) for p in found.values())
    first = written["annotations"][0]
    assert all(side > 0 for side in first["bbox"][2:])
    assert first["segmentation"]["size"] == [64, 48]
    assert first["area"] == rle.area(first["segmentation"])
    assert first["score"] in found["000.png"].scores.tolist()
    assert not (out / "results.jsonl").exists()  # nothing is measured


def test_the_file_is_one_that_coco_reads(tmp_path, photos):
    from pycocotools.coco import COCO

    run(keep(tmp_path / "kept"), photos, tmp_path / "out", "engine=torchvision", "max_broken=0.2")
    read = COCO(str(tmp_path / "out/detections.json"))
    assert len(read.getImgIds()) == 5 and read.annToMask(read.anns[1]).shape == (64, 48)


def test_what_is_sure_is_drawn_in_its_place_and_colour():
    mask = torch.zeros(2, 60, 80, dtype=torch.bool)
    mask[0, 30:50, 10:40] = True
    found = Prediction(
        boxes=torch.tensor([[10.0, 30.0, 40.0, 50.0], [50.0, 30.0, 70.0, 50.0]]),
        scores=torch.tensor([0.9, 0.2]),
        labels=torch.tensor([1, 0]),
        masks=to_rle(mask),
    )
    picture = drawn(
        torch.zeros(3, 60, 80, dtype=torch.uint8),
        above(found, 0.5),
        ["cat", "dog"],
        keypoints=None,
    )
    pixels = np.array(picture)
    assert tuple(pixels[30, 20]) == tuple(pixels[50, 20]) == tuple(pixels[40, 10]) == colour_of(1)
    assert np.allclose(pixels[45, 30], 0.45 * np.array(colour_of(1)), atol=1)  # the mask
    assert not pixels[30:50, 50:70].any()  # too unsure
    assert pixels[:30].any()  # words above the box
    assert colour_of(0) != colour_of(1)


def test_keypoints_are_drawn_and_joined():
    from visrep.data.detection.boxes import Keypoints

    points = Keypoints(
        names=("a", "b", "c"), partners=None, skeleton=((0, 1),), sigmas=(0.1,) * 3, sigmas_of="x"
    )
    found = Prediction(
        boxes=torch.tensor([[5.0, 40.0, 75.0, 75.0]]),
        scores=torch.tensor([0.9]),
        labels=torch.tensor([0]),
        keypoints=torch.tensor([[[20.0, 60.0, 0.9], [60.0, 60.0, 0.9], [40.0, 50.0, 0.0]]]),
    )
    pixels = np.array(
        drawn(torch.zeros(3, 80, 80, dtype=torch.uint8), found, ["cat"], keypoints=points)
    )
    assert tuple(pixels[60, 40]) == tuple(pixels[60, 20]) == colour_of(0)
    assert not pixels[50, 40].any()  # not sure of this one


def test_refusals(tmp_path, photos):
    kept = keep(tmp_path / "kept")
    empty = tmp_path / "empty"
    empty.mkdir()
    out = tmp_path / "out"
    with pytest.raises(UserError, match="no image in it or below"):
        run(kept, empty, out)
    with pytest.raises(UserError, match="is not a folder"):
        run(kept, tmp_path / "absent", out)
    with pytest.raises(UserError, match=r"1 of 6 images cannot be read.*broken\.jpg"):
        run(kept, photos, out)
    with pytest.raises(ConfigError, match=r"is in images=.*choose another out="):
        run(kept, photos, photos / "found", "max_broken=0.2")
    with pytest.raises(ConfigError, match="give detector=, not detection="):
        run(kept, photos, out, "detection=scenes")
    given = ["weights=x", "task=scenes", f"images={photos}", f"out={out}"]
    with pytest.raises(ConfigError, match="give detector=, not weights="):
        detect.main(compose("detect", given)[0])
    with pytest.raises(ConfigError, match="score= is what is drawn of images="):
        detect.main(
            compose("detect", [f"detector={kept}", "detection=scenes", f"out={out}", "score=0.1"])[
                0
            ]
        )
    with pytest.raises(ConfigError, match="give a value: detection="):
        detect.main(compose("detect", [f"detector={kept}", f"out={out}"])[0])
    file = detector_file.read(kept)
    file.recipe["outputs"] = "semantic"
    with pytest.raises(ConfigError, match="this net names pixels"):
        read_pictures(str(photos), file=file, max_broken=0.5)
    assert not out.exists()
