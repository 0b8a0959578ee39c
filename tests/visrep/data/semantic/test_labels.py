"""Label images: ids of any kind of file, the classes they stand for, and what is refused."""

import numpy as np
import pytest
import torch
from PIL import Image
from pycocotools import mask as rle

from tests.visrep.data.semantic.layouts import write_labels
from visrep.data.images import BrokenImage
from visrep.data.semantic.labels import DrawnLabels, LabelImage, coding_of, write_classes
from visrep.errors import ConfigError, UserError

IDS = np.array([[0, 1, 2], [2, 255, 1]], dtype=np.uint8)
NAMES = {0: "sky", 1: "road", 2: "car"}


def coding(chosen=None, **more):
    return coding_of(NAMES, chosen, where="the test", **more)


def read(path, code=None, size=(2, 3)):
    return LabelImage(str(path), code or coding()[1]).read(*size)


@pytest.mark.parametrize("kind", ["grey", "palette", "16 bits", "4 bits", "tiff"])
def test_numbers_are_read_as_they_are_in_the_file(tmp_path, kind):
    path = tmp_path / ("x.tif" if kind == "tiff" else "x.png")
    ids = IDS.copy()
    if kind == "palette":
        write_labels(path, ids, palette=True)
    elif kind == "16 bits":
        Image.fromarray(ids.astype(np.uint16)).save(path)
    elif kind == "4 bits":
        ids[1, 1] = 0
        png_of_4_bits(path, ids)
    else:
        Image.fromarray(ids).save(path)
    assert torch.equal(read(path), torch.from_numpy(ids))


def test_negative_numbers_are_unknown(tmp_path):
    Image.fromarray(np.array([[0, -1, -256]], dtype=np.int32)).save(tmp_path / "x.tif")
    with pytest.raises(UserError, match=r"unknown ids -256 \(1 pixels\), -1 \(1 pixels\)"):
        read(tmp_path / "x.tif", size=(1, 3))


def png_of_4_bits(path, ids):
    """A grey PNG with two pixels in a byte, which Pillow does not write."""
    import struct
    import zlib

    def chunk(kind, content):
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    rows = b"".join(
        b"\0" + bytes((a << 4) | b for a, b in zip(row[::2], [*row[1::2], 0], strict=True))
        for row in ids.tolist()
    )
    head = struct.pack(">IIBBBBB", ids.shape[1], ids.shape[0], 4, 0, 0, 0, 0)
    parts = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + parts)


def test_some_classes_in_another_order_and_the_rest_is_ignored(tmp_path):
    write_labels(tmp_path / "x.png", IDS)
    classes, chosen = coding(["car", "sky"])
    assert classes == ["car", "sky"]
    assert read(tmp_path / "x.png", chosen).tolist() == [[1, 255, 0], [0, 255, 255]]


def test_void_ids_are_ignored_and_unknown_ones_named(tmp_path):
    ids = IDS.copy()
    ids[0, 0], ids[0, 1] = 7, 9
    write_labels(tmp_path / "x.png", ids)
    assert read(tmp_path / "x.png", coding(void=[7, 9])[1])[0].tolist() == [255, 255, 2]
    with pytest.raises(UserError, match=r"x\.png has unknown ids 7 \(1 pixels\), 9 \(1 pixels\); "):
        read(tmp_path / "x.png")
    with pytest.raises(UserError, match=r"known are 0 to 2, and 255 for no class \(the test\)"):
        read(tmp_path / "x.png")


def test_what_is_no_label_image_is_one_line(tmp_path):
    path = tmp_path / "x.png"
    Image.fromarray(np.zeros((2, 3, 3), dtype=np.uint8)).save(path)
    for look in (LabelImage.read, LabelImage.check):
        with pytest.raises(UserError, match=r"x\.png is in colours"):
            look(LabelImage(str(path), coding()[1]), 2, 3)
    write_labels(path, IDS)
    for look in (LabelImage.read, LabelImage.check):
        with pytest.raises(UserError, match=r"x\.png is 3x2 pixels and its image 4x2"):
            look(LabelImage(str(path), coding()[1]), 2, 4)
    path.write_bytes(b"no image")
    for look in (LabelImage.read, LabelImage.check):
        with pytest.raises(BrokenImage, match=r"x\.png"):
            look(LabelImage(str(path), coding()[1]), 2, 3)


def test_choices_that_make_no_sense_are_refused():
    with pytest.raises(ConfigError, match="detection.classes is empty"):
        coding([])
    with pytest.raises(ConfigError, match="has no class rod"):
        coding(["sky", "rod"])
    with pytest.raises(ConfigError, match="at most 255"):
        coding_of({i: f"c{i}" for i in range(300)}, None, where="x")


def test_masks_are_drawn_in_order_and_crowds_only_beside_them():
    first, second, crowd = (np.zeros((2, 4), dtype=np.uint8) for _ in range(3))
    first[:, :2], second[:, 1:3], crowd[0] = 1, 1, 1
    codes = [
        (rle.encode(np.asfortranarray(mask)), number)
        for mask, number in ((first, 1), (second, 2), (crowd, 255))
    ]
    assert DrawnLabels(codes).read(2, 4).tolist() == [[1, 2, 2, 255], [1, 2, 2, 0]]


def test_what_is_written_is_read_again(tmp_path):
    classes = torch.tensor([[0, 2], [1, 1]], dtype=torch.uint8)
    write_classes(tmp_path / "a/x.png", classes)
    assert torch.equal(read(tmp_path / "a/x.png", size=(2, 2)), classes)


def test_a_change_of_coding_is_a_change_of_content(tmp_path):
    write_labels(tmp_path / "x.png", IDS)
    all_, some = (
        LabelImage(str(tmp_path / "x.png"), coding(chosen)[1]).content()
        for chosen in (None, ["sky"])
    )
    assert all_ != some and "x.png" not in all_
