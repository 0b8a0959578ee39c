"""Where a VOC set's files lie, lists with and without a second column, images of ids."""

import shutil

import pytest

from tests.visrep.data.pictures import voc_object, write_picture, write_voc
from visrep.data.detection.voc import read_voc
from visrep.data.detection.voc_files import Images, layout, listed_ids, xml_names
from visrep.errors import UserError

CAT = voc_object("cat", 2, 2, 9, 9)


def made(root, *ids, lines=None):
    write_voc(root, dict.fromkeys(ids, CAT))
    if lines is not None:
        (root / "ImageSets/Main/train.txt").write_bytes(lines)
    return root


def ids(root, split="train"):
    return listed_ids(layout(root, split), split)


def test_names_that_end_as_the_second_column_does(tmp_path):
    names = ["cell 0", "cell 1", "cell -1", "cell +1", "im", "im -1"]
    assert ids(made(tmp_path, *names)) == names


def test_a_second_column_after_such_names(tmp_path):
    lines = b"cell 0  1\ncell 1 -1\nb  0\nc -1\nd +1\n"
    root = made(tmp_path, "cell 0", "cell 1", "b", "c", "d", lines=lines)
    assert ids(root) == ["cell 0", "b", "d"]


@pytest.mark.parametrize(
    "lines", [b"\xef\xbb\xbfa\nb\n", b"a\r\nb\r\n", b"\xef\xbb\xbfa\r\n\r\nb", b" a \n\tb\n"]
)
def test_byte_order_marks_and_line_ends(tmp_path, lines):
    assert ids(made(tmp_path, "a", "b", lines=lines)) == ["a", "b"]


def test_an_annotation_with_a_byte_order_mark_and_carriage_returns(tmp_path):
    root = made(tmp_path, "a")
    path = root / "Annotations/a.xml"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes().replace(b">", b">\r\n"))
    assert len(read_voc(root, "train").records[0].boxes) == 1


def test_hidden_and_unlisted_files_do_not_matter(tmp_path):
    root = made(tmp_path, "a", "b", lines=b"a\n")
    (root / "ImageSets/Main/._train.txt").write_bytes(b"\0\5")
    (root / "Annotations/._a.xml").write_bytes(b"\0\5\x16\7")
    (root / "Annotations/.DS_Store").write_bytes(b"\0")
    (root / "Annotations/b.xml").write_text("no xml")
    write_picture(root / "JPEGImages/._a.jpg")
    data = read_voc(root, "train")
    assert [r.id for r in data.records] == ["a"] and data.classes == ["cat"]
    (root / "Annotations/b.xml").unlink(), (root / "JPEGImages/b.jpg").unlink()
    assert [r.id for r in read_voc(root, None).records] == ["a"]


def test_a_class_of_an_unlisted_annotation_is_no_class(tmp_path):
    root = made(tmp_path, "a", "b", lines=b"a 1\n")
    text = (root / "Annotations/b.xml").read_text()
    (root / "Annotations/b.xml").write_text(text.replace("cat", "dog"))
    assert read_voc(root, "train").classes == ["cat"]
    (root / "ImageSets/Main/test.txt").write_text("b\n")
    assert read_voc(root, "train").classes == ["cat", "dog"], "those of all lists"


def beside(folder, *names):
    """Annotations beside their images."""
    made(folder / "made", *names)
    for path in [*folder.glob("made/Annotations/*"), *folder.glob("made/JPEGImages/*")]:
        path.rename(folder / path.name)
    shutil.rmtree(folder / "made")


def test_annotations_beside_their_images_in_a_folder_for_each_part(tmp_path):
    beside(tmp_path / "train", "a", "b")
    beside(tmp_path / "valid", "c")
    train, valid = read_voc(tmp_path, "train"), read_voc(tmp_path, "valid")
    assert [r.id for r in train.records] == ["a", "b"] and [r.id for r in valid.records] == ["c"]
    assert train.records[0].file == str(tmp_path.resolve() / "train/a.jpg")
    with pytest.raises(UserError, match=r"folders train, valid with detection\.train\.split= and"):
        read_voc(tmp_path, "trainval")


def test_annotations_beside_their_images_in_one_folder(tmp_path):
    beside(tmp_path, "a", "b")
    assert [r.id for r in read_voc(tmp_path, None).records] == ["a", "b"]
    with pytest.raises(
        UserError, match=r"Main/train\.txt is not there; write one with an image id"
    ):
        read_voc(tmp_path, "train")
    (tmp_path / "ImageSets/Main").mkdir(parents=True)
    (tmp_path / "ImageSets/Main/train.txt").write_text("b\n")
    assert [r.id for r in read_voc(tmp_path, "train").records] == ["b"]


def test_a_folder_of_another_form_is_named_with_what_is_in_it(tmp_path):
    (tmp_path / "labels").mkdir(), (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=r"no folder Annotations; .*\(folders there: images, lab"):
        read_voc(tmp_path, "train")


def test_images_of_any_case_and_of_inner_folders(tmp_path):
    for name in ("a.Jpg", "b.jpg", "b.png", "c.JPEG", "in/d.x.png", "._e.jpg"):
        write_picture(tmp_path / name.replace("Jpg", "jpg"))
    (tmp_path / "a.jpg").rename(tmp_path / "a.Jpg")
    images = Images(tmp_path)
    found = [images.find(id_) for id_ in ("a", "b", "c", "in/d.x", "e", "._e", "gone/f")]
    assert [path and path.name for path in found] == [
        "a.Jpg",
        "b.jpg",
        "c.JPEG",
        "d.x.png",
        None,
        None,
        None,
    ]
    assert images.names() == {"a", "b", "c"} and xml_names(tmp_path) == []
