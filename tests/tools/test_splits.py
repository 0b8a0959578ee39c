"""`visrep splits`."""

import pytest

from tests.small_data import write_folder
from visrep import cli
from visrep.data.folders import image_folder
from visrep.data.splits import label_subset, read_list


@pytest.fixture
def root(tmp_path):
    return write_folder(tmp_path / "data", train=60, test=3)


def splits(root, *arguments):
    """The exit code of `visrep splits` on the folder `root`."""
    with pytest.raises(SystemExit) as ended:
        cli.main(["splits", "data=imagefolder", f"data.root={root}", *arguments])
    return ended.value.code


def test_the_list_is_the_drawn_subset(root, tmp_path, capsys):
    out = tmp_path / "lists/ten.txt"
    assert splits(root, "fraction=0.2", "seed=3", f"out={out}") == 0
    dataset = image_folder(str(root), split="train")
    expected = label_subset(dataset, fraction=0.2, seed=3)
    assert read_list(out, dataset).tolist() == expected.tolist()
    assert (
        f"{out}: 12 of 60 images of data/train, 4 for each of 3 classes" in capsys.readouterr().out
    )


def test_an_uneven_share_says_so(root, tmp_path, capsys):
    assert splits(root, "fraction=0.1334", f"out={tmp_path / 'list.txt'}") == 0
    assert (
        "8 of 60 images of data/train, 2 to 3 for each of 3 classes, 3 in the median"
        in capsys.readouterr().out
    )


def test_a_file_is_not_overwritten_unasked(root, tmp_path, capsys):
    out = tmp_path / "list.txt"
    out.write_text("precious\n")
    assert splits(root, f"out={out}") == 2
    assert "list.txt exists" in capsys.readouterr().err and out.read_text() == "precious\n"
    assert splits(root, f"out={out}", "overwrite=true") == 0
    assert out.read_text() != "precious\n"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (("fraction=2",), 2, "fraction=2: give a number, above 0, at most 1"),
        (("fractoin=0.1",), 2, "did you mean fraction?"),
        (("data.train.split=none",), 1, "none is not there"),
        (("data=folder", "data.root=ROOT/train/red"), 1, "has no labels"),
        (("data=folder", "data.root=ROOT/train"), 1, "recursive=true"),
        (("data.root=null",), 2, "add data.root=PATH"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_file(root, tmp_path, capsys, arguments, code, message):
    out = tmp_path / "list.txt"
    arguments = [argument.replace("ROOT", str(root)) for argument in arguments]
    assert splits(root, f"out={out}", *arguments) == code
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("visrep: ") and message in lines[0]
    assert not out.exists()
