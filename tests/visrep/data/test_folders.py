"""Folders of images: what counts as one, in which order, and the data sets read from them."""

import inspect
import os
import pickle
import tarfile

import numpy as np
import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image
from torchvision import datasets as tv

from tests.visrep.data.pictures import SHARED, write_picture
from visrep import config, groups
from visrep.data.dataset import ImageFiles, MemoryImages
from visrep.data.folders import (
    MAX_BROKEN,
    existing,
    folder,
    image_folder,
    image_names,
    sub_folders,
)
from visrep.data.images import BrokenImage
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


def test_a_link_to_a_folder_above_brings_no_image_twice(tmp_path, log_lines):
    touch(tmp_path, "one/a/1.jpg", "one/a/2.jpg", "one/b/3.jpg", "beside/4.jpg")
    (tmp_path / "one/a/up").symlink_to("..")
    (tmp_path / "one/a/further").symlink_to(tmp_path)
    (tmp_path / "one/b/self").symlink_to(".")
    wanted = ["a/1.jpg", "a/2.jpg", "b/3.jpg"]
    assert image_names(tmp_path / "one", recursive=True) == wanted
    assert len(log_lines) == 3 and "leads to a folder that is read already" in log_lines[0]
    # Of a class folder they would bring in the other classes under its name.
    assert image_names(tmp_path / "one" / "a", recursive=True) == ["1.jpg", "2.jpg"]


def test_a_folder_that_two_links_lead_to_is_read_once(tmp_path):
    touch(tmp_path, "else/1.jpg", "else/deep/2.jpg", "root/0.jpg")
    for name in ("b", "a"):
        (tmp_path / "root" / name).symlink_to(tmp_path / "else")
    (tmp_path / "else/deep/round").symlink_to(tmp_path / "root")
    assert image_names(tmp_path / "root", recursive=True) == ["0.jpg", "a/1.jpg", "a/deep/2.jpg"]


def test_images_of_other_kinds_are_left_out_aloud(tmp_path, log_lines):
    write_picture(tmp_path / "a" / "1.png")
    write_picture(tmp_path / "b" / "2.png")
    touch(tmp_path, "a/x.gif", "a/y.gif", "b/z.HEIC", "b/._z.gif", "b/notes.txt")
    assert len(image_folder(str(tmp_path))) == 2
    assert f"{tmp_path}: images of other kinds are left out (2 .gif, 1 .HEIC)" in log_lines[0]


def test_the_depth_of_a_node_reaches_every_image(tmp_path, log_lines):
    for i, size in enumerate((4, 4, 5)):
        grey = np.linspace(0, 4095, size * size).reshape(size, size).astype(np.uint16)
        Image.fromarray(grey).save(tmp_path / f"{i}.png")
    node = OmegaConf.create({"data": groups.named("data", "folder")})
    node.data.root, node.data.depth = str(tmp_path), [0, 4095]
    files = config.instantiate(node.data.train)
    assert isinstance(files, ImageFiles) and files[2].max() == 255 and not log_lines
    assert pickle.loads(pickle.dumps(files))[2].max() == 255  # as a worker has it
    (tmp_path / "2.png").unlink()
    memory = config.instantiate(node.data.train)
    assert memory.images is not None and memory.images.amax(dim=(1, 2, 3)).tolist() == [255, 255]
    node.data.depth = "auto"
    assert config.instantiate(node.data.train).images.max() == 15
    assert "depth=[0,4095]" in log_lines[0]
    node.data.depth = "dark"
    with pytest.raises(ConfigError, match="depth=dark"):
        config.instantiate(node.data.train)


def test_cached_features_depend_on_the_depth(flat):
    sets = [folder(str(flat), memory_limit=0, depth=d) for d in ("auto", "per_image", (0, 9))]
    assert len({files.fingerprint for files in sets}) == 3


def test_long_thin_images_are_not_held_in_memory(tmp_path):
    for name in ("a.png", "b.png"):
        write_picture(tmp_path / name, height=2, width=600)
    assert folder(str(tmp_path)).images is None


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


@pytest.fixture
def flat(tmp_path):
    """Five pictures of one size."""
    for i in range(5):
        write_picture(tmp_path / "flat" / f"{i}.png", seed=i)
    return tmp_path / "flat"


@pytest.fixture
def classed(tmp_path):
    """train/{cat,dog}: 3 + 2 pictures; one lies deeper."""
    for i, name in enumerate(("cat/a", "cat/b", "cat/deep/c", "dog/a", "dog/z")):
        write_picture(tmp_path / "classed/train" / f"{name}.png", seed=i)
    return tmp_path / "classed"


def test_a_flat_folder_needs_no_flag(flat):
    data = folder(str(flat))
    assert isinstance(data, MemoryImages)
    assert (len(data), data.name, data.labels, data.classes) == (5, "flat", None, None)
    assert [data.file(i) for i in range(5)] == [f"{i}.png" for i in range(5)]
    expected = torch.from_numpy(write_picture(flat / "3.png", seed=3)).permute(2, 0, 1)
    assert torch.equal(data[3], expected) and torch.equal(data.images[3], expected)


def test_unequal_or_large_images_stay_files(flat):
    same = folder(str(flat), memory_limit=5 * 3 * 8 * 8)
    assert same.images is not None
    files = folder(str(flat), memory_limit=5 * 3 * 8 * 8 - 1)
    assert isinstance(files, ImageFiles) and files.images is None
    assert all(torch.equal(files[i], same[i]) for i in range(5))
    assert [files.file(i) for i in range(5)] == [same.file(i) for i in range(5)]

    write_picture(flat / "9.png", height=9)
    unequal = folder(str(flat))
    assert unequal.images is None and unequal[5].shape == (3, 9, 8) and len(unequal) == 6


def test_fingerprints_follow_the_content(flat):
    for limit in (10**6, 0):
        before = folder(str(flat), memory_limit=limit).fingerprint
        assert folder(str(flat), memory_limit=limit).fingerprint == before
        write_picture(flat / "2.png", seed=100 + limit)
        assert folder(str(flat), memory_limit=limit).fingerprint != before
        before = folder(str(flat), memory_limit=limit).fingerprint
        write_picture(flat / f"new{limit}.png")
        assert folder(str(flat), memory_limit=limit).fingerprint != before


def test_sub_folders_of_a_flat_folder(tmp_path):
    write_picture(tmp_path / "x" / "a.png")
    write_picture(tmp_path / "y" / "b.png")
    with pytest.raises(UserError, match="its sub-folders do: add recursive=true"):
        folder(str(tmp_path))
    data = folder(str(tmp_path), recursive=True)
    assert [data.file(0), data.file(1)] == ["x/a.png", "y/b.png"]


def test_image_folder_is_torchvision_s(classed):
    data = image_folder(str(classed), split="train")
    theirs = tv.ImageFolder(str(classed / "train"))
    assert data.name == "classed/train" and data.classes == theirs.classes == ["cat", "dog"]
    assert data.labels.tolist() == theirs.targets == [0, 0, 0, 1, 1]
    root = f"{(classed / 'train').resolve()}/"
    assert [root + data.file(i) for i in range(5)] == [
        str((classed / path).resolve()) for path, _ in theirs.samples
    ]
    for i in range(5):
        assert torch.equal(data[i], torch.from_numpy(np.array(theirs[i][0])).permute(2, 0, 1))


def test_classes_in_the_root_itself(classed):
    data = image_folder(str(classed / "train"))
    assert data.name == "train" and len(data) == 5


def test_a_list_chooses_images(classed, tmp_path):
    (tmp_path / "names.txt").write_text("dog/z.png\ncat/b.png\n")
    data = image_folder(str(classed), split="train", names=str(tmp_path / "names.txt"))
    assert [data.file(0), data.file(1)] == ["dog/z.png", "cat/b.png"]
    assert data.labels.tolist() == [1, 0] and data.classes == ["cat", "dog"]
    (tmp_path / "names.txt").write_text("cat/b.png\ncat/none.png\n")
    with pytest.raises(UserError, match=r"names\.txt:2: cat/none\.png is not among the 5 images"):
        image_folder(str(classed), split="train", names=str(tmp_path / "names.txt"))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda p: folder(str(p / "none")), r"none is not a folder; give an existing one"),
        (lambda p: folder(str(p)), r"has no images; put some there"),
        (lambda p: folder(None), r"add data\.root=PATH"),
        (lambda p: image_folder(str(p / "none"), split="train"), r"none is not a folder"),
        (lambda p: image_folder(str(p), split="val"), r"val is not there .*data\.test\.split"),
        (lambda p: image_folder(str(p)), r"has no class folders; .*data=folder"),
    ],
)
def test_nothing_there_is_one_clear_line(tmp_path, make, message):
    with pytest.raises(UserError, match=message) as caught:
        make(tmp_path)
    assert "\n" not in str(caught.value)


def test_an_empty_class_is_named(classed):
    (classed / "train/bird").mkdir()
    with pytest.raises(UserError, match=r"class folder .*bird has no images; fill or remove it"):
        image_folder(str(classed), split="train")


def test_a_missing_split_names_what_is_there(classed):
    with pytest.raises(UserError, match=r"val is not there \(folders in .*: train\)"):
        image_folder(str(classed), split="val")


def test_a_broken_image_is_named_or_skipped_with_its_label(classed, log_lines):
    (classed / "train/cat/b.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"1 of 5 images cannot be read.*cat/b\.png"):
        image_folder(str(classed), split="train")
    data = image_folder(str(classed), split="train", max_broken=0.2)
    assert len(data) == 4 and data.labels.tolist() == [0, 0, 1, 1]
    assert [data.file(i) for i in range(4)] == [
        "cat/a.png",
        "cat/deep/c.png",
        "dog/a.png",
        "dog/z.png",
    ]
    assert torch.equal(
        data[1], image_folder(str(classed / "train/.."), split="train", max_broken=0.2)[1]
    )
    assert any("cat/b.png" in line for line in log_lines)

    lazy = image_folder(str(classed), split="train", memory_limit=0, max_broken=0.2)
    assert len(lazy) == 5
    with pytest.raises(BrokenImage, match=r"cat/b\.png"):
        lazy[1]


@pytest.fixture
def parted(tmp_path):
    """test/ and val/, a class of one picture in each."""
    for part in ("test", "val"):
        write_picture(tmp_path / "own" / part / "cat" / "a.png")
    return tmp_path / "own"


def test_the_test_part_is_test_or_else_val(parted, log_lines):
    """What `data=imagefolder` reads; both folders are said in one line, with the way out."""

    def part(*overrides):
        given = ["data=imagefolder", f"data.root={parted}", "out=x", *overrides]
        return config.instantiate(config.compose("splits", given)[0].data.test).name

    assert part() == "own/test"
    (line,) = [line for line in log_lines if "has both test and val" in line]
    assert "test is taken" in line and "data.test.split=val takes the other" in line
    assert part("data.test.split=val") == "own/val"
    (parted / "test").rename(parted / "held_out")
    assert part() == "own/val" and part("data.test.split=held_out") == "own/held_out"
    (parted / "val").rename(parted / "aside")
    with pytest.raises(UserError, match=r"own/test or .*own/val is not there \(folders in .*aside"):
        part()
    assert len([line for line in log_lines if "has both" in line]) == 1


def test_imagenet_s_test_part_is_val():
    assert groups.named("data", "imagenet").test.split == "val"


@pytest.mark.parametrize("name", groups.choices("data"))
def test_the_nodes_fit_their_readers(name, tmp_path):
    node = OmegaConf.create({"data": groups.named("data", name)})
    if name != "scenes":
        node.data.root = str(tmp_path)
    for split in ("train", "test"):
        part = OmegaConf.to_container(node, resolve=True)["data"][split]
        if part is None:
            assert (name, split) == ("folder", "test")
            continue
        module, _, function = part.pop("_target_").rpartition(".")
        reader = getattr(__import__(module, fromlist=[function]), function)
        inspect.signature(reader).bind(**part)


def test_one_key_sets_the_tolerated_share(tmp_path):
    """`max_broken` of pretrain also holds where the images are read into memory."""
    node = {"data": groups.named("data", "folder"), "max_broken": 0.25}
    assert OmegaConf.create(node).data.train.max_broken == 0.25
    assert OmegaConf.create({"data": node["data"]}).data.train.max_broken == MAX_BROKEN


def test_a_data_node_without_a_folder_says_which_key(tmp_path):
    node = OmegaConf.create({"data": groups.named("data", "imagenet")})
    with pytest.raises(ConfigError, match=r"add data\.root=PATH"):
        config.instantiate(node.data.train)


@pytest.mark.skipif(not (SHARED / "cifar10-jpeg.tar.xz").exists(), reason="no ../shared/data")
def test_real_images(tmp_path):
    """The first images of the shared CIFAR-10: two classes, real jpeg files."""
    with tarfile.open(SHARED / "cifar10-jpeg.tar.xz") as archive:
        for member in archive:
            if member.isfile() and member.name.endswith(("0001.jpg", "0002.jpg")):
                archive.extract(member, tmp_path, filter="data")
            if len(list(tmp_path.rglob("*.jpg"))) >= 4:
                break
    (split,) = {path.parent.parent for path in tmp_path.rglob("*.jpg")}
    data = image_folder(str(split.parent), split=split.name)
    assert data.images.shape == (4, 3, 32, 32) and len(data.classes) == 2
