"""`visrep doctor detection=...`: what a detector would meet, and exit code 3 for the bad."""

import json
from pathlib import Path

import pytest

from tests.visrep.data.pictures import (
    coco_content,
    voc_object,
    write_coco,
    write_picture,
    write_voc,
)
from visrep import config
from visrep.errors import CheckFailed, ConfigError
from visrep.tools import doctor

CAT = voc_object("cat", 2, 2, 20, 20)
DOG = voc_object("dog", 2, 2, 48, 38, more="<difficult>1</difficult>")


def ask(root: Path, *overrides: str, kind: str = "voc") -> None:
    given = (f"detection={kind}", f"detection.root={root}", *overrides)
    doctor.main(config.compose("doctor", given)[0])


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_voc(tmp_path, {"a": CAT + DOG, "b": CAT, "e": ""}, split="trainval")
    write_voc(tmp_path, {"c": CAT, "d": DOG}, split="test")
    for seed, path in enumerate(sorted(tmp_path.glob("JPEGImages/*"))):
        write_picture(path, height=40, width=50, seed=seed)
    return tmp_path


def test_good_data_pass_with_counts_by_class_and_size(root: Path, capsys) -> None:
    ask(root)
    said = capsys.readouterr().out
    assert f"train: {root.name}/trainval, 3 images, 3 boxes" in said
    rows = [line.split() for line in said.splitlines()]
    assert ["class", "boxes", "small", "medium", "large"] in rows
    assert ["cat", "2", "2", "0", "0"] in rows and ["dog", "1", "0", "1", "0"] in rows
    assert "of these: 1 difficult, 1 images without a box" in said
    assert "40 x 50 px (height x width), all of them" in said
    assert said.endswith("Nothing here would make a training wrong.\n")


def test_what_is_only_to_be_known_is_told(root: Path, capsys) -> None:
    bad = voc_object("cat", 9, 9, 5, 5)
    write_voc(root, {"a": CAT + CAT + DOG + bad, "b": CAT, "e": ""}, split="trainval")
    first, second = root / "JPEGImages/a.jpg", root / "JPEGImages/b.jpg"
    second.write_bytes(first.read_bytes())
    for seed, name in enumerate("cde"):
        write_picture(root / f"JPEGImages/{name}.jpg", height=40, width=50, seed=seed + 5)
    ask(root, "detection.classes=[cat]")
    said = capsys.readouterr().out
    assert "boxes of other classes, ignored: dog 1" in said and "1 there twice" in said
    assert "1 faulty boxes or masks:" in said and "a.xml: object 4 (cat)" in said
    assert f"twice in it: 1 images: {second} is {first}" in said


def test_too_many_broken_images(root: Path, capsys) -> None:
    path = root / "JPEGImages/d.jpg"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(CheckFailed, match=r"/test: 1 of 2 images .*d\.jpg \("):
        ask(root)
    ask(root, "max_broken=0.5")
    assert "broken: 1 of 2 images (50 %) cannot be read" in capsys.readouterr().out


def test_images_in_both_parts_and_of_another_size(root: Path) -> None:
    (root / "ImageSets/Main/test.txt").write_text("a\nd\n")
    write_picture(root / "JPEGImages/d.jpg", height=30, width=50)
    with pytest.raises(CheckFailed) as caught:
        ask(root)
    assert "1 of 2 test images" in str(caught.value)
    assert "d.jpg is 50x30 pixels but annotated as 50x40" in str(caught.value)


def test_classes_that_do_not_fit(root: Path) -> None:
    write_voc(root, {"c": voc_object("Cat", 2, 2, 9, 9)}, split="test")
    with pytest.raises(CheckFailed) as caught:
        ask(root)
    assert "Cat and cat are probably one class" in str(caught.value)
    assert "Cat (1 boxes) (perhaps cat)" in str(caught.value)


def test_a_part_that_cannot_be_read_or_is_not_there(root: Path, capsys) -> None:
    (root / "Annotations/d.xml").write_text("no xml")
    with pytest.raises(CheckFailed, match=r"d\.xml is no readable XML"):
        ask(root)
    assert "test: cannot be opened" in capsys.readouterr().out
    with pytest.raises(ConfigError, match=r"detection\.root"):
        doctor.main(config.compose("doctor", ["detection=voc"])[0])
    with pytest.raises(ConfigError, match="one of data= and detection="):
        ask(root, "data=imagefolder")


def test_coco_with_crowds_areas_and_masks(tmp_path: Path, capsys) -> None:
    content = coco_content()
    content["annotations"][0]["area"] = 10_000
    content["annotations"][2]["segmentation"] = [[10, 10, 15, 10, 15, 15]]
    path = write_coco(tmp_path, content)
    other = {**content, "images": [{**content["images"][1], "file_name": "c.png"}]}
    other["annotations"] = content["annotations"][2:]
    write_picture(tmp_path / "c.png", height=40, width=50, seed=7)
    (tmp_path / "test.json").write_text(json.dumps(other))
    settings = [
        f"detection.{part}.{key}={value}"
        for part, file in (("train", path), ("test", tmp_path / "test.json"))
        for key, value in (("annotations", file), ("image_root", tmp_path))
    ]
    ask(tmp_path, *settings, kind="coco")
    said = capsys.readouterr().out
    rows = [line.split() for line in said.splitlines()]
    assert ["cat", "2", "2", "0", "0"] in rows and ["dog", "1", "0", "0", "1"] in rows
    assert "of these: 1 crowds, 1 with a mask" in said
