"""Decoding: what comes out, what is refused, and the count of broken images."""

import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from tests.visrep.data.pictures import png_of_16_bits, tiff, write_odd_pictures, write_picture
from visrep.data.images import (
    BrokenImage,
    BrokenImages,
    UnknownRange,
    check_range,
    image_size,
    is_image_name,
    lies_on_its_side,
    read_image,
)
from visrep.errors import ConfigError, UserError


def test_an_image_is_decoded_exactly(tmp_path):
    pixels = write_picture(tmp_path / "a.png", height=5, width=7)
    image = read_image(tmp_path / "a.png")
    assert image.dtype == torch.uint8 and image.is_contiguous()
    assert torch.equal(image, torch.from_numpy(pixels).permute(2, 0, 1))
    assert image_size(tmp_path / "a.png") == (5, 7)


@pytest.mark.parametrize("suffix", ["jpg", "png", "ppm", "bmp", "tif", "webp"])
def test_every_format_is_read(tmp_path, suffix):
    pixels = np.full((9, 6, 3), (200, 100, 50), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / f"a.{suffix}")
    image = read_image(tmp_path / f"a.{suffix}")
    assert image.shape == (3, 9, 6)
    assert (image.float().mean(dim=(1, 2)) - torch.tensor([200.0, 100, 50])).abs().max() < 3


def test_other_pixel_types_become_rgb(tmp_path):
    grey = np.arange(12, dtype=np.uint8).reshape(3, 4)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    assert torch.equal(read_image(tmp_path / "grey.png"), torch.from_numpy(grey).expand(3, -1, -1))

    deep = (grey.astype(np.uint16) << 8) + 7
    Image.fromarray(deep).save(tmp_path / "deep.png")
    assert torch.equal(read_image(tmp_path / "deep.png"), torch.from_numpy(grey).expand(3, -1, -1))

    clear = np.dstack([grey, grey, grey, grey])
    Image.fromarray(clear, "RGBA").save(tmp_path / "clear.png")
    assert torch.equal(read_image(tmp_path / "clear.png")[0], torch.from_numpy(grey))

    palette = Image.fromarray(clear[..., :3]).quantize(16)
    palette.save(tmp_path / "palette.png", transparency=0)
    assert torch.equal(read_image(tmp_path / "palette.png")[1], torch.from_numpy(grey))


def test_odd_pictures_are_read_in_the_size_that_is_stated(tmp_path):
    sizes = {"one_pixel.png": (1, 1), "strip.png": (2, 600), "tall.bmp": (600, 2)}
    sizes["rotated.jpg"] = (36, 24)
    for name in write_odd_pictures(tmp_path):
        image = read_image(tmp_path / name)
        assert image.dtype == torch.uint8 and image.is_contiguous() and is_image_name(name)
        assert image.shape == (3, *sizes.get(name, (24, 36)))
        assert image_size(tmp_path / name) == image.shape[1:]
        assert image.max() > 0


def test_a_photograph_is_turned_as_its_exif_says(tmp_path):
    pixels = np.zeros((8, 16, 3), dtype=np.uint8)
    pixels[:, :8] = 200  # bright on the left as it is stored, at the top as it is shown
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels).save(tmp_path / "a.png", exif=exif)
    image = read_image(tmp_path / "a.png")
    assert image.shape == (3, 16, 8) and image_size(tmp_path / "a.png") == (16, 8)
    assert image[:, :8].min() == 200 and image[:, 8:].max() == 0
    assert lies_on_its_side(tmp_path / "a.png")
    write_picture(tmp_path / "b.png")
    assert not lies_on_its_side(tmp_path / "b.png")


def test_the_content_counts_and_not_the_suffix(tmp_path):
    picture = Image.fromarray(np.full((8, 8, 3), 90, dtype=np.uint8))
    for kind in ("GIF", "TIFF", "PNG", "BMP"):
        picture.save(tmp_path / "a.jpg", format=kind)
        assert read_image(tmp_path / "a.jpg").unique().tolist() == [90]


def test_hidden_files_are_no_images():
    assert is_image_name("a.JPG") and is_image_name("a.Jpg") and is_image_name("b.tiff")
    assert not any(map(is_image_name, ("._a.jpg", ".a.png", ".DS_Store", "a.txt", "jpg")))


def test_12_bits_in_16_are_read_with_their_range(tmp_path):
    grey = np.array([[0, 2048, 4095]], dtype=np.uint16)
    Image.fromarray(grey).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes(png_of_16_bits(np.dstack([grey] * 3)))
    for name in ("a.png", "b.png"):
        assert read_image(tmp_path / name)[1].tolist() == [[0, 8, 15]]
        assert read_image(tmp_path / name, depth=(0, 4095))[1].tolist() == [[0, 128, 255]]
        assert read_image(tmp_path / name, depth="per_image")[1].tolist() == [[0, 128, 255]]


@pytest.mark.parametrize(
    ("kind", "said"),
    [("int16", "signed or 32-bit"), ("int32", "signed or 32-bit"), ("float32", "floating-point")],
)
def test_numbers_without_a_range_need_one(tmp_path, kind, said):
    path = tmp_path / "ct.tif"
    path.write_bytes(tiff(np.array([[-1000, 0, 1000]], dtype=kind)))
    with pytest.raises(UnknownRange) as caught:
        read_image(path)
    message = str(caught.value)
    assert message.startswith(f"cannot read image {path}: its pixels are {said}")
    assert "from -1000 to 1000, and need depth=; say" in message and "depth=[LOW,HIGH]" in message
    assert "\n" not in message and str(pickle.loads(pickle.dumps(caught.value))) == message
    assert read_image(path, depth=(-1000, 1000))[0].tolist() == [[0, 128, 255]]


def write_grey(folder, values, count=20):
    folder.mkdir()
    for i in range(count):
        Image.fromarray(values).save(folder / f"{i:02d}.png")
    return sorted(folder.iterdir())


def test_images_that_would_be_black_are_said_to_be(tmp_path, log_lines):
    noise = np.random.default_rng(0).random((8, 8))
    dark = write_grey(tmp_path / "dark", (noise * 4095).astype(np.uint16))
    check_range(dark, depth="auto", name="dark")
    (line,) = log_lines
    assert "dark: each of " in line and "lowest eighth" in line and "depth=[0,4095]" in line
    check_range(dark, depth=(0, 4095), name="dark")
    check_range(dark, depth="per_image", name="dark")
    check_range(
        write_grey(tmp_path / "full", (noise * 65535).astype(np.uint16)), depth="auto", name=""
    )
    check_range([], depth="auto", name="")
    assert len(log_lines) == 1
    levels = write_grey(tmp_path / "levels", (noise * 10).astype(np.uint8))
    check_range(levels, depth="auto", name="levels")
    assert "depth=[0,15]" in log_lines[1]
    check_range(dark, depth=(0, 60000), name="dark")
    check_range(dark, depth=(-5000, -1), name="dark")
    assert "lowest eighth of [0, 60000]" in log_lines[2] and "is above [-5000, -1]" in log_lines[3]


def test_a_few_bright_images_are_enough(tmp_path, log_lines):
    files = write_grey(tmp_path / "night", np.full((4, 4), 3, dtype=np.uint8))
    Image.fromarray(np.full((4, 4), 250, dtype=np.uint8)).save(files[0])
    check_range(files, depth="auto", name="night")
    assert not log_lines


def test_a_range_that_is_needed_is_said_at_once_and_broken_files_later(tmp_path):
    (tmp_path / "0.png").write_text("no image")
    (tmp_path / "1.tif").write_bytes(tiff(np.zeros((2, 2), dtype=np.int32)))
    check_range([tmp_path / "0.png"], depth="auto", name="")
    many = [tmp_path / "0.png", *[tmp_path / "1.tif"] * 3] * 8
    with pytest.raises(UnknownRange, match=r"1\.tif"):
        check_range(many, depth="auto", name="")
    with pytest.raises(UnknownRange, match=r"1\.tif"):
        check_range([tmp_path / "0.png", tmp_path / "1.tif"], depth="auto", name="")


def test_a_phone_s_jpeg_of_several_pictures_is_read(tmp_path):
    one = Image.fromarray(np.full((8, 8, 3), 90, dtype=np.uint8))
    one.save(tmp_path / "phone.mpo", save_all=True, append_images=[one])
    (tmp_path / "phone.mpo").rename(tmp_path / "phone.jpg")
    assert read_image(tmp_path / "phone.jpg").shape == (3, 8, 8)


def damaged(folder, kind):
    path = folder / f"{kind}.png"
    write_picture(path, height=40, width=40)
    content = path.read_bytes()
    if kind == "cut":
        path.write_bytes(content[: len(content) // 2])
    elif kind == "header":
        path.write_bytes(content[:20])
    elif kind == "empty":
        path.write_bytes(b"")
    elif kind == "text":
        path.write_text("<html>not found</html>")
    elif kind == "postscript":
        path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n")
    elif kind == "missing":
        path.unlink()
    elif kind == "nan":
        path = folder / "nan.tif"
        Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32)).save(path)
    elif kind == "flipped":
        path.write_bytes(content[:60] + bytes(255 - b for b in content[60:90]) + content[90:])
    return path


KINDS = ["cut", "header", "empty", "text", "postscript", "missing", "nan", "flipped"]


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_image_is_one_line_with_its_name(tmp_path, kind):
    path = damaged(tmp_path, kind)
    with pytest.raises(BrokenImage) as caught:
        read_image(path)
    message = str(caught.value)
    assert isinstance(caught.value, UserError) and caught.value.exit_code == 1
    assert message.startswith(f"cannot read image {path}: ") and "\n" not in message
    assert message.endswith("; repair or remove the file")


def test_a_cut_jpeg_is_broken(tmp_path):
    path = tmp_path / "a.jpg"
    write_picture(path, height=64, width=64)
    path.write_bytes(path.read_bytes()[:-800])
    with pytest.raises(BrokenImage, match=r"a\.jpg"):
        read_image(path)


@pytest.mark.parametrize("share", [0.9, 0.4])
def test_an_absurd_size_is_refused(tmp_path, monkeypatch, share, recwarn):
    """Above the limit Pillow warns, above twice the limit it refuses: both are errors here."""
    write_picture(tmp_path / "huge.png", height=100, width=100)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", int(100 * 100 * share))
    for read in (read_image, image_size):
        with pytest.raises(BrokenImage, match=r"huge\.png: it has more pixels than the limit of"):
            read(tmp_path / "huge.png")
    assert not recwarn.list


def test_pillow_s_limit_is_on():
    assert Image.MAX_IMAGE_PIXELS is not None and Image.MAX_IMAGE_PIXELS < 2e8


def test_a_tiny_file_that_claims_an_absurd_size_is_refused(tmp_path):
    header = b"P6 60000 60000 255\n"
    (tmp_path / "bomb.ppm").write_bytes(header + b"\0" * 30)
    with pytest.raises(BrokenImage, match=r"bomb\.ppm: it has more pixels"):
        read_image(tmp_path / "bomb.ppm")


def test_a_broken_image_survives_pickling():
    error = pickle.loads(pickle.dumps(BrokenImage("x.jpg", "cut short")))
    assert (error.file, error.reason) == ("x.jpg", "cut short")
    assert str(error) == "cannot read image x.jpg: cut short; repair or remove the file"


def test_the_share_of_broken_images_ends_a_run(log_lines):
    broken = BrokenImages(0.001, 3000)
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        broken.record(name, "cut short")
    broken.record("b.jpg", "cut short")  # again in the next epoch
    assert len(broken.files) == 3 and len(log_lines) == 3
    assert "skipped image a.jpg: cut short (1 broken so far, 3 tolerated)" in log_lines
    with pytest.raises(UserError) as caught:
        broken.record("d.jpg", "empty")
    message = str(caught.value)
    assert message.startswith("4 of 3000 images cannot be read, more than the tolerated 0.1 %: ")
    assert "a.jpg (cut short)" in message and "d.jpg (empty)" in message and "\n" not in message


def test_many_broken_images_are_not_all_named():
    broken = BrokenImages(0.5, 20)
    with pytest.raises(UserError, match="f4.jpg.* and 6 more; repair"):
        for i in range(20):
            broken.record(f"f{i}.jpg")
    assert len(broken.files) == 11


def test_a_small_set_tolerates_none():
    with pytest.raises(UserError, match="1 of 999 images"):
        BrokenImages(0.001, 999).record("a.jpg")


@pytest.mark.parametrize("share", [-0.1, 1.0, 3])
def test_a_share_is_a_share(share):
    with pytest.raises(ConfigError, match="max_broken"):
        BrokenImages(share, 10)
