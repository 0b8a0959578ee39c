"""The numbers that are in a file, and which way up they are."""

import os

import numpy as np
import pytest
from PIL import Image, ImageOps

from tests.visrep.data.pictures import png_of_16_bits, tiff
from visrep.data import decoding
from visrep.data.images import BrokenImage, read_image

KINDS_OF_NUMBERS = [("u2", 65535), ("i2", None), ("i4", None), ("f4", None)]
NOISE = np.random.default_rng(0)


def written(path, content):
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", ["jpg", "png", "webp", "tif"])
def test_exif_is_applied_as_pillow_does(tmp_path, suffix, orientation):
    path, exif = tmp_path / f"a.{suffix}", Image.Exif()
    exif[274] = orientation
    picture = Image.fromarray(NOISE.integers(0, 256, (6, 10, 3), dtype=np.uint8))
    picture.save(path, exif=exif)
    with Image.open(path) as stored:
        shown = np.asarray(ImageOps.exif_transpose(stored).convert("RGB"))
    values, full = decoding.decode(path, exact=False)
    assert np.array_equal(values, shown) and full == 255
    assert decoding.header(path) == (*shown.shape[:2], orientation)


def test_deep_pictures_are_turned_too(tmp_path):
    exif = Image.Exif()
    exif[274] = 8
    grey = NOISE.integers(0, 65536, (5, 7), dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png", exif=exif)
    values, _ = decoding.decode(tmp_path / "a.png", exact=True)
    assert np.array_equal(values, np.rot90(grey)) and decoding.header(tmp_path / "a.png")[0] == 7


def test_exif_behind_the_pixels_of_a_png_counts(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    colour = NOISE.integers(0, 65536, (5, 7, 3))
    content = png_of_16_bits(colour, exif=exif.tobytes().removeprefix(b"Exif\0\0"))
    path = written(tmp_path / "a.png", content)
    assert decoding.header(path) == (7, 5, 6)
    assert np.array_equal(decoding.decode(path, exact=True)[0], np.rot90(colour, -1))


@pytest.mark.parametrize("notes", [b"Exif\0\0MM\0*\0\0", b"Exif\0\0no exif at all", b"Exif\0\0"])
def test_damaged_exif_turns_nothing(tmp_path, notes):
    picture = Image.fromarray(NOISE.integers(0, 256, (6, 10, 3), dtype=np.uint8))
    picture.save(tmp_path / "a.jpg", exif=notes)
    assert decoding.header(tmp_path / "a.jpg") == (6, 10, 1)
    assert decoding.decode(tmp_path / "a.jpg", exact=False)[0].shape == (6, 10, 3)


@pytest.mark.parametrize("channels", [2, 3, 4])
def test_both_bytes_of_a_deep_png(tmp_path, channels):
    values = NOISE.integers(0, 65536, (5, 7, channels))
    path = written(tmp_path / "a.png", png_of_16_bits(values))
    seen = values[..., [0, 0, 0]] if channels == 2 else values[..., :3]
    exact, full = decoding.decode(path, exact=True)
    assert full == 65535 and np.array_equal(exact, seen)
    quick, full = decoding.decode(path, exact=False)
    assert full == 255 and np.array_equal(quick, seen >> 8)


@pytest.mark.parametrize(
    ("kind", "full", "order"),
    [
        ("u4", None, "<"),  # the other order is none that Pillow reads
        *((kind, full, o) for kind, full in KINDS_OF_NUMBERS for o in "<>"),
    ],
)
def test_every_number_of_a_grey_tiff(tmp_path, kind, full, order):
    values = (NOISE.random((5, 7)) * 60000 - (30000 if kind[0] in "if" else 0)).astype(kind)
    if kind == "u4":
        values += 2**31
    path = written(tmp_path / "a.tif", tiff(values, order=order))
    got, most = decoding.decode(path, exact=False)
    assert np.array_equal(got, values) and most == full


@pytest.mark.parametrize("order", ["<", ">"])
def test_both_bytes_of_a_deep_tiff(tmp_path, order):
    values = NOISE.integers(0, 65536, (5, 7, 3), dtype=np.uint16)
    path = written(tmp_path / "a.tif", tiff(values, order=order))
    assert np.array_equal(decoding.decode(path, exact=True)[0], values)
    assert np.array_equal(decoding.decode(path, exact=False)[0], values >> 8)


def test_a_tiff_of_12_bits_says_so(tmp_path):
    values = NOISE.integers(0, 4096, (4, 6), dtype=np.uint16)
    first, second = values.reshape(-1, 2).astype(int).T
    triples = np.stack([first >> 4, (first & 15) << 4 | second >> 8, second & 255], axis=1)
    packed = triples.astype(np.uint8).tobytes()
    path = written(tmp_path / "a.tif", tiff(values, bits=12, packed=packed))
    got, full = decoding.decode(path, exact=False)
    assert np.array_equal(got, values) and full == 4095


@pytest.mark.parametrize("most", [15, 255, 4095, 65535])
def test_a_pgm_s_header_says_what_is_white(tmp_path, most):
    values = NOISE.integers(0, most + 1, (5, 7))
    values[0, 0] = most
    pixels = values.astype("u1" if most < 256 else ">u2").tobytes()
    path = written(tmp_path / "a.pgm", b"P5 7 5 %d\n" % most + pixels)
    exact, full = decoding.decode(path, exact=True)
    grey = exact if exact.ndim == 2 else exact[..., 0]
    assert np.array_equal(grey, values)
    assert full == (most if exact.ndim == 2 or most < 255 else 255)
    quick, full = decoding.decode(path, exact=False)
    assert quick.max() == full


def test_numbers_that_are_none_are_an_error(tmp_path):
    path = written(tmp_path / "a.tif", tiff(np.array([[0, np.inf]], dtype=np.float32)))
    with pytest.raises(decoding.ERRORS) as caught:
        decoding.decode(path, exact=True)
    assert decoding.reason(caught.value) == "some of its pixels are no finite numbers"


def test_a_pipe_is_no_image_and_nobody_waits_for_it(tmp_path):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(BrokenImage, match="pipe"):
        read_image(tmp_path / "a.png")
