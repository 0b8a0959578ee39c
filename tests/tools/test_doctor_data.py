"""`visrep doctor data=...`: everything that a training would meet, and exit code 3 for the bad."""

import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.small_data import write_folder
from visrep import config
from visrep.errors import CheckFailed, ConfigError
from visrep.tools import doctor


def ask(root: Path, *overrides: str) -> None:
    given = ("data=imagefolder", f"data.root={root}", *overrides)
    doctor.main(config.compose("doctor", given)[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return write_folder(tmp_path / "d", train=30, test=9)


def one_of(folder: Path) -> Path:
    return min(folder.iterdir())


def test_good_data_pass_with_counts_and_sizes(root: Path, capsys) -> None:
    ask(root)
    said = capsys.readouterr().out
    assert "train: d/train, 30 images" in said and "test: d/test, 9 images" in said
    assert "3 classes, 10 to 10 images each, 10 in the median: blue 10, green 10, red 10" in said
    assert "16 x 16 px (height x width), all of them" in said
    assert "Nothing here would make a training wrong." in said


def test_what_is_only_to_be_known_is_told(root: Path, capsys) -> None:
    rng = np.random.default_rng(0)
    grey = rng.integers(0, 65535, (20, 24), dtype=np.uint16)
    Image.fromarray(grey).save(root / "train/red/deep.png")
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = Image.fromarray(rng.integers(0, 255, (20, 40, 3), dtype=np.uint8))
    picture.save(root / "train/red/turned.jpg", exif=exif)
    (root / "train/red/._a.png").write_bytes(b"x")
    (root / "train/notes.txt").write_text("x")
    again = one_of(root / "train/blue")
    (root / "train/red/again.png").write_bytes(again.read_bytes())
    ask(root)
    said = capsys.readouterr().out
    assert re.search(r"deep: 1 of 16 bits: red/deep\.png", said)
    assert "turned by EXIF, and read so: 1: red/turned.jpg" in said
    assert "1 hidden" in said and "1 .txt" in said
    assert f"twice in it: 1: red/again.png is blue/{again.name}" in said
    assert "of these in two classes: 1" in said
    assert "3 sizes; short side 16 to 20 px, 16 in the median; long side 16 to 40 px" in said


def test_too_many_broken_images(root: Path, capsys) -> None:
    path = one_of(root / "test/red")
    path.write_bytes(path.read_bytes()[:50])
    with pytest.raises(CheckFailed, match=rf"d/test: 1 of 9 images .*red/{path.name} \("):
        ask(root)
    ask(root, "max_broken=0.2")
    assert "broken: 1 of 9 images (11 %) cannot be read" in capsys.readouterr().out


def test_a_test_image_for_training(root: Path) -> None:
    copied = one_of(root / "train/red")
    (root / "test/red/x.png").write_bytes(copied.read_bytes())
    with pytest.raises(CheckFailed, match=rf"1 of 10 test images.*red/x\.png is red/{copied.name}"):
        ask(root)


def test_classes_of_one_part_only(root: Path) -> None:
    (root / "test/blue").rename(root / "test/Blue")
    with pytest.raises(CheckFailed) as caught:
        ask(root)
    assert "d/train lacks classes of d/test: Blue" in str(caught.value)
    assert "d/test lacks classes of d/train: blue" in str(caught.value)


def test_a_class_without_images(root: Path) -> None:
    (root / "train/violet").mkdir()
    with pytest.raises(CheckFailed, match="violet"):
        ask(root)


def test_a_class_of_broken_images_only(root: Path) -> None:
    for file in (root / "train/red").iterdir():
        file.write_bytes(b"x")
    with pytest.raises(CheckFailed, match=r"d/train has no image of red that can be read"):
        ask(root, "max_broken=0.5")


def test_what_is_wrong_with_both_parts_is_said_once(tmp_path: Path) -> None:
    with pytest.raises(CheckFailed) as caught:
        ask(tmp_path / "nowhere")
    assert str(caught.value).count("is not a folder") == 1


def test_a_list_that_leaves_a_class_without_images(root: Path, tmp_path: Path) -> None:
    names = [f"{p.parent.name}/{p.name}\n" for p in sorted((root / "train/red").iterdir())]
    (tmp_path / "list.txt").write_text("".join(names))
    with pytest.raises(CheckFailed, match="d/train has no image of blue, green"):
        ask(root, f"data.train.names={tmp_path / 'list.txt'}")


def test_images_in_memory_and_without_labels(capsys, root: Path) -> None:
    doctor.main(config.compose("doctor", ["data=folder", f"data.root={root / 'train/red'}"])[0])
    said = capsys.readouterr().out
    assert "train: red, 10 images" in said and "no labels" in said and "test: none" in said


def test_a_command_that_is_wrong_is_no_finding() -> None:
    with pytest.raises(ConfigError, match="data.root"):
        doctor.main(config.compose("doctor", ["data=imagefolder"])[0])
