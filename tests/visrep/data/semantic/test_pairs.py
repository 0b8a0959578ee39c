"""Images and label images by their names."""

import numpy as np

from tests.visrep.data.semantic.layouts import write_image, write_labels
from visrep.data.semantic.labels import coding_of
from visrep.data.semantic.pairs import dataset_of, pairs_of


def test_pairs_go_by_name_whatever_the_suffix_and_broken_images_stay(tmp_path):
    ids = np.zeros((6, 8), dtype=np.uint8)
    for name in ("a/x", "y"):
        write_image(tmp_path / f"images/{name}.JPG", ids)
        write_labels(tmp_path / f"labels/{name}.png", ids)
    (tmp_path / "images/y.JPG").write_bytes(b"no image")
    pairs = pairs_of(["y", "a/x"], tmp_path / "images", tmp_path / "labels")
    assert [pair.image.name for pair in pairs] == ["y.JPG", "x.JPG"]
    classes, coding = coding_of({0: "all"}, None, where="x")
    data = dataset_of(pairs, name="n", classes=classes, coding=coding, depth="auto")
    assert [record.id for record in data.records] == ["y", "a/x"]
    assert data.records[0].broken and not data.records[1].broken
    assert (data.records[1].height, data.records[1].width) == (6, 8)
