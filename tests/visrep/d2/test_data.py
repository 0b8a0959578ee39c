"""Our pixels in Detectron2's mapper."""

import numpy as np
import pytest
import torch
from PIL import Image

from tests.transfer.detection.shapes import shapes
from tests.visrep.data.pictures import write_picture
from visrep.d2.data import dataset_dict, mapper, register
from visrep.data.detection import Box, ImageRecord
from visrep.data.images import BrokenImage
from visrep.errors import UserError
from visrep.transfer.detection.batches import load, truth

pytestmark = pytest.mark.detectron2


@pytest.fixture
def cfg():
    from detectron2.config import get_cfg

    cfg = get_cfg()
    cfg.INPUT.FORMAT = "RGB"
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 40, 100
    cfg.INPUT.MIN_SIZE_TRAIN, cfg.INPUT.MAX_SIZE_TRAIN = (40,), 100
    cfg.INPUT.RANDOM_FLIP = "none"
    return cfg


def both(cfg, record):
    """What the two engines train on."""
    ours = load(record, short=40, most=100)
    return mapper(cfg, training=True)(dataset_dict(record)), ours


def photograph(path, orientation, height, width):
    exif = Image.Exif()
    exif[274] = orientation
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path, exif=exif, quality=95)


@pytest.mark.parametrize("orientation", [1, 3, 6])
def test_both_engines_see_a_rotated_photograph_alike(cfg, tmp_path, orientation):
    photograph(tmp_path / "a.jpg", orientation, 60, 80)
    height, width = (80, 60) if orientation == 6 else (60, 80)
    box = Box((5.0, 6.0, 30.0, 40.0), 0)
    record = ImageRecord(str(tmp_path / "a.jpg"), "a", height, width, [box])
    theirs, ours = both(cfg, record)
    assert torch.equal(theirs["image"], ours)
    boxes = truth(record, ours.shape[1:], masks=False)["boxes"]
    found = theirs["instances"].gt_boxes.tensor
    torch.testing.assert_close(found, boxes, check_dtype=False)
    assert torch.equal(mapper(cfg, training=False)(dataset_dict(record))["image"], ours)
    cfg.INPUT.FORMAT = "BGR"
    assert torch.equal(both(cfg, record)[0]["image"], ours.flip(0))


def test_both_engines_see_a_deep_image_alike(cfg, tmp_path):
    grey = np.random.default_rng(0).integers(0, 4096, (60, 80), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    record = ImageRecord(str(tmp_path / "a.png"), "a", 60, 80, [], depth=(0, 4095))
    theirs, ours = both(cfg, record)
    assert torch.equal(theirs["image"], ours) and ours.max() > 128


def test_an_ordinary_image_is_what_detectron2_s_own_mapper_reads(cfg, tmp_path):
    from detectron2.data import DatasetMapper
    from detectron2.utils.env import seed_all_rng

    cfg.INPUT.RANDOM_FLIP, cfg.MODEL.MASK_ON = "horizontal", True
    cfg.INPUT.MASK_FORMAT, cfg.INPUT.MIN_SIZE_TRAIN = "bitmask", (40, 50, 60)
    for record in shapes(tmp_path, images=4, seed=0).records:
        entry = dataset_dict(record)
        made = []
        for read in (mapper(cfg, training=True), DatasetMapper(cfg, is_train=True)):
            seed_all_rng(3)
            made.append(read(entry))
        assert torch.equal(made[0]["image"], made[1]["image"])
        own, other = made[0]["instances"], made[1]["instances"]
        assert torch.equal(own.gt_boxes.tensor, other.gt_boxes.tensor)
        assert torch.equal(own.gt_masks.tensor, other.gt_masks.tensor)
        assert "annotations" in entry  # the catalogue's entry is left as it was


@pytest.mark.parametrize(("height", "width"), [(8, 3000), (3000, 8), (1, 3000), (1, 1)])
def test_a_strip_keeps_a_pixel_in_both_engines(cfg, tmp_path, height, width):
    write_picture(tmp_path / "a.png", height=height, width=width)
    box = Box((0.0, 0.0, float(width), float(height)), 0)
    record = ImageRecord(str(tmp_path / "a.png"), "a", height, width, [box])
    theirs, ours = both(cfg, record)
    assert torch.equal(theirs["image"], ours) and min(ours.shape) >= 1
    assert len(theirs["instances"]) == 1


def test_a_file_that_cannot_be_read_is_named_once(cfg, tmp_path):
    (tmp_path / "a.png").write_bytes(b"no image")
    entry = dataset_dict(ImageRecord(str(tmp_path / "a.png"), "a", 8, 8))
    with pytest.raises(BrokenImage) as caught:
        mapper(cfg, training=False)(entry)
    assert str(caught.value).count("cannot read image") == 1
    assert str(caught.value).count("a.png") == 1
    write_picture(tmp_path / "a.png", height=9, width=8)
    with pytest.raises(UserError, match=r"a\.png is 8x9 pixels but annotated as 8x8"):
        mapper(cfg, training=False)(entry)


def test_the_depth_is_in_what_workers_get(tmp_path):
    from detectron2.data import DatasetCatalog

    data = shapes(tmp_path, images=1, seed=0)
    data.records[0].depth = "per_image"
    assert DatasetCatalog.get(register(data))[0]["depth"] == "per_image"
