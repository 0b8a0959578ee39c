"""Equal images are found by their content, whatever they are called."""

import os
from pathlib import Path

import pytest
import torch

from visrep.data import overlap as module
from visrep.data.dataset import ImageFiles, MemoryImages
from visrep.data.overlap import Twin, duplicates, overlap, overlap_line, same_files


def files(root: Path, contents: dict[str, bytes]) -> ImageFiles:
    for name, content in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)
    return ImageFiles(name=root.name, root=root, files=list(contents))


def memory(name: str, values: list[int]) -> MemoryImages:
    images = torch.tensor(values, dtype=torch.uint8)[:, None, None, None].expand(-1, 3, 2, 2)
    return MemoryImages(name=name, images=images.contiguous())


def test_files_of_equal_content_under_other_names_are_twins(tmp_path: Path) -> None:
    train = files(
        tmp_path / "train", {"a/1": b"red", "a/2": b"tan", "b/3": b"blue!", "b/4": b"red"}
    )
    test = files(tmp_path / "test", {"x": b"tan", "y": b"red", "z": b"old", "w": b"a longer one"})
    assert overlap(train, test) == [Twin("a/2", "x"), Twin("a/1", "y")]
    assert duplicates(train) == [Twin("a/1", "b/4")] and duplicates(test) == []


def test_equal_beginnings_are_not_enough(tmp_path: Path) -> None:
    begin = bytes(module.HEAD)
    train = files(tmp_path / "train", {"a": begin + b"1"})
    test = files(tmp_path / "test", {"b": begin + b"2", "c": begin + b"1"})
    assert overlap(train, test) == [Twin("a", "c")]


def test_no_file_is_opened_whose_length_is_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = files(tmp_path / "train", {"a": b"1", "b": b"22", "c": b"333"})
    test = files(tmp_path / "test", {"d": b"xx", "e": b"4444"})
    opened = []

    def watched(path: Path, *rest: str) -> object:
        opened.append(Path(path).name)
        return open(path, *rest)

    monkeypatch.setattr(module, "open", watched, raising=False)
    assert overlap(train, test) == []
    assert opened == ["b", "d"]


def test_two_names_of_one_file_are_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    train = files(tmp_path / "train", {"a": b"one"})
    (tmp_path / "train" / "b").symlink_to("a")
    os.link(tmp_path / "train" / "a", tmp_path / "train" / "c")

    def refuse(*_: object) -> object:
        raise AssertionError("read")

    monkeypatch.setattr(module, "open", refuse, raising=False)
    test = ImageFiles(name="t", root=tmp_path / "train", files=["b", "c"])
    assert overlap(train, test) == [Twin("a", "b"), Twin("a", "c")]


def test_missing_and_empty_files_are_no_twins(tmp_path: Path) -> None:
    train = {"a": tmp_path / "none", "b": tmp_path / "empty"}
    (tmp_path / "empty").touch()
    (tmp_path / "empty2").touch()
    assert same_files(train, {"c": tmp_path / "none", "d": tmp_path / "empty2"}) == []


def test_images_in_memory_are_compared_by_their_pixels() -> None:
    train, test = memory("d/train", [1, 2, 3, 2]), memory("d/test", [2, 9])
    assert overlap(train, test) == [Twin("train/00001", "test/00000")]
    assert duplicates(train) == [Twin("train/00001", "train/00003")]
    larger = MemoryImages(name="l", images=torch.zeros(1, 3, 4, 4, dtype=torch.uint8))
    assert overlap(train, larger) == []


def test_a_set_that_does_not_say_where_its_files_are_is_compared_as_a_whole() -> None:
    class Strange(ImageFiles):
        root = None

        def __init__(self, fingerprint: str) -> None:
            self._files, self.name = ["a", "b"], "strange"
            self.fingerprint = fingerprint

    assert overlap(Strange("x"), Strange("y")) == []
    assert overlap(Strange("x"), Strange("x")) == [Twin("a", "a"), Twin("b", "b")]
    assert duplicates(Strange("x")) == []


def test_of_very_many_files_an_even_part_is_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    contents = {f"{i}": bytes([65]) * (i + 1) for i in range(10)}
    train, test = files(tmp_path / "train", contents), files(tmp_path / "test", contents)
    monkeypatch.setattr(module, "MOST_FILES", 10)
    assert len(overlap(train, test)) == 5


def test_the_line_names_the_first_and_counts_the_others() -> None:
    line = overlap_line([Twin("a", "b"), Twin("c", "c")], train="d/train", test="d/val", images=2)
    assert line.startswith("all 2 test images of d/val are also training images of d/train")
    assert "b is a, c)" in line
    many = [Twin(f"t{i}", f"v{i}") for i in range(5)]
    line = overlap_line(many, train="d/train", test="d/val", images=9)
    assert line.startswith("5 of 9") and "v2 is t2 and 2 more" in line
