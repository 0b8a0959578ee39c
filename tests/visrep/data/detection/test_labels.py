"""Few labels of detection: drawn shares, lists, and what is said of them."""

import itertools
import logging
from collections import Counter

import pytest

from tests.visrep.data.semantic.layouts import own
from visrep.data.detection import (
    Box,
    DetectionDataset,
    ImageRecord,
    Keypoints,
    labels,
    trainable,
)
from visrep.data.semantic.folder import read_folder
from visrep.errors import ConfigError, UserError


def record(number, *categories, crowd=False, folder="a"):
    boxes = [Box(xyxy=(0.0, 0.0, 5.0, 5.0), category=c, crowd=crowd) for c in categories]
    return ImageRecord(f"/x/{folder}/{number:03d}.jpg", str(1000 + number), 9, 9, boxes)


def dataset(records, classes=("a", "b", "rare")):
    return DetectionDataset(name="cells/train", classes=list(classes), records=records)


@pytest.fixture
def cells():
    """100 images with objects, of which two have the rare class, and 20 without."""
    full = [
        record(i, 0, *([1] if i % 3 else []), *([2] if i in (40, 77) else [])) for i in range(100)
    ]
    return dataset([*full, *(record(i) for i in range(100, 120))])


def ids(kept):
    return [r.id for r in kept.records]


def test_a_smaller_share_is_part_of_a_larger_one_and_the_seed_chooses(cells):
    for draw in range(5):
        parts = [labels.labelled(cells, share, draw=draw) for share in (0.01, 0.05, 0.1, 0.29, 0.5)]
        assert [len(part.records) for part in parts] == [1, 5, 10, 29, 50]
        for small, large in itertools.pairwise(parts):
            assert set(ids(small)) < set(ids(large))
        assert all(part.boxes for part in parts[-1].records)
        order = [r.id for r in cells.records]
        assert sorted(ids(parts[-1]), key=order.index) == ids(parts[-1])
    one, two = (ids(labels.labelled(cells, 0.1, draw=draw)) for draw in (0, 1))
    assert one == ids(labels.labelled(cells, 0.1, draw=0)) != two
    assert labels.labelled(cells, 1.0, draw=0) is cells


def test_every_class_keeps_an_image_where_it_can(cells):
    for draw in range(20):
        kept = labels.labelled(cells, 0.03, draw=draw)
        assert {box.category for r in kept.records for box in r.boxes} == {0, 1, 2}


def test_beyond_the_cover_the_draw_is_even():
    """Each image is as likely as another where no class is rare."""
    even = dataset([record(i, 0) for i in range(20)])
    counts = Counter(
        name for draw in range(400) for name in ids(labels.labelled(even, 0.25, draw=draw))
    )
    assert len(counts) == 20 and min(counts.values()) > 60 and max(counts.values()) < 140


def test_of_keypoints_only_images_that_have_some_are_drawn(tmp_path):
    people = dataset([record(i, 0) for i in range(10)], classes=["person"])
    people.keypoints = Keypoints(
        names=("nose",), partners=(0,), skeleton=(), sigmas=(0.05,), sigmas_of="stated"
    )
    for i in (3, 7):
        people.records[i].boxes[0].keypoints = (1.0, 1.0, 2.0)
    for draw in range(10):
        kept = labels.labelled(people, 0.5, draw=draw)
        assert ids(kept) in (["1003"], ["1007"])
        assert trainable(kept, masks=False, keypoints=True) == kept.records
    assert labels.announce(people, kept, 0.5, draw=9)["share"] == 0.5
    with pytest.raises(UserError, match="of the 2 images of .* that have a labelled keypoint"):
        labels.labelled(people, 0.2, draw=0)
    (tmp_path / "list.txt").write_text("001\n")
    with pytest.raises(UserError, match="no object has a labelled keypoint"):
        labels.labelled(people, str(tmp_path / "list.txt"), draw=0)


def test_classes_of_pixels_are_counted_by_images(tmp_path, caplog):
    logging.getLogger("visrep").propagate = True
    pixels = read_folder(own(tmp_path), "train")
    with caplog.at_level(logging.INFO, logger="visrep"):
        about = labels.announce(pixels, labels.labelled(pixels, 0.5, draw=0), 0.5, draw=0)
    assert (about["label_images"], about["share"]) == (2, 0.5)
    assert "2 of 4 images of" in caplog.text
    assert "that have classes of pixels, images of each class: road " in caplog.text
    assert "box" not in caplog.text


def test_crowds_are_no_objects():
    crowds = dataset([record(0, 2, crowd=True), *(record(i, 0) for i in range(1, 11))])
    for draw in range(10):
        assert "1000" not in ids(labels.labelled(crowds, 0.5, draw=draw))


@pytest.mark.parametrize("share", [0, -0.1, 1.5, True, None, float("nan")])
def test_what_is_no_share_is_refused(cells, share):
    with pytest.raises(ConfigError, match=r"^labels=.*more than 0 and at most 1"):
        labels.labelled(cells, share, draw=0)


def test_a_share_of_less_than_an_image_is_refused(cells):
    with pytest.raises(UserError, match=r"labels=0.005 of the 100 images .* give 0.01 or more"):
        labels.labelled(cells, 0.005, draw=0)


def test_a_list_that_was_written_is_read(cells, tmp_path):
    kept = labels.labelled(cells, 0.1, draw=3)
    labels.write_list(tmp_path / "labels.txt", kept, among=cells)
    lines = (tmp_path / "labels.txt").read_text().splitlines()
    assert lines == [f"{int(r.id) - 1000:03d}.jpg" for r in kept.records]
    assert labels.labelled(cells, str(tmp_path / "labels.txt"), draw=9) == kept


def test_files_of_one_name_are_listed_by_id(tmp_path):
    twice = dataset([record(1, 0), record(2, 0), ImageRecord("/x/b/001.jpg", "b1", 9, 9, [])])
    labels.write_list(tmp_path / "all.txt", twice, among=twice)
    assert (tmp_path / "all.txt").read_text() == "1001\n002.jpg\nb1\n"
    assert labels.read_list(tmp_path / "all.txt", twice) == [0, 1, 2]


def test_lists_of_ids_and_of_one_class_are_read(cells, tmp_path):
    path = tmp_path / "list.txt"
    path.write_text("1005\n007\n\n1012  1\n013 -1\n014  0\n")
    assert labels.read_list(path, cells) == [5, 7, 12, 14]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("000.jpg\nx.jpg\n", r":2: x.jpg is not among the 120 images of cells/train"),
        ("000.jpg\n1000\n", r":2: 1000 is also on line 1"),
        ("x -1\n", r":1: x -1 is not among"),
        ("\n", r"has no names"),
        ("110.jpg\n", r"no image has a box"),
    ],
)
def test_a_list_that_does_not_fit_is_one_line(cells, tmp_path, text, message):
    (tmp_path / "list.txt").write_text(text)
    with pytest.raises(UserError, match=message):
        labels.labelled(cells, str(tmp_path / "list.txt"), draw=0)
    with pytest.raises(UserError, match="cannot read list"):
        labels.labelled(cells, str(tmp_path / "none.txt"), draw=0)


def test_what_is_left_is_said_and_recorded(cells, tmp_path, caplog):
    logging.getLogger("visrep").propagate = True
    kept = labels.labelled(cells, 0.05, draw=2)
    boxes = sum(len(r.boxes) for r in kept.records)
    with caplog.at_level(logging.INFO, logger="visrep"):
        about = labels.announce(cells, kept, 0.05, draw=2)
    assert about == {
        "labels": 0.05,
        "share": 0.05,
        "draw": 2,
        "label_images": 5,
        "label_boxes": boxes,
    }
    assert (
        f"labels=0.05: 5 of 100 images of cells/train that have an object, {boxes}" in caplog.text
    )
    assert "warning" not in caplog.text
    assert labels.announce(cells, cells, 1.0, draw=2) == {}
    (tmp_path / "list.txt").write_text("000\n003\n")
    path = str(tmp_path / "list.txt")
    with caplog.at_level(logging.INFO, logger="visrep"):
        about = labels.announce(cells, labels.labelled(cells, path, draw=0), path, draw=0)
    assert about["list_list"] == "list.txt" and about["share"] == 0.02 and "draw" not in about
    assert "leaves nothing of b, rare, of 3 classes" in caplog.text
