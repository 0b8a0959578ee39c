"""Files that are cut short are found by their ends."""

import numpy as np
import pytest
from PIL import Image

from tests.visrep.data.pictures import write_picture
from visrep.data import endings
from visrep.data.endings import examine
from visrep.data.images import BrokenImage

SUFFIXES = (".jpg", ".png", ".webp", ".bmp", ".tif", ".ppm")


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("keep", [0.5, 0.97])
def test_a_file_that_is_cut_short(tmp_path, suffix, keep):
    path = tmp_path / f"a{suffix}"
    write_picture(path, height=60, width=80)
    assert examine(path) == (60, 80)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * keep)])
    with pytest.raises(BrokenImage, match=f"a{suffix}"):
        examine(path)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_a_whole_file_is_not_decoded(tmp_path, monkeypatch, suffix):
    path = tmp_path / f"a{suffix}"
    write_picture(path, height=60, width=80)
    monkeypatch.setattr(endings, "read_image", lambda *a, **k: pytest.fail("decoded"))
    assert examine(path) == (60, 80)
    path.write_bytes(path.read_bytes() + bytes(20))
    assert examine(path) == (60, 80), "padding after the end"


def test_a_jpeg_with_something_behind_its_end_is_whole(tmp_path):
    path = tmp_path / "a.jpg"
    write_picture(path, height=60, width=80)
    path.write_bytes(path.read_bytes() + b"a film behind it" * 10)
    assert examine(path) == (60, 80)


def test_the_size_is_that_of_the_pixels_that_are_read(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    pixels = np.zeros((60, 80, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.jpg", exif=exif)
    assert examine(tmp_path / "a.jpg") == (80, 60)


def test_what_is_no_image(tmp_path):
    (tmp_path / "a.jpg").write_bytes(b"")
    for name in ("a.jpg", "gone.jpg"):
        with pytest.raises(BrokenImage, match=name):
            examine(tmp_path / name)
