"""Batches of images and classes of pixels: both are cut and turned alike."""

import pytest
import torch

from tests.transfer.detection.shapes import small_recipe
from tests.visrep.data.semantic.layouts import own
from visrep.data.semantic.folder import read_folder
from visrep.data.semantic.readiness import labels_of
from visrep.transfer.detection.label_batches import LabelBatches, cut, resize, size_of

FCN = {
    "outputs": "semantic",
    "head": "fcn",
    "train_sizes": [],
    "scales": [0.5, 2.0],
    "crop": 24,
    "test_size": 0,
    "fcn_width": 16,
}


@pytest.fixture
def data(tmp_path):
    return read_folder(own(tmp_path), "train")


def taken(batches, start, count=3):
    stream = batches.iterate(start)
    return [next(stream) for _ in range(count)]


def test_batches_follow_from_their_number(data):
    recipe = small_recipe(**FCN)
    batches = LabelBatches(data, recipe=recipe, seed=3)
    whole, later = taken(batches, 0, 4), taken(LabelBatches(data, recipe=recipe, seed=3), 2, 2)
    for a, b in zip(whole[2:], later, strict=True):
        for x, y in zip(a["images"], b["images"], strict=True):
            assert torch.equal(x, y)
    sizes = {tuple(image.shape) for batch in whole for image in batch["images"]}
    assert all(h <= 24 and w <= 24 for _, h, w in sizes)
    other = taken(LabelBatches(data, recipe=recipe, seed=4), 0, 4)
    assert any(
        a.shape != b.shape or not torch.equal(a, b)
        for x, y in zip(whole, other, strict=True)
        for a, b in zip(x["images"], y["images"], strict=True)
    )


def test_pixels_keep_their_classes(data):
    """The colours of these images follow their classes, wherever they are cut and turned."""
    batches = LabelBatches(data, recipe=small_recipe(**FCN), seed=0)
    right = total = 0
    for batch in taken(batches, 0, 8):
        for image, target in zip(batch["images"], batch["targets"], strict=True):
            classes = target["classes"]
            assert image.shape[1:] == classes.shape and classes.dtype == torch.uint8
            known = classes != 255
            # Red is 53 times the class, with noise, and mixed where two classes meet.
            named = (image[0].float() / 53).round().clamp(0, 2)
            right += int((named[known] == classes[known]).sum())
            total += int(known.sum())
    assert right > 0.85 * total


def test_sizes_are_drawn_from_scales_or_from_short_sides(data):
    record = data.records[0]  # 40 x 49
    scaled = small_recipe(**FCN)
    assert [size_of(record, scaled, draw) for draw in (0.0, 1 / 3)] == [(20, 25), (40, 49)]
    listed = small_recipe(outputs="semantic", train_sizes=[20, 80], max_size=98)
    assert [size_of(record, listed, draw) for draw in (0.2, 0.7)] == [(20, 25), (80, 98)]


def test_labels_are_resized_without_new_classes(data):
    record = data.records[0]
    labels = labels_of(record)
    image, resized = resize(record.image(), labels, (61, 80))
    assert image.shape == (3, 61, 80) and resized.shape == (61, 80)
    assert set(resized.unique().tolist()) <= set(labels.unique().tolist())
    assert torch.equal(resize(record.image(), labels, (40, 49))[1], labels)


def test_a_cut_reaches_every_place():
    row = torch.arange(6).expand(6, 6)
    corners = {tuple(cut(row, 4, y, x)[0].tolist()) for y in (0, 0.99) for x in (0, 0.5, 0.99)}
    assert corners == {(0, 1, 2, 3), (1, 2, 3, 4), (2, 3, 4, 5)}
    assert torch.equal(cut(row, 9, 0.7, 0.7), row)


def test_a_broken_label_image_gives_way_to_the_next(data, tmp_path):
    from visrep.data.images import BrokenImages

    data.broken = BrokenImages(0.3, 4)
    path = tmp_path / "labels/train/002.png"
    path.write_bytes(path.read_bytes()[:40])
    batches = LabelBatches(data, recipe=small_recipe(**FCN), seed=0)
    assert all(len(batch["images"]) == 2 for batch in taken(batches, 0, 6))
    assert list(data.broken.files) == [str(path)]
