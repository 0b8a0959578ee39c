"""The rules for boxes that are wrong, and an image against its annotated size."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from tests.visrep.data.pictures import write_picture
from visrep.data.detection.boxes import (
    DetectionDataset,
    ImageRecord,
    Problems,
    existing_folder,
    inside,
    usable_box,
    with_depth,
)
from visrep.data.images import BrokenImage, UnknownRange
from visrep.errors import ConfigError, UserError


def judged(*xyxy, on_bad="report"):
    """What becomes of a box in an image 40 high and 50 wide, and what is said."""
    problems = Problems(on_bad)
    return usable_box(xyxy, 40, 50, "a.xml: object 1", problems), problems.lines


def test_a_good_box_is_kept_as_it_is():
    assert judged(1.25, 2.5, 10.75, 20) == ((1.25, 2.5, 10.75, 20), [])
    assert judged(0, 0, 50, 40) == ((0, 0, 50, 40), [])


@pytest.mark.parametrize("box", [(5, 5, 5, 9), (5, 5, 9, 5), (9, 5, 5, 9), (5, 9, 9, 5)])
def test_zero_area_and_inverted_boxes_are_reported_and_skipped(box):
    kept, (line,) = judged(*box)
    assert kept is None
    assert line.startswith("a.xml: object 1: box [") and line.endswith("is inverted; skipped")
    with pytest.raises(UserError, match=r"a\.xml: object 1: .*; correct the annotation, or"):
        judged(*box, on_bad="raise")


@pytest.mark.parametrize("box", [(60, 5, 70, 9), (-9, 5, 0, 9), (5, 40, 9, 44), (5, -8, 9, -1)])
def test_a_box_outside_the_image_is_reported_and_skipped(box):
    kept, (line,) = judged(*box)
    assert kept is None and line.endswith("is outside the 50x40 image; skipped")


def test_a_box_that_leaves_the_image_is_cut_and_reported():
    kept, (line,) = judged(-5, 10, 60, 45)
    assert kept == (0, 10, 50, 40)
    assert line.endswith("leaves the 50x40 image; cut at its edge")
    with pytest.raises(UserError, match="leaves"):
        judged(-5, 10, 60, 45, on_bad="raise")


def test_one_pixel_is_a_matter_of_convention_and_cut_silently():
    assert judged(-1, -1, 51, 41, on_bad="raise") == ((0, 0, 50, 40), [])


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_always_an_error(value):
    with pytest.raises(UserError, match=r"a\.xml: object 1: .*not finite"):
        judged(1, 1, value, 9)


def test_problems_are_logged_up_to_ten(log_lines):
    problems = Problems("report")
    for i in range(13):
        problems.add(f"{i}.xml", "wrong", "skipped")
    assert len(problems.close("set")) == 13
    assert log_lines == [*problems.lines[:10], "set: 3 more such problems"]


def test_an_unknown_policy_is_refused():
    with pytest.raises(ConfigError, match="on_bad=ignore"):
        Problems("ignore")


def test_an_image_of_another_size_than_annotated_is_refused(tmp_path):
    pixels = write_picture(tmp_path / "a.png", height=6, width=9)
    good = ImageRecord(str(tmp_path / "a.png"), "a", 6, 9)
    assert torch.equal(good.image(), torch.from_numpy(pixels).permute(2, 0, 1))
    with pytest.raises(UserError, match=r"a\.png is 9x6 pixels but annotated as 6x9"):
        ImageRecord(str(tmp_path / "a.png"), "a", 9, 6).image()
    with pytest.raises(BrokenImage, match=r"b\.png"):
        ImageRecord(str(tmp_path / "b.png"), "b", 6, 9).image()


def test_a_photograph_that_is_annotated_as_stored_is_refused(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    file = tmp_path / "a.jpg"
    Image.fromarray(np.zeros((6, 9, 3), dtype=np.uint8)).save(file, exif=exif)
    assert ImageRecord(str(file), "a", 9, 6).image().shape == (3, 9, 6)
    with pytest.raises(
        UserError, match=r"a\.jpg is stored as 9x6 .* EXIF turns it to 6x9"
    ) as caught:
        ImageRecord(str(file), "a", 6, 9).image()
    assert "annotated as stored" in str(caught.value) and "\n" not in str(caught.value)


def test_a_data_set_is_read_at_one_depth(tmp_path, log_lines):
    Image.fromarray(np.array([[0, 4095]], dtype=np.uint16)).save(tmp_path / "a.png")
    Image.fromarray(np.array([[0, 4095]], dtype=np.int32)).save(tmp_path / "b.tif")
    deep = DetectionDataset("deep", ["x"], [ImageRecord(str(tmp_path / "a.png"), "a", 1, 2)])
    assert with_depth(deep, [0, 4095]).records[0].image()[0].tolist() == [[0, 255]]
    assert not log_lines
    assert with_depth(deep, "auto").records[0].image().max() == 15
    assert "deep: " in log_lines[0] and "depth=[0,4095]" in log_lines[0]
    deep.records.append(ImageRecord(str(tmp_path / "b.tif"), "b", 1, 2))
    with pytest.raises(UnknownRange, match=r"b\.tif"):
        with_depth(deep, "auto")
    with pytest.raises(ConfigError, match="depth=12 bits"):
        with_depth(deep, "12 bits")


def test_names_stay_inside_their_folder(tmp_path):
    assert inside(tmp_path, "a/b.jpg", "x") == tmp_path / "a/b.jpg"
    for name in ("../b.jpg", "a/../../b.jpg", "/etc/passwd"):
        with pytest.raises(UserError, match=r"set\.json: .* leads out of"):
            inside(tmp_path, name, "set.json")


def test_a_missing_folder_names_its_key(tmp_path):
    with pytest.raises(UserError, match=r"none is not a folder; .* detection\.root=PATH"):
        existing_folder(tmp_path / "none", "detection.root")
