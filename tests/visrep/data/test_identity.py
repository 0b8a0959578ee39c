"""What a run remembers of its data, and the words for what has changed."""

import os
from pathlib import Path

import torch

from visrep.data import identity
from visrep.data.dataset import ImageFiles, MemoryImages
from visrep.data.detection import Box, DetectionDataset, ImageRecord


def pictures(names="abcd", *, classes=("x", "y"), change=None, labels=None) -> MemoryImages:
    images = torch.stack([torch.full((3, 2, 2), ord(name), dtype=torch.uint8) for name in names])
    if change is not None:
        images[change, 0, 0, 0] += 1
    given = [i % 2 for i in range(len(names))] if labels is None else labels
    return MemoryImages(
        name="d", images=images, labels=torch.tensor(given), classes=classes, files=list(names)
    )


def changes(before, now) -> list[str]:
    return identity.changes(identity.of_images(before), identity.of_images(now))


def test_the_same_content_is_the_same() -> None:
    assert changes(pictures(), pictures()) == []


def test_each_change_is_said() -> None:
    assert changes(pictures(), pictures(classes=("x", "z"))) == ["class renamed: y -> z"]
    assert changes(pictures(), pictures(classes=("x", "y", "z"))) == ["classes more: z"]
    assert changes(pictures(), pictures(classes=("y", "x"))) == ["classes in another order"]
    assert changes(pictures(), pictures("abc")) == ["1 image fewer (d)"]
    assert changes(pictures(), pictures("abcdefgh")) == ["4 images more (e, f, g, ...)"]
    assert changes(pictures(), pictures(change=2)) == ["1 image with other content or label (c)"]
    relabelled = pictures(labels=[1, 1, 0, 1])
    assert changes(pictures(), relabelled) == ["1 image with other content or label (a)"]
    swapped = pictures("badc", labels=[1, 0, 1, 0])
    assert changes(pictures(), swapped) == ["the images are in another order"]


def test_without_a_list_of_images_it_still_knows(monkeypatch) -> None:
    monkeypatch.setattr(identity, "LISTED", 3)
    assert changes(pictures(), pictures("abcde")) == ["1 image more"]
    assert changes(pictures(), pictures(change=1)) == ["the content of images differs"]
    assert changes(pictures(), pictures()) == []


def files_in(root: Path) -> ImageFiles:
    names = sorted(path.name for path in root.iterdir())
    return ImageFiles(name="d", root=root, files=names)


def test_a_folder_that_was_moved_or_touched_is_the_same(tmp_path: Path) -> None:
    first = tmp_path / "first"
    first.mkdir()
    for name in "abc":
        (first / name).write_text(name * 5)
    before = identity.of_images(files_in(first))
    os.utime(first / "a", (1, 1))
    moved = first.rename(tmp_path / "second")
    assert identity.changes(before, identity.of_images(files_in(moved))) == []
    (moved / "b").write_text("longer than before")
    assert identity.changes(before, identity.of_images(files_in(moved))) == [
        "1 image with other content or label (b)"
    ]


def test_pixels_and_sizes_are_not_taken_for_each_other(tmp_path: Path) -> None:
    """An image of another size, and the data are no longer held in memory."""
    for name in "abcd":
        (tmp_path / name).write_text(name)
    held = pictures()
    loose = ImageFiles(
        name="d", root=tmp_path, files=list("abcd"), labels=held.labels, classes=held.classes
    )
    assert changes(held, loose) == []
    loose.labels = 1 - loose.labels
    assert changes(held, loose)[0].startswith("4 images with other content or label")


def test_names_that_are_no_utf8_are_names(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")  # as an archive of another system leaves it
    picture = pictures("a")
    odd = MemoryImages(name="d", images=picture.images, labels=None, files=[name])
    assert identity.of_images(odd)["count"] == 1 and len(odd.fingerprint) == 64
    (tmp_path / name).write_bytes(b"x")
    files = ImageFiles(name="d", root=tmp_path, files=[name], labels=None)
    assert len(files.fingerprint) == 64


def test_only_the_images_that_are_used_count() -> None:
    used = torch.tensor([0, 1])
    before = identity.of_images(pictures(), indices=used)
    assert before["count"] == 2
    assert identity.changes(before, identity.of_images(pictures("abc"), indices=used)) == []


def test_boxes_are_data(tmp_path: Path) -> None:
    (tmp_path / "a.jpg").write_text("a")

    def scene(category: int) -> DetectionDataset:
        box = Box((0.0, 0.0, 4.0, 4.0), category)
        record = ImageRecord(str(tmp_path / "a.jpg"), "a", 8, 8, [box])
        return DetectionDataset("d", ["x", "y"], [record])

    one, other = (identity.of_detection(scene(category)) for category in (0, 1))
    assert identity.changes(one, identity.of_detection(scene(0))) == []
    assert identity.changes(one, other) == ["1 image with other content or label (a)"]
