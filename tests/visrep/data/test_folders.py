"""What counts as an image file, and in which order."""

import os

import pytest

from visrep.data.folders import existing, image_names, sub_folders
from visrep.errors import ConfigError, UserError


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def test_images_are_found_by_suffix_and_sorted(tmp_path):
    touch(tmp_path, "b.jpg", "a.PNG", "c.jpeg", "notes.txt", ".hidden.jpg", "sub/d.jpg", "B.webp")
    assert image_names(tmp_path) == ["B.webp", "a.PNG", "b.jpg", "c.jpeg"]


def test_sub_folders_on_request(tmp_path):
    touch(tmp_path, "b.jpg", "z/a.jpg", "a/y.jpg", "a/b/x.jpg", "a-b/w.jpg", ".git/g.jpg")
    assert image_names(tmp_path, recursive=True) == [
        "b.jpg",
        "a/y.jpg",
        "a-b/w.jpg",
        "a/b/x.jpg",
        "z/a.jpg",
    ]
    assert [folder.name for folder in sub_folders(tmp_path)] == ["a", "a-b", "z"]


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(UserError, match=r"nowhere is not a folder; give an existing one"):
        existing(str(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match=r"add data\.root=PATH"):
        existing(None)
    assert existing(str(tmp_path)).is_absolute()


def test_home_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "pictures").mkdir()
    assert existing("~/pictures") == (tmp_path / "pictures").resolve()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every folder")
def test_a_folder_that_may_not_be_read_is_named(tmp_path):
    (tmp_path / "locked").mkdir(mode=0o000)
    with pytest.raises(UserError, match="locked"):
        image_names(tmp_path, recursive=True)
